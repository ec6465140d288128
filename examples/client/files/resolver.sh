# A resolver of the machine's own, as many distributions have one: it forwards to the host's DNS server, which
# has a port that resolv.conf cannot say.
host=10.0.2.2
cat >/etc/resolv.conf <<-END
	nameserver 127.0.0.1
	search kprune.test
	options timeout:30 attempts:5
END
dnsmasq -k -C /dev/null --no-resolv --server=$host#$KPRUNE_SERVER_DNS --listen-address=127.0.0.1 \
	--bind-interfaces --user=root --pid-file= --log-facility=/tmp/dnsmasq.log &
resolver=$!
trap 'kill $resolver; wait $resolver' EXIT
until netstat -lun | grep -q 127.0.0.1:53; do kill -0 $resolver; sleep 0.1; done
