#!/bin/sh
# Files, pipes, and more processes than the first table of their numbers holds.
set -e
mkdir /tmp/work
cd /tmp/work
count=0
while [ $count -lt $((300 + KPRUNE_SEED % 16)) ]; do
	/kprune/busybox true
	count=$((count + 1))
done
seq 1 1000 | sort -rn | head -n 1 | grep -q 1000
cp -r /etc copy
find copy -type f | xargs cat | sha256sum
ln -s copy link
ln copy/passwd hard
mv hard harder
chmod 600 harder
touch -d '2020-01-01' harder
[ "$(stat -c %Y harder)" -gt 0 ]
df /tmp >/dev/null
ps >/dev/null
free >/dev/null
cd /
rm -r /tmp/work
