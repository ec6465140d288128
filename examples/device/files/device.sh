#!/bin/bash
# What each app of the workload does: device.sh APP
set -e

flash() {
	mtdinfo /dev/mtd0
	ubiformat /dev/mtd0 -y -q
	ubiattach -p /dev/mtd0
	ubimkvol /dev/ubi0 -N data -s 20MiB
	ubimkvol /dev/ubi0 -N config -s 4MiB
	mkdir -p /mnt/flash
	mount -t ubifs ubi0:data /mnt/flash
	for i in 1 2 3 4 5; do head -c 500000 /dev/urandom > /mnt/flash/$i; done
	sync
	mv /mnt/flash/1 /mnt/flash/one
	rm /mnt/flash/2
	ln /mnt/flash/3 /mnt/flash/three
	truncate -s 1000 /mnt/flash/4
	umount /mnt/flash
	mount -t ubifs ubi0:data /mnt/flash
	cmp /mnt/flash/3 /mnt/flash/three
	ubinfo -a
	umount /mnt/flash
	ubiupdatevol /dev/ubi0_1 /bin/busybox
	ubirmvol /dev/ubi0 -N config
	ubidetach -p /dev/mtd0
	flash_erase -q -j /dev/mtd0 0 0
	mount -t jffs2 /dev/mtdblock0 /mnt/flash
	head -c 300000 /dev/urandom > /mnt/flash/a
	mkdir /mnt/flash/d
	mv /mnt/flash/a /mnt/flash/d
	sync
	umount /mnt/flash
	mount -t jffs2 /dev/mtdblock0 /mnt/flash
	ls -l /mnt/flash/d
	umount /mnt/flash
}

image() {
	mkdir -p /tmp/tree/etc /mnt/ro /mnt/root /mnt/fuse /tmp/over
	head -c 400000 /bin/busybox > /tmp/tree/prog
	echo conf > /tmp/tree/etc/conf
	for how in gzip xz zstd; do
		mksquashfs /tmp/tree /tmp/$how.img -comp $how -quiet -no-progress -noappend
		mount -o loop,ro -t squashfs /tmp/$how.img /mnt/ro
		cmp /mnt/ro/prog /tmp/tree/prog
		umount /mnt/ro
	done
	mount -o loop,ro -t squashfs /tmp/xz.img /mnt/ro
	mount -t tmpfs none /tmp/over
	mkdir /tmp/over/up /tmp/over/work
	mount -t overlay -o lowerdir=/mnt/ro,upperdir=/tmp/over/up,workdir=/tmp/over/work none /mnt/root
	echo new >> /mnt/root/etc/conf
	rm /mnt/root/prog
	mkdir /mnt/root/var
	find /mnt/root
	umount /mnt/root
	umount /mnt/ro
	squashfuse /tmp/gzip.img /mnt/fuse
	cmp /mnt/fuse/prog /tmp/tree/prog
	umount /mnt/fuse
}

card() {
	truncate -s 96M /tmp/card
	mkfs.f2fs -q /tmp/card > /dev/null
	mkdir -p /mnt/card
	mount -o loop -t f2fs /tmp/card /mnt/card
	for i in 1 2 3 4 5 6; do head -c 1000000 /dev/urandom > /mnt/card/$i; done
	sync
	rm /mnt/card/3
	mv /mnt/card/4 /mnt/card/four
	fallocate -l 2M /mnt/card/more
	df /mnt/card
	umount /mnt/card
	mount -o loop -t f2fs /tmp/card /mnt/card
	md5sum /mnt/card/1
	umount /mnt/card
	rm /tmp/card
}

buttons() {
	mkdir -p /sys/kernel/config
	mount -t configfs none /sys/kernel/config
	local sim=/sys/kernel/config/gpio-sim/chip chip pull node panel
	mkdir -p $sim/bank
	echo 8 > $sim/bank/num_lines
	mkdir $sim/bank/line1
	echo button > $sim/bank/line1/name
	echo 1 > $sim/live
	gpioinfo
	chip=$(gpiodetect | head -1 | cut -d' ' -f1)
	gpioset $chip 3=1
	gpioget $chip 3
	timeout 5 gpiomon -n 2 $chip 1 &
	sleep 1
	pull=$(find /sys/devices/platform -name pull -path '*sim_gpio1/*')
	echo pull-up > $pull
	echo pull-down > $pull
	wait
	echo 0 > $sim/live
	# Name, identity, properties, keys: evemu's own format.
	cat > /tmp/panel <<-'END'
		N: panel
		I: 0003 045e 0001 0110
		B: 00 03 00 00 00 00 00 00 00
		B: 01 00 00 00 00 00 00 00 00
		B: 01 ff ff ff ff 00 00 00 00
	END
	evemu-device /tmp/panel &
	panel=$!
	sleep 1
	cat /proc/bus/input/devices
	node=$(ls /dev/input/event* | tail -1)
	timeout 3 evtest $node > /tmp/seen &
	sleep 1
	evemu-event $node --type EV_KEY --code KEY_A --value 1 --sync
	evemu-event $node --type EV_KEY --code KEY_A --value 0 --sync
	sleep 2
	kill $panel
	wait
	head -3 /tmp/seen
}

watchdog() {
	cat /sys/class/watchdog/watchdog0/identity
	busybox watchdog -F -t 1 -T 30 /dev/watchdog0 &
	sleep 3
	cat /sys/class/watchdog/watchdog0/state
	kill $!
	wait || true
	wdctl /dev/watchdog0
}

clocks() {
	# In a slow guest they wait for the clock's tick in vain.
	hwclock -r || true
	hwclock -w || true
	cat /proc/driver/rtc
	rtcwake -m on -s 2
	date -s '2026-03-04 05:06:07'
	adjtimex
	chrt -f 10 true
	chrt -d --sched-runtime 5000000 --sched-deadline 10000000 --sched-period 16666666 0 true
	ionice -c 3 true
}

buses() {
	i2cdetect -l
	i2cdetect -y 0
	i2cdump -y 0 0x50 b
	ls /sys/class/thermal /sys/class/hwmon
	cat /proc/interrupts /proc/iomem /proc/mtd
	cat /sys/bus/pci/devices/*/config | md5sum
}

watch() {
	mkdir -p /tmp/spool
	timeout 4 inotifywait -m /tmp/spool -e create -e delete -e move > /tmp/events &
	sleep 1
	touch /tmp/spool/a
	mv /tmp/spool/a /tmp/spool/b
	rm /tmp/spool/b
	wait
	cat /tmp/events
	mkfifo /tmp/pipe
	echo through > /tmp/pipe &
	cat /tmp/pipe
	flock /tmp/lock -c 'sleep 1' &
	sleep 0.2
	flock -w 5 /tmp/lock true
	wait
	ipcmk -Q -M 4096 -S 3
	ipcs
	prlimit --nofile=64 ls > /dev/null
}

trace() {
	strace -f -o /tmp/calls bash -c 'ls /tmp | wc -l; sleep 0.1'
	tail -2 /tmp/calls
	strace -c true
	bash -c 'ulimit -c unlimited; kill -SEGV $$' || true
	dmesg | tail -2
	lscpu
	lsblk
	findmnt
	cat /proc/self/maps /proc/self/smaps /proc/vmstat | wc -l
}

"$1"
