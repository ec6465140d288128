#!/bin/sh
# Which functions of the kernel run while the apps that matter do, collected on the machine itself.
#
# For any Linux whose kernel has the function profiler. Needs root, a POSIX shell, and what busybox or any
# small system has: cat, grep, id, md5sum or cksum, mkdir, mount, mv, rm, sed, sleep, tail, tar, uname, wc; setsid if
# it is there. Writes one tar for `kprune import`, whole or not at all, whose manifest lets the importer prove that
# nothing was lost. Whatever it changes of ftrace's settings it puts back, also when it is interrupted.
#
# The profiler counts what the whole machine runs, interrupts and other programs included: stop what is not
# to be part of the profile. What ran before, booting above all, it cannot know.

usage() {
	cat <<'END'
usage: collect.sh [OPTIONS] LIST            the apps of a list
       collect.sh [OPTIONS] -a NAME -- 'COMMAND' [-a NAME -- 'COMMAND' ...]

  -o TAR         what to write (default collected.tar)
  -r RUNS        run everything so often (default 1); scripts find 0, 1, ... in $KPRUNE_SEED
  -T SECONDS     time limit of each command (default 60)
  -k, --keep-going   an app that fails is noted, and the rest runs; else it ends the collection with status 1
  -t DIR         tracefs is here, whatever the mount table says

LIST has an app per line, the name (a-z, 0-9, -), a tab, a command for sh. Lines that begin with # are
comments. Lines that begin with + add to the app above, each a key, a tab and a value:

  +check   a command that must exit 0 after the app's own
  +ready   makes the app a service, which stays in the foreground: this is tried until it exits 0
  +client  a command that must exit 0 once the service is ready; any number of them
  +host    the service is to be used from outside: prints "host NAME RUN TEXT" on standard output and waits for a
           line on standard input; an empty one, or 0, says that it went well
  +timeout seconds, instead of -T

exit status: 0 ok, 1 an app failed (the tar is there), 2 usage, 3 this machine lacks something
END
}

say() { printf 'collect.sh: %s\n' "$*" >&2; }
die() { # status words
	died=$1
	shift
	say "$*"
	exit "$died"
}

# Directories of the kernel's; tests have their own.
proc=${KPRUNE_PROC:-/proc} sys=${KPRUNE_SYS:-/sys}
tab=$(printf '\t')
carriage_return=$(printf '\r')
out=collected.tar runs=1 limit=60 keep_going=no tracefs='' list=''
apps=0 names=' ' changed=0
work='' mounted='' switched='' running='' watcher='' service=''

# ---- the end: whatever happened, the machine is as it was

finish() {
	trap '' HUP INT TERM PIPE
	for left in $running $service $watcher; do
		end "$left"
	done
	[ -z "$switched" ] || switch 0
	while [ "$changed" -gt 0 ]; do
		IFS= read -r file <"$work/changed.$changed.file"
		cat "$work/changed.$changed" >"$file" || say "$file could not be put back"
		changed=$((changed - 1))
	done
	[ -z "$mounted" ] || umount "$mounted" || say "$mounted could not be unmounted"
	[ -z "$work" ] || rm -rf "$work" "$out.$$"
}
group=
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

# ---- what is to be run: a folder per app, a file per script

add_app() { # name command
	case $1 in
	'' | *[!abcdefghijklmnopqrstuvwxyz0123456789-]*) die 2 "app '$1': a name has only a-z, 0-9 and -" ;;
	boot | shutdown | miss) die 2 "app '$1': that is the name of a phase; choose another" ;;
	esac
	case $names in *" $1 "*) die 2 "two apps are called '$1'" ;; esac
	[ -n "$2" ] || die 2 "app '$1' has no command"
	names="$names$1 "
	app=$work/kprune/apps/$apps
	mkdir "$app" && printf '%s\n' "$1" >"$app/name" && printf '%s\n' "$2" >"$app/command" ||
		die 3 "$app cannot be written; is the disk full?"
	apps=$((apps + 1)) clients=0
}

add_key() { # key value
	[ "$apps" -gt 0 ] || die 2 "$list: '+$1' comes before the first app"
	case $1 in
	check | ready | host | timeout) file=$app/$1 ;;
	client) file=$app/client$clients clients=$((clients + 1)) ;;
	*) die 2 "$list: there is no key '+$1'" ;;
	esac
	[ ! -e "$file" ] || die 2 "$list: a second '+$1' of one app"
	printf '%s\n' "$2" >"$file" || die 3 "$file cannot be written; is the disk full?"
}

