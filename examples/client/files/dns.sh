#!/bin/sh
# Names: asked for at the host's server, through the machine's own resolver, and by the C library.
set -e
# In a guest whose clock flies an answer may take minutes; and a busy host may lose it, which costs the others one.
ask="nslookup -timeout=60 -retry=600"
direct="$ask -port=$KPRUNE_SERVER_DNS"
names="www.kprune.test both.kprune.test alias.kprune.test"
[ $((KPRUNE_SEED % 2)) = 1 ] && names="alias.kprune.test www.kprune.test both.kprune.test"

for name in $names; do
	$direct $name 10.0.2.2 | grep -q 'Address: 10.0.2.2'
done
$direct -type=mx kprune.test 10.0.2.2 | grep -q www.kprune.test
$direct -type=srv _ssh._tcp.kprune.test 10.0.2.2 | grep -q www.kprune.test
$direct -type=ptr 2.2.0.10.in-addr.arpa 10.0.2.2 | grep -q www.kprune.test
$direct -type=txt short.kprune.test 10.0.2.2 | grep -q short

. /root/resolver.sh
for name in $names; do
	$ask -type=a $name | grep -q 'Address: 10.0.2.2'
done
ping -c 1 -W 30 www >/tmp/ping
grep -q '(10.0.2.2)' /tmp/ping
curl -sSf -o /dev/null http://both.kprune.test:$KPRUNE_SERVER_WEB/ca.pem
# A name that does not exist, a server that does not know, and none at all.
if $ask -type=a nothing.kprune.test; then exit 1; fi
if $ask -type=a kprune.invalid; then exit 1; fi
if nslookup -port=$KPRUNE_SERVER_NOBODY -timeout=1 -retry=1 www.kprune.test 10.0.2.2; then exit 1; fi
# Nor is there a way to an address of IPv6, which else is tried when the other one does not answer at once.
said=$(curl -s -6 -w '%{exitcode} ' -o /dev/null http://both.kprune.test:$KPRUNE_SERVER_WEB/ \
	-o /dev/null http://nothing.kprune.test/) || true
[ "$said" = '7 6 ' ] || { echo "exit statuses $said"; exit 1; }
