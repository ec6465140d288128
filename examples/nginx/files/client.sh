#!/bin/sh
# What happens to a server from within: requests on loopback, new logs, new settings, workers that are killed, a full
# disk. Whatever fails here without having to, fails the run.
set -ex
get() { wget -q -O /dev/null http://127.0.0.1$1; }
# $1: bytes; $2: a name
put() {
	{
		printf 'PUT /up/%s HTTP/1.0\r\nContent-Length: %s\r\n\r\n' "$2" "$1"
		head -c $1 /dev/zero
	} | nc 127.0.0.1 80 | head -n 1
}

for path in /index.html /style.css /large.bin /direct/large.bin /threads/large.bin /copied/large.bin /list/ \
	/proxy/style.css /unix/index.html /status; do
	get $path
done
for path in /nothing /private/x /broken/x; do
	if get $path 2>/dev/null; then exit 1; fi
done

# As if more connections were half open than the queue holds: what a storm leads to, or does not.
echo 2 >/proc/sys/net/ipv4/tcp_syncookies
get /index.html
get /large.bin
echo 1 >/proc/sys/net/ipv4/tcp_syncookies

put $((100000 + KPRUNE_SEED * 37 % 50000)) one | grep -q ' 201 '
put 10 one | grep -q ' 204 '
put 3000000 big | grep -q ' 413 '

# Logs are moved away and opened anew.
for turn in 1 2; do
	mv /data/nginx/access.log /data/nginx/access.log.$turn
	kill -USR1 $(cat /run/nginx.pid)
	patience=100
	until [ -e /data/nginx/access.log ]; do
		patience=$((patience - 1))
		[ $patience -gt 0 ]
		sleep 0.1
	done
	get /index.html
done
grep -c ' 404 ' /data/nginx/access.log.1
sync
rm /data/nginx/access.log.?

# A worker is killed, the master starts another one. Then all of them go, with a new configuration.
workers() { ps -o pid,args | grep 'nginx: worker' | grep -v -e grep -e 'shutting' | while read -r pid rest; do echo $pid; done; }
set -- $(workers)
kill -9 $1
get /index.html || get /index.html
kill -HUP $(cat /run/nginx.pid)
sleep 0.5
get /style.css || get /style.css
patience=100
set -- $(workers)
until [ $# -ge 2 ]; do
	patience=$((patience - 1))
	[ $patience -gt 0 ]
	sleep 0.2
	set -- $(workers)
done

# No room.
dd if=/dev/zero of=/data/fill bs=65536 2>/dev/null || true
put 200000 full | grep -q ' 50[07] '
get /style.css
rm -f /data/fill
put 200000 again | grep -q ' 201 '
sync
