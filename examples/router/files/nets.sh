#!/bin/bash
# A router between two network namespaces: lan (behind a bridge) and wan.
set -e
up() {
    mkdir -p /var/run /run/netns
    ip netns add lan
    ip netns add wan
    ip link add lanbr type bridge stp_state 0
    ip link add lanp type veth peer name lan0 netns lan
    ip link add wan0 type veth peer name up0 netns wan
    ip link set lanp master lanbr
    ip addr add 192.168.7.1/24 dev lanbr
    ip addr add 192.0.2.1/24 dev wan0
    ip -6 addr add fd00:7::1/64 dev lanbr nodad
    for l in lanbr lanp wan0; do ip link set $l up; done
    ip -n lan addr add 192.168.7.2/24 dev lan0
    ip -n lan -6 addr add fd00:7::2/64 dev lan0 nodad
    ip -n lan link set lan0 up
    ip -n lan link set lo up
    ip -n lan route add default via 192.168.7.1
    ip -n wan addr add 192.0.2.2/24 dev up0
    ip -n wan link set up0 up
    ip -n wan link set lo up
    echo 1 > /proc/sys/net/ipv4/ip_forward
    echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
    ip -n wan route add 192.168.7.0/24 via 192.0.2.1
    ip netns exec lan ping -c 3 -i 0.2 192.0.2.2
    ip netns exec lan ping -c 2 -i 0.2 fd00:7::1
    bridge link; bridge fdb show | head -5
    ip rule add from 192.168.7.66 table 100
    ip route add 198.51.100.0/24 dev wan0 table 100
    ip rule; ip route show table all | head -30
    ip neigh
}
tunnels() {
    ip link add link wan0 name wan0.7 type vlan id 7
    ip -n wan link add link up0 name up0.7 type vlan id 7
    ip addr add 10.7.0.1/24 dev wan0.7; ip link set wan0.7 up
    ip -n wan addr add 10.7.0.2/24 dev up0.7; ip -n wan link set up0.7 up
    ping -c 2 -i 0.2 10.7.0.2
    ip link add gre1 type gre local 192.0.2.1 remote 192.0.2.2 ttl 64
    ip addr add 10.8.0.1/24 dev gre1; ip link set gre1 up
    ip -n wan link add gre1 type gre local 192.0.2.2 remote 192.0.2.1 ttl 64
    ip -n wan addr add 10.8.0.2/24 dev gre1; ip -n wan link set gre1 up
    ping -c 2 -i 0.2 10.8.0.2
    ip link add vx type vxlan id 42 local 192.0.2.1 remote 192.0.2.2 dstport 4789 dev wan0
    ip addr add 10.9.0.1/24 dev vx; ip link set vx up
    ip -n wan link add vx type vxlan id 42 local 192.0.2.2 remote 192.0.2.1 dstport 4789 dev up0
    ip -n wan addr add 10.9.0.2/24 dev vx; ip -n wan link set vx up
    ping -c 2 -i 0.2 10.9.0.2
    (umask 077; wg genkey > /tmp/a; wg genkey > /tmp/b)
    ip link add wg0 type wireguard
    wg set wg0 private-key /tmp/a listen-port 51820 peer "$(wg pubkey < /tmp/b)" allowed-ips 10.10.0.2/32 endpoint 192.0.2.2:51820
    ip addr add 10.10.0.1/24 dev wg0; ip link set wg0 up
    ip -n wan link add wg0 type wireguard
    ip netns exec wan wg set wg0 private-key /tmp/b listen-port 51820 peer "$(wg pubkey < /tmp/a)" allowed-ips 10.10.0.1/32 endpoint 192.0.2.1:51820
    ip -n wan addr add 10.10.0.2/24 dev wg0; ip -n wan link set wg0 up
    ping -c 3 -i 0.2 10.10.0.2
    wg show
    ip link del wg0; ip link del vx; ip link del gre1; ip link del wan0.7
    ip -n wan link del wg0; ip -n wan link del vx; ip -n wan link del gre1; ip -n wan link del up0.7
}
shape() {
    tc qdisc add dev wan0 root handle 1: htb default 20
    tc class add dev wan0 parent 1: classid 1:1 htb rate 50mbit
    tc class add dev wan0 parent 1:1 classid 1:10 htb rate 20mbit ceil 50mbit
    tc class add dev wan0 parent 1:1 classid 1:20 htb rate 10mbit ceil 50mbit
    tc qdisc add dev wan0 parent 1:20 handle 20: fq_codel
    tc filter add dev wan0 protocol ip parent 1: prio 1 u32 match ip dport 80 0xffff flowid 1:10
    tc qdisc add dev lanp root netem delay 3ms loss 1%
    tc qdisc add dev lanp ingress
    tc filter add dev lanp parent ffff: protocol ip u32 match u32 0 0 police rate 10mbit burst 100k drop flowid :1
    ip netns exec lan ping -c 20 -i 0.05 192.0.2.2 || true
    tc -s qdisc show; tc -s class show dev wan0; tc filter show dev wan0
    tc qdisc del dev lanp root; tc qdisc del dev lanp ingress; tc qdisc del dev wan0 root
}
"$@"
