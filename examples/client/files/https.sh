#!/bin/sh
# The web client: both protocols, both directions, and what goes wrong. A program that speaks TLS takes an emulated
# processor a second to start, so each does several things.
set -e
. /root/resolver.sh
plain=http://www.kprune.test:$KPRUNE_SERVER_WEB
secure=https://www.kprune.test:$KPRUNE_SERVER_WEB_TLS
size=$((200 + KPRUNE_SEED % 64))

fails() { # status command...
	wanted=$1
	shift
	status=0
	"$@" || status=$?
	[ $status = $wanted ] || { echo "exit status $status: $*"; exit 1; }
}

curl -sSf -o /tmp/ca.pem $plain/ca.pem -o /tmp/other.pem $plain/other.pem
get="curl -sSf --cacert /tmp/ca.pem"
# These take their time: nobody there, and nobody who answers.
fails 7 curl -sS -o /dev/null http://10.0.2.99/ &
nobody=$!
fails 28 curl -sS -m 2 -o /dev/null $plain/slow &
slow=$!

# Several over one connection, one that leads elsewhere among them; then several at a time.
$get -L -o /tmp/moved $plain/moved -o /tmp/small "$secure/large?$((1 + KPRUNE_SEED % 3))" -o /tmp/large "$secure/large?$size"
[ $(wc -c </tmp/moved) = 1024 ]
[ $(wc -c </tmp/large) = $((size * 1024)) ]
$get -Z -o /tmp/one "$secure/large?64" -o /tmp/two "$secure/large?65" -o /tmp/three $secure/ca.pem
cmp /tmp/three /tmp/ca.pem
[ "$($get --data-binary @/tmp/large $secure/)" = "$((size * 1024)) $(sha256sum </tmp/large | cut -d ' ' -f 1)" ]
wget -q -O /tmp/four $plain/ca.pem
cmp /tmp/four /tmp/ca.pem

fails 22 $get -I -o /dev/null $secure/ca.pem -o /dev/null $secure/nothing
fails 60 curl -sS --cacert /tmp/other.pem -o /dev/null $secure/ca.pem
ip route add unreachable 192.0.2.0/24
# Each of these has a status of its own: not its name, no TLS, no such name, refused, unreachable.
said=$(curl -s --cacert /tmp/ca.pem -w '%{exitcode} ' \
	-o /dev/null https://10.0.2.2:$KPRUNE_SERVER_WEB_TLS/ca.pem \
	-o /dev/null https://www.kprune.test:$KPRUNE_SERVER_WEB/ca.pem \
	-o /dev/null http://nothing.kprune.test/ \
	-o /dev/null http://10.0.2.2:$KPRUNE_SERVER_NOBODY/ \
	-o /dev/null http://192.0.2.1/) || true
[ "$said" = '60 35 6 7 7 ' ] || { echo "exit statuses $said"; exit 1; }
ip route del unreachable 192.0.2.0/24
wait $nobody
wait $slow
rm /tmp/ca.pem /tmp/other.pem /tmp/large /tmp/small /tmp/moved /tmp/one /tmp/two /tmp/three /tmp/four
