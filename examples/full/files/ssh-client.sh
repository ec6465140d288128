#!/bin/bash
# OpenSSH with itself, over both protocols: commands, files, a terminal, a tunnel, and who is not let in.
set -euo pipefail
mkdir -p -m 700 /root/.ssh
rm -f /root/.ssh/id_ed25519* /tmp/unknown*
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
cp /root/.ssh/id_ed25519.pub /root/.ssh/authorized_keys
options=(-o BatchMode=yes -o StrictHostKeyChecking=no -o PreferredAuthentications=publickey)
hosts=(127.0.0.1 ::1)
((KPRUNE_SEED % 2)) && hosts=(::1 127.0.0.1)
for host in "${hosts[@]}"; do
	[ "$(ssh "${options[@]}" root@$host 'echo $((6 * 7))')" = 42 ]
done
head -c $(((64 + KPRUNE_SEED % 64) * 1024)) /dev/urandom >/tmp/large
scp -q "${options[@]}" /tmp/large root@127.0.0.1:/tmp/copy
cmp /tmp/large /tmp/copy
ssh "${options[@]}" -tt root@127.0.0.1 tty </dev/null | grep -q /dev/pts/
ssh "${options[@]}" -N -L 127.0.0.1:2222:127.0.0.1:22 -L /tmp/tunnel:127.0.0.1:22 root@127.0.0.1 & tunnel=$!
until ss -Hltn 'sport = :2222' | grep -q .; do kill -0 $tunnel; sleep 0.2; done
ssh "${options[@]}" -p 2222 root@127.0.0.1 true
kill $tunnel; wait $tunnel || true
rm -f /tmp/tunnel /tmp/large /tmp/copy
refused() { local status=0; "$@" 2>/dev/null || status=$?; [ $status = 255 ] || { echo "$status: $*"; exit 1; }; }
refused ssh "${options[@]}" user@127.0.0.1 true
refused ssh "${options[@]}" -p 2223 root@::1 true
refused ssh "${options[@]}" nothing.invalid true
