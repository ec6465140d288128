#!/bin/sh
# `load.sh URL SCRIPT`: wrk for $KPRUNE_LOAD_SECONDS seconds, which wrk wants whole; its script prints what it found.
seconds=$(printf '%.0f' "${KPRUNE_LOAD_SECONDS:-2}")
[ "$seconds" -gt 0 ] || seconds=1
exec wrk -t1 -c8 -d"${seconds}s" --timeout 20s -s "$2" "$1"
