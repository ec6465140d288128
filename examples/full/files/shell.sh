#!/bin/bash
# bash and coreutils, and more processes than the first table of their numbers holds.
set -euo pipefail
. /root/system.sh
mkdir /tmp/shell
cd /tmp/shell

for ((i = 0; i < 300 + KPRUNE_SEED % 16; i++)); do /bin/true; done
[ $? = 0 ]

declare -A seen=([one]=1 [two]=2)
[ "${seen[two]}" = 2 ] && [ "${#seen[@]}" = 2 ]
diff <(seq 1 50) <(seq 1 50 | tac | sort -n)
seq 1 $((1000 + KPRUNE_SEED % 1000)) >numbers
split -l 100 numbers part.
cat part.* | cmp - numbers
sort -rn numbers | head -n 1 >/dev/null || [ $? = 141 ]
paste -d: numbers numbers | cut -d: -f 2 | uniq | wc -l
join <(seq 1 9 | sort) <(seq 5 15 | sort) | tr '\n' ' '
sha256sum numbers >sums
sha256sum -c --status sums
tee copy other <numbers | md5sum
mkfifo pipe
cat numbers >pipe & cmp pipe numbers
wait
sleep 0.2 & job=$!
kill -STOP $job; kill -CONT $job; wait $job
timeout 0.2 sleep 10 || [ $? = 124 ]
( trap 'echo trapped >trap' USR1; kill -USR1 $BASHPID )
[ "$(<trap)" = trapped ]
read -r -t 0.1 line <> pipe || true
coproc cat
echo through >&"${COPROC[1]}"
read -r line <&"${COPROC[0]}"
[ "$line" = through ]
kill $COPROC_PID
ulimit -a >/dev/null
( ulimit -f 1; head -c 100000 /dev/zero >limited ) 2>/dev/null && exit 1
( ulimit -n 5; exec 10</dev/null ) 2>/dev/null && exit 1
nice -n 5 nproc
env -i /usr/bin/env
date -u +%s
uname -a
id
hostname full
[ "$(hostname)" = full ]
nosuchcommand 2>/dev/null && exit 1
( exit 3 ) || [ $? = 3 ]
bash -c 'kill -SEGV $$' 2>/dev/null && exit 1
cd /
rm -r /tmp/shell
