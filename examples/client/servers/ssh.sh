# The host's ssh server: dropbear, for a user "guest" who exists in this run only and is whoever runs kprune.
# Keys are the run's; the web server gives a new machine its own and the server's (public/).
set -e
umask 077
home=$KPRUNE_TEMP/home
public=$KPRUNE_TEMP/public
mkdir -p $home/.ssh $public
ssh-keygen -q -t ed25519 -N '' -C guest -f $KPRUNE_TEMP/id
cp $KPRUNE_TEMP/id.pub $home/.ssh/authorized_keys
cp $KPRUNE_TEMP/id $KPRUNE_TEMP/id.pub $public
dropbearkey -t ed25519 -f $KPRUNE_TEMP/host-key | grep ^ssh- >$KPRUNE_TEMP/host-key.pub
echo "[10.0.2.2]:$KPRUNE_SERVER_SSH $(cat $KPRUNE_TEMP/host-key.pub)" >$public/known_hosts
echo "guest:x:$(id -u):$(id -g)::$home:/bin/sh" >$KPRUNE_TEMP/passwd
echo "guest:x:$(id -g):" >$KPRUNE_TEMP/group
export LD_PRELOAD=libnss_wrapper.so NSS_WRAPPER_PASSWD=$KPRUNE_TEMP/passwd NSS_WRAPPER_GROUP=$KPRUNE_TEMP/group
exec dropbear -F -E -s -P '' -p 127.0.0.1:$KPRUNE_SERVER_SSH -r $KPRUNE_TEMP/host-key
