#!/bin/sh
# What udhcpc runs with what it was given.
set -e
case $1 in
deconfig)
	ip link set $interface up
	ip -4 addr flush dev $interface
	;;
bound | renew)
	ip addr replace $ip/$mask dev $interface
	ip route replace default via $router dev $interface
	echo "nameserver $dns" >/etc/resolv.conf
	;;
nak | leasefail) echo "$1: $message" ;;
esac
