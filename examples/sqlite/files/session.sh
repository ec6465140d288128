#!/bin/sh
exec sqlite3 -batch -cmd '.timeout 20000' /data/sqlite/served.db 2>&1
