#!/bin/sh
# The host's ssh client: `ssh.sh HOST PORT`. $KPRUNE_SEED varies how much goes each way.
set -e

remote() {
	ssh -p "$port" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \
		-o PreferredAuthentications=none "$@"
}
host=$1 port=$2
amount=$((64 + ${KPRUNE_SEED:-0} % 64))

# Out and back again, more than a window holds.
sent=$(head -c ${amount}000 /dev/zero | remote "root@$host" 'tee /tmp/received' | wc -c)
[ "$sent" -eq ${amount}000 ]
remote "root@$host" "[ \$(wc -c < /tmp/received) -eq ${amount}000 ] && rm /tmp/received"
# What a command said and how it ended comes back.
[ "$(remote "root@$host" 'echo said; exit 7' || echo "$?")" = "said
7" ]
# A session as a person has one: a terminal, a shell, lines typed.
printf 'ps\nexit 3\n' | remote -tt "root@$host" >/dev/null || [ $? -eq 3 ]
