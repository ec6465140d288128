# The host's ssh client, through the forwarded port; $KPRUNE_SEED varies how much is sent.
set -e
ssh="ssh -F none -p $KPRUNE_PORT_22 -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
ssh="$ssh -o LogLevel=ERROR"
[ "$($ssh root@127.0.0.1 'echo $((6 * 7))')" = 42 ]
status=0
$ssh root@127.0.0.1 'exit 7' || status=$?
[ $status = 7 ]
size=$(((64 + KPRUNE_SEED % 64) * 1024))
head -c $size /dev/zero | $ssh root@127.0.0.1 'cat >/tmp/large'
[ "$($ssh root@127.0.0.1 'cat /tmp/large; rm /tmp/large' | wc -c)" = $size ]
$ssh -tt root@127.0.0.1 'tty; stty size; ls -l /root' </dev/null | grep -q /dev/pts/
if $ssh user@127.0.0.1 true; then exit 1; fi