read_list() {
	[ -r "$list" ] && [ ! -d "$list" ] || die 2 "$list cannot be read"
	line_number=0
	while IFS= read -r line || [ -n "$line" ]; do
		line_number=$((line_number + 1)) line=${line%"$carriage_return"}
		case $line in
		'' | '#'*) ;;
		+*"$tab"*) key=${line%%"$tab"*} && add_key "${key#+}" "${line#*"$tab"}" ;;
		*"$tab"*) add_app "${line%%"$tab"*}" "${line#*"$tab"}" ;;
		*) die 2 "$list: line $line_number has no tab between name and command" ;;
		esac
	done <"$list"
}

check_apps() {
	[ "$apps" -gt 0 ] || die 2 "there is no app; see collect.sh --help"
	is_number "$runs" && is_number "$limit" || die 2 "-r and -T want a whole number, 1 or more"
	for app in "$work"/kprune/apps/*; do
		read -r name <"$app/name"
		[ -e "$app/timeout" ] || printf '%s\n' "$limit" >"$app/timeout"
		read -r seconds <"$app/timeout"
		is_number "$seconds" || die 2 "app '$name': +timeout wants a whole number, 1 or more"
		if [ -e "$app/ready" ]; then
			[ ! -e "$app/check" ] || die 2 "app '$name' is a service: use +client instead of +check"
		elif [ -e "$app/client0" ] || [ -e "$app/host" ]; then
			die 2 "app '$name' has a client but no readiness check: add +ready"
		fi
	done
}

is_number() { case $1 in '' | 0* | *[!0123456789]* | ??????????*) return 1 ;; esac }

# ---- ftrace

find_tracefs() {
	while read -r device where kind rest; do
		[ "$kind" = tracefs ] && tracefs=$where && return
		[ "$kind" = debugfs ] && [ -d "$where/tracing" ] && tracefs=$where/tracing
	done <"$proc/mounts"
	[ -z "$tracefs" ] || return
	if [ -d "$sys/kernel/tracing" ]; then
		tracefs=$sys/kernel/tracing
		mount -t tracefs tracefs "$tracefs" && mounted=$tracefs
	elif [ -d "$sys/kernel/debug" ]; then # before 4.1
		tracefs=$sys/kernel/debug/tracing
		mount -t debugfs debugfs "$sys/kernel/debug" && mounted=$sys/kernel/debug
	fi
	[ -n "$mounted" ] || die 3 "there is no tracefs to mount: the kernel needs CONFIG_FUNCTION_PROFILER=y"
}

switch() { printf '%s\n' "$1" 2>/dev/null >"$tracefs/function_profile_enabled"; }
is_on() { read -r now <"$tracefs/function_profile_enabled" && [ "$now" = 1 ]; }

# Change a setting; `finish` puts back what it was. A filter has a name per line, also of functions that a module
# will bring (a:mod:b); commands for functions (a:traceon) stay when the rest of a filter goes.
change() { # file value
	[ -e "$1" ] || return 0
	changing=$work/changed.$((changed + 1))
	sed '/^#/d; /:mod:/!{ /:/d; }; s/ .*//' "$1" >"$changing" || die 3 "$1 cannot be read"
	[ "$(cat "$changing")" != "$2" ] || return 0
	printf '%s\n' "$1" >"$changing.file"
	changed=$((changed + 1))
	printf '%s\n' "$2" 2>/dev/null >"$1" || die 3 "$1 cannot be changed"
}

prepare_ftrace() {
	if [ -z "$tracefs" ]; then
		[ "$(id -u)" = 0 ] || die 3 "ftrace is for root only; run this as root"
		find_tracefs
	fi
	if [ ! -e "$tracefs/function_profile_enabled" ]; then
		die 3 "this kernel has no function profiler ($tracefs/function_profile_enabled): it needs" \
			"CONFIG_FUNCTION_PROFILER=y; with CONFIG_FUNCTION_TRACER alone, use trace-cmd instead"
	fi
	! is_on || die 3 "somebody is profiling already; if not: echo 0 >$tracefs/function_profile_enabled"
	# What these hide would be missing in the profile (kernel/trace/ftrace.c).
	change "$proc/sys/kernel/ftrace_enabled" 1
	change "$tracefs/set_ftrace_filter" ''
	change "$tracefs/set_ftrace_notrace" ''
	change "$tracefs/tracing_thresh" 0
	# Names, not offsets (6.17 and later).
	change "$tracefs/options/prof-text-offset" 0
}

# Switching it on forgets all counts.
window_opens() {
	switched=yes
	switch 1 && is_on || die 3 "the function profiler cannot be switched on; is another tracer in use?"
}

