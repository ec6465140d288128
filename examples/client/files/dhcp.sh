#!/bin/sh
# Forget the address and ask for one, as often as $KPRUNE_SEED says.
set -e
count=$((1 + KPRUNE_SEED % 2))
while [ $count -gt 0 ]; do
	ip addr flush dev eth0
	ip link set eth0 down
	udhcpc -i eth0 -n -q -f -t 10 -s /root/lease.sh
	ip addr show dev eth0 | grep -q 'inet 10.0.2.15/24'
	ip route | grep -q 'default via 10.0.2.2'
	grep -q 'nameserver 10.0.2.3' /etc/resolv.conf
	count=$((count - 1))
done
# An address that is asked for by name, and renewed.
udhcpc -i eth0 -n -f -t 10 -r 10.0.2.15 -p /run/udhcpc.pid -s /root/lease.sh &
until [ -s /run/udhcpc.pid ] && ip route | grep -q 'default via 10.0.2.2'; do sleep 0.1; done
kill -USR1 $(cat /run/udhcpc.pid)
sleep 0.5
kill -USR2 $(cat /run/udhcpc.pid)
sleep 0.5
kill $(cat /run/udhcpc.pid)
wait
udhcpc -i eth0 -n -q -f -t 10 -s /root/lease.sh
# Where nobody answers.
if udhcpc -i lo -n -q -f -t 1 -T 1 -s /bin/true; then exit 1; fi
if udhcpc -i eth9 -n -q -f -t 1 -T 1 -s /bin/true; then exit 1; fi
