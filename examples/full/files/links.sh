#!/bin/bash
# iproute2: links, addresses, routes, rules and neighbours of both protocols, a second machine behind a pair
# of virtual cards, and what is refused. What is made is taken away again.
set -euo pipefail
. /root/system.sh
refused() { ! "$@" 2>/dev/null || { echo "not refused: $*"; exit 1; }; }
size=$((3000 + KPRUNE_SEED % 1000))

ip link; ip -s -d link show dev lo; ip -br addr; ip -j addr >/dev/null
ip route; ip -6 route; ip neigh; ip rule; ip -6 rule; ip maddr; ip netns
ip route get 10.0.2.2; ip -6 route get ::1
ip addr add 10.0.2.115/24 dev eth0
ip addr del 10.0.2.115/24 dev eth0
ip -6 addr add fd00:2::15/64 dev eth0 nodad
ip -6 addr del fd00:2::15/64 dev eth0
ip monitor all >/tmp/monitor & monitor=$!
sleep 0.2

# A second machine.
ip netns add other
ip link add near type veth peer name far
ip link set far netns other
ip addr add 10.9.0.1/24 dev near
ip -6 addr add fd00:9::1/64 dev near nodad
ip link set near up
ip -n other addr add 10.9.0.2/24 dev far
ip -n other -6 addr add fd00:9::2/64 dev far nodad
ip -n other link set far up
ip -n other link set lo up
ip -n other route add default via 10.9.0.1
ip -n other -6 route add default via fd00:9::1
for family in 4 6; do
	to=10.9.0.2; [ $family = 6 ] && to=fd00:9::2
	ping -q -$family -c 2 -i 0.2 -W 5 $to
	ping -q -$family -c 1 -W 5 -s $size $to
	# As from another machine: connections, and one that nobody accepts.
	ip netns exec other python3 -m http.server --bind $to --directory /etc 8000 2>/dev/null & server=$!
	address=$to; [ $family = 6 ] && address="[$to]"
	until curl -sf -o /dev/null http://$address:8000/hosts; do kill -0 $server; sleep 0.2; done
	curl -s -o /dev/null http://$address:8001/ || [ $? = 7 ]
	ss -tnpi dst "$address" >/dev/null
	kill $server; wait $server || true
done
ip neigh show dev near; ip -6 neigh show dev near
ip neigh flush dev near
ip neigh add 10.9.0.77 lladdr 02:00:00:00:00:77 dev near
ip neigh del 10.9.0.77 dev near
# There is no such machine: here nobody answers, there the kernel says so.
ping -q -4 -c 1 -W 5 10.9.0.99 >/dev/null & fourth=$!
ping -q -6 -c 1 -W 5 fd00:9::99 >/dev/null & sixth=$!
refused wait $fourth
refused wait $sixth
ip route add unreachable 192.0.2.0/24
ip route add prohibit 198.51.100.0/24
ip route add blackhole 203.0.113.0/24
ip -6 route add unreachable 2001:db8::/32
for to in 192.0.2.1 198.51.100.1 203.0.113.1 2001:db8::1; do
	refused ping -c 1 -W 1 $to
	curl -s -o /dev/null http://$([[ $to = *:* ]] && echo "[$to]" || echo $to)/ || [ $? = 7 ]
done
ip route del unreachable 192.0.2.0/24
ip route del prohibit 198.51.100.0/24
ip route del blackhole 203.0.113.0/24
ip -6 route del unreachable 2001:db8::/32
# The machine between two others.
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip netns exec other ping -q -c 1 -W 5 10.0.2.15
sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0
# Tables and rules.
ip route add 10.8.0.0/16 via 10.9.0.2 table 100 metric 5
ip rule add from 10.9.0.1 table 100 priority 100
ip route show table 100
ip route get 10.8.1.1 from 10.9.0.1
ip rule del priority 100
ip route flush table 100
ip -6 route add fd00:8::/32 via fd00:9::2
ip -6 route replace fd00:8::/32 via fd00:9::2 metric 7
ip -6 route del fd00:8::/32
# Other kinds of links.
ip link add dummy9 type dummy
ip link add link dummy9 name dummy9.5 type vlan id 5
ip link add bridge9 type bridge
ip link set dummy9 master bridge9 mtu 1400 address 02:00:00:00:00:09 up
ip link set bridge9 up
ip link set bridge9 promisc on
ip link set dummy9.5 up
bridge link >/dev/null; bridge fdb >/dev/null
ip tuntap add dev tap9 mode tap
ip tuntap del dev tap9 mode tap
ip link del dummy9.5
ip link del dummy9
ip link del bridge9
ss -s; ss -tulpn; ss -xa >/dev/null; ss -0 >/dev/null; ss -w >/dev/null; ss -f netlink >/dev/null
# What there is already, what there is not, and what is no address.
refused ip addr add 127.0.0.1/8 dev lo
refused ip addr add 10.1.1.1/24 dev nothing
refused ip addr add 300.1.1.1/24 dev lo
refused ip link set nothing up
refused ip route add default via 172.16.0.1
refused ip route del 172.16.0.0/12
refused ip -6 route add default via fe80::1
refused ip link add near type dummy
refused ip netns add other
refused ip netns exec nothing true
ip link del near
ip netns del other
kill $monitor; wait $monitor || true
[ -s /tmp/monitor ]
rm /tmp/monitor
