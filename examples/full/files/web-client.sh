#!/bin/bash
# curl over both protocols, over loopback and the network card's address.
set -euo pipefail
hosts=(127.0.0.1 '[::1]' 10.0.2.15 localhost)
((KPRUNE_SEED % 2)) && hosts=(localhost 10.0.2.15 '[::1]' 127.0.0.1)
fails() { # status words for curl
	local wanted=$1 status=0
	shift
	curl -sSf -o /dev/null "$@" 2>/dev/null || status=$?
	[ $status = $wanted ] || { echo "exit status $status: $*"; exit 1; }
}
for host in "${hosts[@]}"; do
	curl -sSf http://$host:8080/index.html | grep -q kprune
	curl -sSf -o /tmp/large http://$host:8080/large.bin
	cmp /tmp/large /www/large.bin
	fails 22 http://$host:8080/nothing
	fails 7 http://$host:8081/
done
curl -sSf -I http://127.0.0.1:8080/large.bin >/dev/null
curl -sSf -Z -o /tmp/one http://[::1]:8080/large.bin -o /tmp/two http://127.0.0.1:8080/large.bin
cmp /tmp/one /tmp/two
rm /tmp/one /tmp/two /tmp/large
fails 6 http://nothing.invalid/
fails 7 http://10.0.2.99:8080/
fails 22 -X POST -d x http://127.0.0.1:8080/