window_closes() { # folder
	is_on || die 3 "while $name ran, somebody switched the function profiler off, or ftrace gave up (see dmesg)"
	switch 0 || die 3 "the function profiler cannot be switched off"
	cpus=0
	for file in "$tracefs"/trace_stat/function*; do
		cat "$file" >"$1/${file##*/}" || die 3 "$file cannot be read, or the disk is full"
		cpus=$((cpus + 1))
	done
	# How many functions ftrace knows: more rows than that and some are lost. It says so only when it is dynamic.
	[ ! -e "$tracefs/dyn_ftrace_total_info" ] || cat "$tracefs/dyn_ftrace_total_info" >"$1/capacity" ||
		die 3 "$tracefs/dyn_ftrace_total_info cannot be read, or the disk is full"
}

# ---- running an app

# Run a script, in a session of its own if that can be, and end it when its time is over. $status is a number, or
# "late".
bounded() { # script
	rm -f "$work/late"
	$session sh "$1" </dev/null >>"$log" 2>&1 &
	running=$!
	$session sh -c "$watch" watch "$seconds" "$work/late" "$group$running" </dev/null >/dev/null 2>&1 &
	watcher=$!
	wait "$running" 2>/dev/null
	status=$? running=''
	end "$watcher"
	watcher=''
	[ ! -e "$work/late" ] || status=late
}

watch='sleep "$1"; printf "" >"$2"; kill -KILL "$3"'

# End a program and its children. Right after its start it may not have a session yet.
end() { # process
	kill -KILL "$group$1" 2>/dev/null || kill -KILL "$1" 2>/dev/null
	wait "$1" 2>/dev/null
}

step() { # script what
	bounded "$app/$1"
	case $status in
	0) return 0 ;;
	late) outcome="$2 did not end within $seconds seconds" ;;
	*) outcome="$2 exited with status $status" ;;
	esac
	return 1
}

uptime() { read -r now rest <"$proc/uptime" && now=${now%%.*}; }
nap() { sleep 0.2 2>/dev/null || sleep 1; }

# A process that has ended is known to have once the shell has waited for another.
serving() { kill -0 "$service" 2>/dev/null; }

until_ready() {
	uptime
	deadline=$((now + seconds))
	while nap && serving; do
		bounded "$app/ready"
		[ "$status" != 0 ] || return 0
		uptime
		if [ "$now" -gt "$deadline" ]; then
			outcome="its readiness check did not pass within $seconds seconds (status $status)"
			return 1
		fi
	done
	wait "$service" 2>/dev/null
	outcome="the service ended with status $? before it was ready"
	return 1
}

use_service() {
	until_ready || return
	client=0
	while [ -e "$app/client$client" ]; do
		step "client$client" "client command $((client + 1))" || return
		client=$((client + 1))
	done
	[ -e "$app/host" ] || return 0
	IFS= read -r text <"$app/host"
	printf 'host %s %s %s\n' "$name" "$KPRUNE_SEED" "$text"
	IFS= read -r answer || die 3 "standard input ended before it was said whether $name could be used from outside"
	case $answer in
	'' | 0) ;;
	*) outcome="its use from outside failed: $answer" && return 1 ;;
	esac
}

run_service() {
	$session sh "$app/command" </dev/null >>"$log" 2>&1 &
	service=$!
	use_service
	nap
	if serving; then
		kill -TERM "$group$service"
		patience=25
		while kill -0 "$group$service" 2>/dev/null && [ "$patience" -gt 0 ]; do
			patience=$((patience - 1))
			nap
		done
		kill -KILL "$group$service" 2>/dev/null
		wait "$service" 2>/dev/null
	elif [ "$outcome" = ok ]; then
		wait "$service" 2>/dev/null
		outcome="the service had ended by itself, with status $?"
	fi
	service=''
}

run_app() { # number run
	app=$work/kprune/apps/$1 into=$work/kprune/runs/$1.$2 KPRUNE_SEED=$2 outcome=ok
	export KPRUNE_SEED
	read -r name <"$app/name"
	read -r seconds <"$app/timeout"
	mkdir "$into" && printf '' >"$log" || die 3 "$into cannot be written; is the disk full?"
	printf 'run %s %s\n' "$name" "$2"
	window_opens
	if [ -e "$app/ready" ]; then
		run_service
	elif step command "its command" && [ -e "$app/check" ]; then
		step check "its check"
	fi
	window_closes "$into"
	tail -c 2000 "$log" >"$into/said"
	note ran "$1" "$2" "$outcome"
	[ "$outcome" = ok ] || fail
}

