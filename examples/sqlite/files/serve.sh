#!/bin/sh
# SQL over TCP: each connection has a shell of SQLite's for itself, all of them one database.
mkdir -p /data/sqlite
sqlite3 /data/sqlite/served.db 'pragma journal_mode=wal; create table if not exists t(k integer primary key, v text);'
exec nc -ll -p 5432 -e /root/sqlite/session.sh
