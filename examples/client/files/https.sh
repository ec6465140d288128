#!/bin/sh
# The web client: both protocols, both directions, and what goes wrong.
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
for round in 1 2 $((KPRUNE_SEED % 2 ? 3 : 0)); do
	[ $round = 0 ] || $get -o /tmp/small "$secure/large?$round"
done
$get -o /tmp/large "$secure/large?$size"
[ $(wc -c </tmp/large) = $((size * 1024)) ]
$get -L -o /tmp/moved $plain/moved
[ $(wc -c </tmp/moved) = 1024 ]
[ "$($get --data-binary @/tmp/large $secure/)" = "$((size * 1024)) $(sha256sum </tmp/large | cut -d ' ' -f 1)" ]
$get -I $secure/ca.pem | grep -qi '^content-length'
# Several at a time, over one connection after another and over several.
$get -o /tmp/one "$secure/large?64" -o /tmp/two "$secure/large?65" -o /tmp/three $secure/ca.pem
$get -Z -o /tmp/one "$secure/large?64" -o /tmp/two "$secure/large?65" -o /tmp/three $secure/ca.pem
cmp /tmp/three /tmp/ca.pem
wget -q -O /tmp/four $plain/ca.pem
cmp /tmp/four /tmp/ca.pem

fails 22 $get -o /dev/null $secure/nothing
fails 60 curl -sS --cacert /tmp/other.pem -o /dev/null $secure/ca.pem
fails 60 $get -o /dev/null https://10.0.2.2:$KPRUNE_SERVER_WEB_TLS/ca.pem
fails 35 $get -o /dev/null https://www.kprune.test:$KPRUNE_SERVER_WEB/ca.pem
fails 6 $get -o /dev/null http://nothing.kprune.test/
fails 7 $get -o /dev/null http://10.0.2.2:$KPRUNE_SERVER_NOBODY/
fails 7 $get -o /dev/null http://10.0.2.99/
ip route add unreachable 192.0.2.0/24
fails 7 $get -o /dev/null http://192.0.2.1/
ip route del unreachable 192.0.2.0/24
fails 28 $get -m 2 -o /dev/null $plain/slow
rm /tmp/ca.pem /tmp/other.pem /tmp/large /tmp/small /tmp/moved /tmp/one /tmp/two /tmp/three /tmp/four
