#!/bin/sh
# All kinds of journals; transactions that are rolled back; writers at the same time; one that is killed, and what it
# left behind; a full disk. Whatever fails here without having to, fails the run.
set -ex
cd /data/sqlite
rows=$((300 + KPRUNE_SEED * 7 % 300))
fill="with recursive n(i) as (select 1 union all select i+1 from n where i<$rows) insert into t select null, hex(randomblob(60)) from n;"
table='create table t(k integer primary key, v text); create index i on t(v);'
count() { sqlite3 -cmd '.timeout 20000' $1 'select count(*) from t'; }
sound() { [ "$(sqlite3 -cmd '.timeout 20000' $1 'pragma integrity_check')" = ok ]; }

for mode in delete truncate persist memory wal; do
	rm -f $mode.db*
	sqlite3 $mode.db "pragma journal_mode=$mode; pragma synchronous=full; $table $fill
		begin; $fill savepoint s; delete from t; rollback to s; commit; begin; delete from t where k%2; commit;"
	[ "$(count $mode.db)" = $rows ]
	[ "$(sqlite3 $mode.db "begin; delete from t; rollback; select count(*) from t")" = $rows ]
	sound $mode.db
done
# Mapped, in its own locks, with a checkpoint of each kind; vacuumed, saved, dumped and read again.
sqlite3 wal.db "pragma mmap_size=8000000; $fill pragma wal_checkpoint(passive); $fill pragma wal_checkpoint(restart); $fill
	pragma wal_checkpoint(truncate); select sum(length(v)) from t;"
sqlite3 wal.db "pragma locking_mode=exclusive; $fill select count(*) from t;"
sqlite3 delete.db "pragma mmap_size=8000000; select max(v), min(v) from t; vacuum; vacuum into 'copy.db';"
sqlite3 delete.db '.backup saved.db'
sqlite3 delete.db .dump | sqlite3 dumped.db
sound copy.db && sound saved.db && sound dumped.db
sqlite3 delete.db "pragma temp_store=file; pragma cache_size=10; create temp table x as select a.v from t a, t b limit 20000;
	select count(*) from (select v from x order by v);"

# Writers and readers at the same time, of which some find the database busy.
for mode in wal delete; do
	before=$(count $mode.db)
	for writer in 1 2 3; do
		for turn in 1 2 3 4; do
			echo 'begin immediate; insert into t values (null, 1); commit; select count(*) from t;'
		done | sqlite3 -cmd '.timeout 20000' $mode.db >/dev/null &
		writers="$writers $!"
	done
	for writer in $writers; do
		wait $writer
	done
	writers=
	[ "$(count $mode.db)" = $((before + 12)) ]
done
(echo 'begin exclusive;'; sleep 1) | sqlite3 delete.db &
sleep 0.3
sqlite3 delete.db 'insert into t values (null, 2)' 2>/dev/null || true
wait
sound delete.db

# Killed with a transaction open whose pages are on the disk already: the next one rolls it back.
for mode in wal delete truncate; do
	before=$(count $mode.db)
	(echo "pragma cache_size=5; begin; $fill $fill $fill"; sleep 3) | sqlite3 $mode.db >/dev/null &
	sleep 1
	kill -9 $(pidof sqlite3) 2>/dev/null || true
	wait
	[ "$(count $mode.db)" = $before ]
	sound $mode.db
done

# No room.
before=$(count wal.db)
dd if=/dev/zero of=/data/fill bs=65536 2>/dev/null || true
for mode in wal delete; do
	if sqlite3 $mode.db "begin; $fill $fill $fill $fill $fill commit;" 2>/dev/null; then exit 1; fi
done
rm -f /data/fill
[ "$(count wal.db)" = $before ]
sound wal.db && sound delete.db

# What is not there, is no database, may not be written.
for wrong in 'select * from nowhere' 'select' 'insert into t values (1, 1), (1, 1)'; do
	if sqlite3 delete.db "$wrong" 2>/dev/null; then exit 1; fi
done
head -c 5000 /dev/urandom >wrong.db
if sqlite3 wrong.db 'select * from t' 2>/dev/null; then exit 1; fi
if sqlite3 -readonly delete.db 'delete from t' 2>/dev/null; then exit 1; fi
if sqlite3 /nowhere/x.db 'create table t(a)' 2>/dev/null; then exit 1; fi
rm -f copy.db saved.db dumped.db wrong.db
sync
