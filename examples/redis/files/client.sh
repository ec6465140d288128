#!/bin/sh
# What happens to a server from within: both ways to persist, a log that is rewritten, a server that is killed and reads
# its log again, a full disk. Whatever fails here without having to, fails the run.
set -ex
socket="redis-cli -s /run/redis.sock"
tcp="redis-cli -h 127.0.0.1"

# $1: seconds at most, in tenths; the rest is tried until it says what it should.
within() {
	patience=$1
	shift
	until "$@" 2>/dev/null; do
		patience=$((patience - 1))
		[ $patience -gt 0 ]
		sleep 0.1
	done
}
answers() { $tcp ping | grep -q PONG; }
says() { $tcp info persistence | grep -q "$1"; }

$socket set greeting hello
redis-cli -h ::1 get greeting | grep -q hello
$tcp lpush list $(seq 1 $((50 + KPRUNE_SEED % 50)))
$tcp debug populate $((2000 + KPRUNE_SEED % 1000)) key 200

# As if more connections were half open than the queue holds: what a storm leads to, or does not.
echo 2 >/proc/sys/net/ipv4/tcp_syncookies
$tcp get greeting | grep -q hello
redis-cli -h ::1 get greeting | grep -q hello
echo 1 >/proc/sys/net/ipv4/tcp_syncookies

# Dumps and logs, by a child.
$tcp bgsave
within 300 says rdb_bgsave_in_progress:0
says rdb_last_bgsave_status:ok
$tcp bgrewriteaof
within 300 says aof_rewrite_in_progress:0
says aof_last_bgrewrite_status:ok
$tcp config set appendfsync always
redis-benchmark -s /run/redis.sock -q -n 50 -c 3 set key:__rand_int__ value
$tcp config set appendfsync no
redis-benchmark -h 127.0.0.1 -q -n 100 -c 5 -P 4 set key:__rand_int__ value
$tcp config set appendfsync everysec
$tcp save

# Killed, and started again: what was written is there.
$tcp set before kill
sleep 1.2
kill -9 $(pidof redis-server)
within 300 answers
within 300 says loading:0
$tcp get before | grep -q kill

# No room: writing is refused until there is some again.
dd if=/dev/zero of=/data/fill bs=65536 2>/dev/null || true
for turn in 1 2 3 4 5 6; do
	head -c 60000 /dev/zero | tr '\0' "$turn" | $tcp -x set large$turn >/dev/null
	sleep 0.3
done
says aof_last_write_status:err || says aof_last_write_status:ok
$tcp bgsave || true
within 300 says rdb_bgsave_in_progress:0
rm -f /data/fill
within 300 says aof_last_write_status:ok
within 100 sh -c "$tcp set after full | grep -q OK"
$tcp bgsave
within 300 says rdb_bgsave_in_progress:0

# Told to go, with a dump; there is another one at once.
$tcp shutdown save || true
within 300 answers
within 300 says loading:0
$tcp get after | grep -q full
