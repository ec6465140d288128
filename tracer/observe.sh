#!/bin/sh
# Watch a kernel for calls to functions that a plan would drop, before anything is dropped.
#
#	observe.sh start          begin to count, in the background
#	observe.sh status         what was called so far, most often first
#	observe.sh stop FILE      end, and write the result for `kprune observe OUT --read FILE`
#
# Needs root and a kernel with CONFIG_FUNCTION_TRACER and CONFIG_DYNAMIC_FTRACE; POSIX sh, or busybox. The file
# `filter` lies beside this script. Only functions in it are traced, in a tracing instance of its own, so
# it costs nothing until one of them is called. One that was called 10,000 times is watched no longer.
set -u

here=$(cd "$(dirname "$0")" && pwd)
filter=$here/filter
state=${KPRUNE_OBSERVE_STATE:-/run/kprune-observe}
tracefs=${KPRUNE_TRACEFS:-}
limit=10000

fail() {
	echo "observe.sh: $*" >&2
	exit 3
}

find_tracefs() {
	[ "$tracefs" ] && return
	for tracefs in /sys/kernel/tracing /sys/kernel/debug/tracing; do
		[ -e $tracefs/set_ftrace_filter ] && return
	done
	tracefs=/sys/kernel/tracing
	mount -t tracefs tracefs $tracefs 2>/dev/null
	[ -e $tracefs/set_ftrace_filter ] ||
		fail "no function tracer: run as root, on a kernel with CONFIG_FUNCTION_TRACER and CONFIG_DYNAMIC_FTRACE"
}

# What of the filter this kernel can trace: the number in its list and the name. The compiler may have named
# a variant of a function foo.isra.0 here and foo there.
known() {
	awk 'NR == FNR { if ($1 != "#") wanted[$1]; next }
		{ base = $1; while (sub(/\.(isra|constprop|part|cold)(\.[0-9]+)?$/, "", base)); }
		$1 in wanted || base in wanted { print FNR, $1 }' "$filter" "$tracefs/available_filter_functions"
}

start() {
	[ -r "$filter" ] || fail "no $filter: copy the whole folder that kprune observe wrote"
	[ -e "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null && fail "it runs already; observe.sh stop FILE ends it"
	find_tracefs
	grep -qw function "$tracefs/available_tracers" || fail "this kernel has no function tracer (CONFIG_FUNCTION_TRACER)"
	rm -rf "$state" && mkdir -p "$state" || fail "cannot write $state"
	known >"$state/known"
	[ -s "$state/known" ] || fail "this kernel can trace none of the functions in $filter"
	instance=$tracefs/instances/kprune
	mkdir -p "$instance" || fail "cannot make $instance"
	echo nop >"$instance/current_tracer"
	# By number: for each name the kernel would go through all of its functions (Documentation/trace/ftrace.rst).
	cut -d ' ' -f 1 "$state/known" >"$instance/set_ftrace_filter" || fail "the kernel does not take the filter"
	set -- $(wc -l <"$state/known") $(wc -l <"$instance/set_ftrace_filter")
	[ $1 = $2 ] || fail "the kernel took $2 of $1 functions of the filter: it is older than 5.0"
	echo "$instance" >"$state/instance"
	date +%s >"$state/start"
	: >"$state/counts"
	# The tracer cannot be chosen any more once somebody reads trace_pipe: it is chosen first, and waits for the reader.
	echo 0 >"$instance/tracing_on" || fail "cannot write $instance/tracing_on"
	echo function >"$instance/current_tracer" || fail "the function tracer does not start"
	# One line whenever a count has doubled: the file stays small, and the last line of a name is its count.
	(
		trap '' HUP
		exec awk -v limit=$limit -v filter="$instance/set_ftrace_filter" '
			/LOST/ { print "lost", $3; fflush(); next }
			!match($0, /: [^ ]+ <-/) { next }
			{
				name = substr($0, RSTART + 2, RLENGTH - 5)
				count = ++counts[name]
				if (count != 1 && count < 2 * said[name] && count != limit) next
				said[name] = count
				print name, count
				fflush()
				if (count == limit) { print "!" name >>filter; close(filter) }
			}' "$instance/trace_pipe" >>"$state/counts" 2>/dev/null
	) &
	echo $! >"$state/pid"
	echo 1 >"$instance/tracing_on"
	echo "observe.sh: watching $(wc -l <"$state/known") of $(grep -vc '^#' "$filter") functions" >&2
}

running() {
	[ -e "$state/instance" ] || fail "it does not run; observe.sh start begins"
	instance=$(cat "$state/instance")
}

# name count, the last line of each.
counts() {
	awk '$1 != "lost" { count[$1] = $2 } END { for (name in count) print name, count[name] }' "$state/counts" |
		sort -k 2nr -k 1
}

lost() {
	told=$(awk '$1 == "lost" { sum += $2 } END { print sum + 0 }' "$state/counts")
	inside=$(cat "$instance"/per_cpu/cpu*/stats |
		awk '/^(overrun|commit overrun|dropped events):/ { sum += $NF } END { print sum + 0 }')
	echo $((told > inside ? told : inside))
}

status() {
	running
	counts
	echo "observe.sh: $(counts | wc -l) of $(wc -l <"$state/known") watched functions were called in \
$(($(date +%s) - $(cat "$state/start"))) seconds, $(lost) events lost" >&2
}

stop() { # file
	running
	echo nop >"$instance/current_tracer"
	sleep 1 # what is in the pipe
	gone=$(lost)
	kill "$(cat "$state/pid")" 2>/dev/null
	{
		echo "kprune-observe 1"
		grep '^# build ' "$filter" | sed 's/^# //'
		echo "kernel $(uname -r) $(uname -m)"
		echo "from $(cat "$state/start") to $(date +%s)"
		echo "watched $(wc -l <"$state/known")"
		echo "lost $gone"
		counts
	} >"$1.part" || fail "cannot write $1"
	sum=$(md5sum <"$1.part" | cut -d ' ' -f 1)
	[ "$sum" ] || fail "there is no md5sum"
	echo "end $sum" >>"$1.part" && mv "$1.part" "$1" || fail "cannot write $1"
	rmdir "$instance" 2>/dev/null
	rm -rf "$state"
	echo "observe.sh: wrote $1" >&2
}

case ${1:-} in
start) start ;;
status) status ;;
stop)
	[ "${2:-}" ] || fail "usage: observe.sh stop FILE"
	stop "$2"
	;;
*)
	sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
	[ "${1:-}" = -h ] || exit 2
	;;
esac
