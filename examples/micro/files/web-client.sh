#!/bin/sh
# The guest's own client: over loopback and over the address of the network card.
set -e

for host in 127.0.0.1 10.0.2.15; do
	for i in 1 2 3; do
		wget -q -O /tmp/index.html http://$host/index.html
		cmp /tmp/index.html /www/index.html
	done
	wget -q -O /tmp/style.css http://$host/style.css
	cmp /tmp/style.css /www/style.css
	wget -q -O /tmp/large.bin http://$host/large.bin
	cmp /tmp/large.bin /www/large.bin
	# What is not there is answered, not served.
	if wget -q -O /dev/null http://$host/nothing; then
		exit 1
	fi
done
netstat -tln | grep -q ':80 '
ifconfig eth0 | grep -q '10.0.2.15'
route -n > /dev/null
rm /tmp/index.html /tmp/style.css /tmp/large.bin
