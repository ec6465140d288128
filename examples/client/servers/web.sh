# `web.sh PROGRAM`: certificates for a run, what a new machine is given (public/), and the web server.
# The authority is this run's, and so is the certificate, which is good for a name, not for an address.
set -e
umask 077
own=$KPRUNE_TEMP/web
mkdir -p $own $KPRUNE_TEMP/public
new='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
openssl req -x509 $new -days 2 -subj '/CN=kprune test authority' -keyout $own/ca.key -out $own/ca.pem
openssl req $new -subj /CN=www.kprune.test -keyout $own/web.key -out $own/web.csr
echo subjectAltName=DNS:www.kprune.test,DNS:alias.kprune.test >$own/names
openssl x509 -req -in $own/web.csr -CA $own/ca.pem -CAkey $own/ca.key -days 2 -extfile $own/names \
	-CAcreateserial -out $own/web.pem
openssl req -x509 $new -days 2 -subj '/CN=another authority' -keyout $own/other.key -out $own/other.pem
cp $own/ca.pem $own/other.pem $KPRUNE_TEMP/public
exec python3 "$1" $KPRUNE_TEMP/public $own/web.pem $own/web.key
