# The host's ssh client, through the forwarded port; $KPRUNE_SEED varies how much is sent.
set -e
port=$KPRUNE_PORT_22
options="-F none -i $KPRUNE_TEMP/id -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
options="$options -o LogLevel=ERROR"
ssh="ssh $options -p $port root@127.0.0.1"
status=0
said=$($ssh 'echo $((6 * 7)); exit 7') || status=$?
[ "$said $status" = '42 7' ]
head -c $(((64 + KPRUNE_SEED % 64) * 1024)) /dev/zero >$KPRUNE_TEMP/large
$ssh 'cat >/tmp/large; cat /tmp/large; rm /tmp/large' <$KPRUNE_TEMP/large | cmp - $KPRUNE_TEMP/large
# With a terminal.
$ssh -tt 'tty; stty size; ls -l /root' </dev/null | grep -q /dev/pts/
# Keys that nobody knows.
ssh-keygen -q -t ed25519 -N '' -f $KPRUNE_TEMP/other
if ssh $options -o IdentitiesOnly=yes -i $KPRUNE_TEMP/other -p $port nobody@127.0.0.1 true; then exit 1; fi
