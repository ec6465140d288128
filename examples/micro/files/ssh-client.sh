#!/bin/sh
# The guest's own client: commands over ssh, on loopback and on the network card, and one that fails.
set -e

# A host key that is not known yet is taken (-y).
remote() { dbclient -y -y "$@" 2>/dev/null; }

[ "$(echo hello | remote root@127.0.0.1 cat)" = hello ]
remote root@10.0.2.15 ps | grep -q dropbear
if remote root@127.0.0.1 'exit 7'; then
	exit 1
else
	[ $? -eq 7 ]
fi
