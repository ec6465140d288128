#!/bin/sh
# The clock, wrong by years, is set by the host's time server.
set -e
server="server 10.0.2.2 iburst maxsamples 1 maxdelay 60"
ask() { chronyd -u root "$@" 'cmdport 0' 'pidfile /run/chronyd.pid'; }
date -s '2003-04-05 06:07:08'
[ $(date +%Y) = 2003 ]
ask -q -t 60 "$server port $KPRUNE_SERVER_NTP"
[ $(date +%Y) -ge 2025 ]
# Once more, without setting it; and where nobody answers.
ask -Q -t 60 "$server port $KPRUNE_SERVER_NTP"
if ask -Q -t 2 "$server port $KPRUNE_SERVER_NOBODY"; then exit 1; fi
