#!/bin/sh
# A bridge with one port.
set -e
modprobe dummy
modprobe bridge
grep -E '^(bridge|stp|llc) ' /proc/modules
brctl addbr br0
ip link add dummy2 type dummy
brctl addif br0 dummy2
ifconfig dummy2 up
ifconfig br0 10.6.0.1 netmask 255.255.255.0 up
ping -c 1 -W 1 10.6.0.2 || true
[ -e /sys/class/net/br0/brif/dummy2 ]
ifconfig br0 down
brctl delif br0 dummy2
brctl delbr br0
ip link del dummy2
modprobe -r bridge
modprobe -r dummy
! grep -E '^(bridge|stp|llc|dummy) ' /proc/modules
