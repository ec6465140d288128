#!/bin/sh
# What people do with a shell: files, loops, pipes, redirection, jobs, substitution.
set -e

mkdir /tmp/work
cd /tmp/work
for i in 1 2 3 4 5 6 7 8; do
	echo "line $i" >> numbers
done
[ "$(wc -l < numbers)" -eq 8 ]
sort -r numbers | head -n 1 | grep -q 'line 8'
cp numbers copy
cmp numbers copy
sed 's/line/row/' numbers | tr a-z A-Z | tail -n 1 | grep -q 'ROW 8'
( sleep 0.1; echo background > done ) &
wait
[ "$(cat done)" = background ]
# Enough processes for their numbers to need a second level of the kernel's table.
i=0
while [ $i -lt 300 ]; do
	( exit 0 )
	i=$((i + 1))
done
echo "$(uname -sr) $(id -u)"
cd /
rm -r /tmp/work
echo "shell: all is well"
