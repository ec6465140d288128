#!/bin/sh
# Files on the disk, made here rather than shipped; then nginx.
mkdir -p /data/nginx /data/www/list /data/www/up
chown nobody /data/www/up
rm -f /run/nginx.sock
size=$((256 + KPRUNE_SEED % 64))
dd if=/dev/zero bs=1024 count=$size 2>/dev/null | tr '\0' 'k' >/data/www/large.bin
echo "<html><body><p>kprune</p></body></html>" >/data/www/index.html
seq 1 400 >/data/www/style.css
for number in $(seq 1 12); do
	seq 1 $((number * number * 7)) >/data/www/list/$number.html
done
ulimit -n 4096
exec nginx
