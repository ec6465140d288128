#!/bin/bash
# Each function is an app of workload.toml; the root file system is an initramfs, which pivot_root() cannot leave.
set -e
mnt=/tmp/m; mkdir -p $mnt
file() { truncate -s ${2:-64M} /data/$1; }
exercise() {   # a folder
    ( cd $1
    mkdir -p a/b; for i in 1 2 3 4 5; do head -c $((i * 70000 + 1)) /dev/urandom > a/$i; done
    cp -r a c; ln -s a/1 l; ln a/2 h; mv a/3 a/b/3; rm a/4; sync; cmp a/1 c/1
    truncate -s 1000 a/5; dd if=/dev/zero of=a/6 bs=4k count=50 oflag=sync 2>/dev/null; chmod 600 a/1; touch -d yesterday a/2
    find . | wc -l; df .; rm -r a; )
}
raid() {
    file r1; file r2
    a=$(losetup -f --show /data/r1); b=$(losetup -f --show /data/r2)
    mdadm --create /dev/md0 --run --level=1 --raid-devices=2 --metadata=1.2 $a $b
    cat /proc/mdstat
    mkfs.ext4 -q -F /dev/md0; mount /dev/md0 $mnt; exercise $mnt
    mdadm /dev/md0 --fail $b; cat /proc/mdstat; exercise $mnt || true
    mdadm /dev/md0 --remove $b; mdadm /dev/md0 --add $b; sleep 3; cat /proc/mdstat; mdadm --detail /dev/md0
    umount $mnt; mdadm --stop /dev/md0; losetup -d $a; losetup -d $b; rm /data/r1 /data/r2
}
crypt() {
    file c; l=$(losetup -f --show /data/c)
    echo -n secret | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $l -
    echo -n secret | cryptsetup open $l vault -
    mkfs.ext4 -q /dev/mapper/vault; mount /dev/mapper/vault $mnt; exercise $mnt; dmsetup table; dmsetup status
    umount $mnt; cryptsetup close vault; losetup -d $l; rm /data/c
    dmsetup create zero --table "0 2048 zero"; dmsetup mknodes
    dd if=/dev/mapper/zero of=/dev/null bs=64k count=4; dmsetup remove zero
}
filesystems() {
    for f in "xfs 320M -q" "btrfs 128M -q" "vfat 32M" "ext4 64M -q -F"; do
        set -- $f
        truncate -s $2 /tmp/f; l=$(losetup -f --show /tmp/f)
        mkfs.$1 $3 $4 $l; mount -t $1 $l $mnt
        if [ $1 = vfat ]; then
            (cd $mnt; mkdir d; echo x > d/LongFileName.txt; cat d/longfilename.txt; mv d e; rm -r e; df .)
        else
            exercise $mnt
        fi
        case $1 in
        xfs) xfs_growfs $mnt || true; fstrim $mnt || true;;
        btrfs)
            btrfs subvolume create $mnt/s; btrfs subvolume snapshot $mnt/s $mnt/t; btrfs filesystem df $mnt
            btrfs scrub start -B $mnt;;
        ext4)
            setfattr -n user.k -v v $mnt/h; getfattr -d $mnt/h; setfacl -m u:nobody:r $mnt/h; getfacl $mnt/h
            chattr +i $mnt/h; lsattr $mnt; chattr -i $mnt/h; resize2fs $l || true;;
        esac
        umount $mnt; losetup -d $l; rm /tmp/f
    done
}
swap() {
    echo 200M > /sys/block/zram0/disksize; mkswap /dev/zram0; swapon /dev/zram0
    file s 128M; fallocate -l 128M /data/s; chmod 600 /data/s; mkswap /data/s; swapon -p 1 /data/s
    swapon -s; cat /proc/swaps
    stress-ng --vm 2 --vm-bytes 1100M --vm-keep -t 10 --oomable || true
    free
    swapoff /data/s; swapoff /dev/zram0; rm /data/s
}
overlay() {
    mkdir -p /data/low /data/up /data/work; echo one > /data/low/f; echo two > /data/low/g
    mount -t overlay -o lowerdir=/data/low,upperdir=/data/up,workdir=/data/work none $mnt
    echo three >> $mnt/f; rm $mnt/g; exercise $mnt; ls -la $mnt /data/up; umount $mnt
}
container() {
    mkdir -p /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup || true
    mkdir -p /data/ct/rootfs/{bin,proc,dev,sys,tmp}
    cp /usr/bin/busybox /data/ct/rootfs/bin/; ln -sf busybox /data/ct/rootfs/bin/sh
    cd /data/ct; crun spec
    sed -i 's/"terminal": true/"terminal": false/; s#"sh"#"/bin/busybox", "ls", "/"#' config.json
    crun --cgroup-manager=cgroupfs run --no-pivot box
    cd /; unshare -fmpui --mount-proc sh -c 'hostname box; ps; echo hi > /dev/null'
    mkdir -p /sys/fs/cgroup/t; echo $$ > /sys/fs/cgroup/t/cgroup.procs; cat /sys/fs/cgroup/t/cgroup.controllers
    echo $$ > /sys/fs/cgroup/cgroup.procs; rmdir /sys/fs/cgroup/t
}
io() {
    mkdir -p /dev/shm; mount -t tmpfs none /dev/shm
    for e in psync libaio io_uring mmap; do
        fio --name=t --directory=/data --size=8M --rw=randrw --bs=4k --ioengine=$e --iodepth=8 --time_based=0 --fallocate=none
    done
    stress-ng --timer 1 --pipe 1 --sem 1 --msg 1 --shm 1 --eventfd 1 --sigq 1 -t 3
}
"$@"