fail() {
	failed=yes
	say "$name: $outcome; it said:"
	tail -n 5 "$log" >&2
}

run_all() {
	run=0
	while [ "$run" -lt "$runs" ]; do
		number=0
		while [ "$number" -lt "$apps" ]; do
			run_app "$number" "$run"
			[ -z "$failed" ] || [ "$keep_going" = yes ] || return 0
			number=$((number + 1))
		done
		run=$((run + 1))
	done
}

# ---- the tar

note() { printf '%s\n' "$*" >>"$manifest" || die 3 "$manifest cannot be written; is the disk full?"; }

# All of a file, or none.
fact() { # file name
	[ -r "$1" ] && cat "$1" 2>/dev/null >"$facts/$2" || rm -f "$facts/$2"
}

gather_facts() {
	uname -a >"$facts/uname"
	for file in version cmdline config.gz; do
		fact "$proc/$file" "$file"
	done
	fact "$sys/kernel/notes" notes
	fact "$tracefs/available_filter_functions" functions
	# Names only, and not those of modules; addresses may be hidden.
	sed -n '/\[/d; s/^[0-9a-fA-F]* [tTwW] //p' "$proc/kallsyms" >"$facts/symbols" 2>/dev/null ||
		rm -f "$facts/symbols"
}

write_tar() {
	note cpus "$cpus"
	for file in "$work"/kprune/facts/* "$work"/kprune/apps/*/* "$work"/kprune/runs/*/*; do
		size=$(wc -c <"$file") && sum=$($summer <"$file") || die 3 "$file cannot be read"
		note file "$((size))" "${sum%% *}" "${file#"$work/kprune/"}"
	done
	sum=$($summer <"$manifest")
	note end "${sum%% *}"
	tar -cf "$out.$$" -C "$work" kprune/manifest kprune/facts kprune/apps kprune/runs &&
		mv "$out.$$" "$out" || die 3 "$out cannot be written; is the disk full?"
}

# ---- from here on it happens

work=${TMPDIR:-/tmp}/kprune-collect.$$
mkdir -m 700 "$work" || { work='' && die 3 "a folder in ${TMPDIR:-/tmp} cannot be made; set TMPDIR"; }
log=$work/log manifest=$work/kprune/manifest facts=$work/kprune/facts failed=''
mkdir "$work/kprune" "$facts" "$work/kprune/apps" "$work/kprune/runs" || die 3 "$work cannot be written"

while [ $# -gt 0 ]; do
	case $1 in
	-h | --help) usage && exit 0 ;;
	-k | --keep-going) keep_going=yes && shift && continue ;;
	-o | -r | -T | -t | -a) [ $# -ge 2 ] || die 2 "$1 wants a value; see collect.sh --help" ;;
	-?*) die 2 "there is no option '$1' (is a command of more words quoted?); see collect.sh --help" ;;
	*) [ -z "$list" ] || die 2 "one list only, not '$list' and '$1'" ;;
	esac
	case $1 in
	-o) out=$2 ;;
	-r) runs=$2 ;;
	-T) limit=$2 ;;
	-t) tracefs=$2 ;;
	-a)
		[ $# -ge 4 ] && [ "$3" = -- ] || die 2 "write -a NAME -- 'COMMAND'"
		add_app "$2" "$4"
		shift 2
		;;
	*) list=$1 && shift && continue ;;
	esac
	shift 2
done
case $out in /*) ;; *) out=./$out ;; esac
[ ! -d "$out" ] || die 2 "$out is a folder; -o wants the name of a file"
[ -z "$list" ] || read_list
check_apps
summer=
for tool in md5sum cksum; do
	command -v $tool >/dev/null && summer=$tool && break
done
[ -n "$summer" ] || die 3 "neither md5sum nor cksum is here"
for tool in cat grep mv sed sleep tail tar uname wc; do
	command -v $tool >/dev/null || die 3 "the program $tool is not here"
done
session=
if command -v setsid >/dev/null; then
	session=setsid group=-
else
	say "warning: there is no setsid; children of an app that is ended are left running"
fi

prepare_ftrace
note "kprune collect 1"
note sum "$summer"
note keep-going "$keep_going"
note runs "$runs"
number=0
while [ "$number" -lt "$apps" ]; do
	read -r name <"$work/kprune/apps/$number/name"
	note app "$number" "$name"
	number=$((number + 1))
done
run_all
gather_facts
write_tar
say "$out is written; next, on the host: kprune import $out --into OUT"
[ -z "$failed" ] || [ "$keep_going" = yes ]
