#!/bin/sh
# The guest's own client: over loopback and over the address of the network card. Nothing is stored, there is no
# room; in which order is what $KPRUNE_SEED varies between runs.
set -e

first=127.0.0.1 second=10.0.2.15
if [ $((KPRUNE_SEED % 2)) = 1 ]; then
	first=10.0.2.15 second=127.0.0.1
fi
for host in $first $second; do
	wget -q -O - http://$host/index.html | cmp - /www/index.html
	wget -q -O - http://$host/large | cmp - /kprune/busybox
done
