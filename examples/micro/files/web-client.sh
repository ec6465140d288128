#!/bin/sh
# The guest's own client: over loopback and over the address of the network card. In which order, and how
# many bytes at a time, is what $KPRUNE_SEED varies between runs.
set -e

first=127.0.0.1 second=10.0.2.15
if [ $((KPRUNE_SEED % 2)) = 1 ]; then
	first=10.0.2.15 second=127.0.0.1
fi
for host in $first $second; do
	wget -q -O /tmp/index.html http://$host/index.html
	cmp /tmp/index.html /www/index.html
	wget -q -O /tmp/large.bin http://$host/large.bin
	cmp /tmp/large.bin /www/large.bin
	wget -q -O - "http://$host/cgi-bin/status?seed=$KPRUNE_SEED" | grep -q "seed=$KPRUNE_SEED"
	wget -q -O - --post-data=posted http://$host/cgi-bin/status | grep -q posted
done
rm /tmp/index.html /tmp/large.bin
