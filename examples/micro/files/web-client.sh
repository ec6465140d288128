#!/bin/sh
# The guest's own client: over loopback and over the address of the network card.
set -e

for host in 127.0.0.1 10.0.2.15; do
	wget -q -O /tmp/index.html http://$host/index.html
	cmp /tmp/index.html /www/index.html
	wget -q -O /tmp/large.bin http://$host/large.bin
	cmp /tmp/large.bin /www/large.bin
done
rm /tmp/index.html /tmp/large.bin
