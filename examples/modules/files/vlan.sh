#!/bin/sh
# A VLAN on a device that swallows what it is sent.
set -e
modprobe dummy
modprobe 8021q
ip link add dummy1 type dummy
ip link set dummy1 up
ip link add link dummy1 name dummy1.5 type vlan id 5
ifconfig dummy1.5 10.5.0.1 netmask 255.255.255.0 up
cat /proc/net/vlan/config
ping -c 1 -W 1 10.5.0.2 || true
ip link del dummy1.5
ip link del dummy1
modprobe -r 8021q
modprobe -r dummy
! grep -E '^(8021q|dummy) ' /proc/modules
