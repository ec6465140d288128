#!/bin/sh
# The ssh client: commands, files both ways, a terminal, a tunnel, and what goes wrong.
set -e
. /root/keys.sh
mkdir -p /dev/pts
grep -q ' /dev/pts ' /proc/mounts || mount -t devpts devpts /dev/pts
trust="-F none -i /root/.ssh/id -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=/root/.ssh/known_hosts"
ssh="ssh $trust -p $KPRUNE_SERVER_SSH guest@10.0.2.2"

status=0
said=$($ssh 'echo $((6 * 7)); exit 7') || status=$?
[ "$said $status" = '42 7' ]
dd if=/dev/zero of=/tmp/large bs=1024 count=$((64 + KPRUNE_SEED % 64)) 2>/dev/null
scp -O $trust -P $KPRUNE_SERVER_SSH /tmp/large guest@10.0.2.2:copy
scp -O $trust -P $KPRUNE_SERVER_SSH guest@10.0.2.2:copy /tmp/copy
cmp /tmp/large /tmp/copy
$ssh 'cat >copy; cat copy; rm copy' </tmp/large | cmp - /tmp/large
$ssh -tt tty | grep -q /dev/pts/
# A tunnel to the web server.
$ssh -N -L 127.0.0.1:8080:127.0.0.1:$KPRUNE_SERVER_WEB &
tunnel=$!
until netstat -ltn | grep -q 127.0.0.1:8080; do kill -0 $tunnel; sleep 0.2; done
curl -sSf -o /tmp/ca.pem http://127.0.0.1:8080/ca.pem
cmp /tmp/ca.pem /root/.ssh/ca.pem
kill $tunnel
wait $tunnel || true
rm /tmp/large /tmp/copy /tmp/ca.pem
# A key that nobody knows, a server that is not the one, nobody there.
rm -f /tmp/other /tmp/other.pub
ssh-keygen -q -t ed25519 -N '' -f /tmp/other
fails() {
	status=0
	"$@" || status=$?
	[ $status = 255 ]
}
fails ssh -F none -i /tmp/other -o IdentitiesOnly=yes -o BatchMode=yes -o StrictHostKeyChecking=no \
	-p $KPRUNE_SERVER_SSH guest@10.0.2.2 true
echo "[10.0.2.2]:$KPRUNE_SERVER_SSH $(cat /tmp/other.pub)" >/tmp/known_hosts
fails ssh -F none -i /root/.ssh/id -o BatchMode=yes -o UserKnownHostsFile=/tmp/known_hosts \
	-p $KPRUNE_SERVER_SSH guest@10.0.2.2 true
fails ssh $trust -p $KPRUNE_SERVER_NOBODY guest@10.0.2.2 true
