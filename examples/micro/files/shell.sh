#!/bin/sh
# What people do with a shell: files, loops, pipes, redirection, jobs, substitution, signals.
set -e

work=/tmp/shell.$$
mkdir -p $work/a/b
cd $work

for i in 1 2 3 4 5 6 7 8; do
	echo "line $i" >> numbers
done
[ "$(wc -l < numbers)" -eq 8 ]
[ "$(grep -c 'line' numbers)" -eq 8 ]
sort -r numbers | head -n 1 | grep -q 'line 8'
seq 1 5000 | awk '{ sum += $1 } END { print sum }' > sum
[ "$(cat sum)" = 12502500 ]

cp numbers a/copy
mv a/copy a/b/moved
ln -s b/moved a/link
ln numbers a/hard
[ "$(cat a/link)" = "$(cat numbers)" ]
chmod 600 numbers
touch -r numbers a/touched
find . -type f | sort > list
cmp numbers a/hard
sed 's/line/row/' numbers | tr a-z A-Z | tail -n 1 | grep -q 'ROW 8'
dd if=/dev/urandom of=random bs=4096 count=16 2>/dev/null
md5sum random > random.md5
md5sum -c random.md5 > /dev/null
tar cf - a numbers | gzip > packed.tar.gz
mkdir out
tar xzf packed.tar.gz -C out
cmp numbers out/numbers

sleep 1 &
kill $!
wait $! || true
( sleep 0.1; echo background > done ) &
wait
[ "$(cat done)" = background ]
trap 'echo caught > signal' USR1
kill -USR1 $$
[ "$(cat signal)" = caught ]
cat > here <<END
$(uname -sr) $(id -u) $(hostname) $(date +%Y)
END
[ -s here ]
df > /dev/null
mount > /dev/null
du -s . > /dev/null
uptime > /dev/null
dmesg | tail -n 1 > /dev/null

cd /
rm -r $work
echo "shell: all is well"
