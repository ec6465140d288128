#!/bin/sh
# Ask for a live patch of another function, whose name has as many letters; well if it is refused by that name.
# The module gets another name, too: the first one cannot be unloaded.
set -e
hex() { printf %s "$1" | xxd -p | tr -d '\n'; }
ko=$(find /lib/modules -name livepatch-sample.ko)
xxd -p "$ko" | tr -d '\n' | sed "s/$(hex cmdline_proc_show)/$(hex "$1")/g; s/$(hex livepatch_sample)/$(hex livepatch_simple)/g" | xxd -r -p >/tmp/other.ko
if insmod /tmp/other.ko; then exit 1; fi
dmesg | grep "symbol '$1' not found in symbol table"
