#!/bin/sh
# The kernel's own tests of its system calls as programs that nobody profiled: `selftests.sh FOLDER [TREE]` builds those below of
# TREE, a kernel's sources (by default the newest that kprune has unpacked), and makes a list of them for `kprune holdout OUT
# --programs FOLDER/programs.toml`. CC=i686-linux-gnu-gcc builds them for i386. What a compiler or the tree's version does not
# build is left out, and said. Tests of how fast something is, or of machines that sleep, are not among them.
set -e

[ $# = 1 ] || [ $# = 2 ] || { echo "usage: $0 FOLDER [TREE]" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cache=${KPRUNE_CACHE:-$HOME/.cache/kprune}
tree=${2:-$(ls -td "$cache"/src/*/*/ 2>/dev/null | head -n 1)}
tree=${tree%/}
tests=$tree/tools/testing/selftests
[ -d "$tests" ] || { echo "$0: \"$tree\" has no tools/testing/selftests; name a kernel's sources" >&2; exit 2; }

all() {
	cat <<'END'
breakpoints: breakpoint_test
clone3: clone3 clone3_clear_sighand clone3_set_tid
core: close_range_test
exec: execveat load_address non-regular null-argv recursion-depth
filesystems: devpts_pts dnotify_test
futex/functional: futex_requeue futex_requeue_pi futex_requeue_pi_mismatched_ops futex_wait futex_wait_private_mapped_file
futex/functional: futex_wait_timeout futex_wait_uninitialized_heap futex_wait_wouldblock futex_waitv
ipc: msgque
kcmp: kcmp_test
membarrier: membarrier_test_multi_thread membarrier_test_single_thread
memfd: memfd_test
mincore: mincore_selftest
mm: map_fixed_noreplace map_populate mlock2-tests mrelease_test mremap_dontunmap mremap_test on-fault-limit madv_populate
mount: nosymfollow-test unprivileged-remount-test
mount_setattr: mount_setattr_test
move_mount_set_group: move_mount_set_group_test
mqueue: mq_open_tests
net: bind_bhash ipv6_flowlabel_mgr psock_fanout psock_snd reuseaddr_conflict reuseport_addr_any reuseport_bpf
net: reuseport_bpf_cpu reuseport_dualstack sk_bind_sendto_listen sk_connect_zero_addr so_netns_cookie socket tap tun
net: tcp_fastopen_backup_key
nsfs: owner pidns
openat2: openat2_test resolve_test
perf_events: mmap remove_on_exec sigtrap_threads
pid_namespace: regression_enomem
pidfd: pidfd_fdinfo_test pidfd_getfd_test pidfd_open_test pidfd_poll_test pidfd_setns_test pidfd_test pidfd_wait
prctl: disable-tsc-test
proc: fd-001-lookup fd-002-posix-eq fd-003-kthread proc-empty-vm proc-fsconfig-hidepid proc-loadavg-001 proc-multiple-procfs
proc: proc-pid-vm proc-self-map-files-001 proc-self-map-files-002 proc-self-syscall proc-self-wchan proc-subset-pid proc-tid0
proc: proc-uptime-001 read self setns-dcache setns-sysvipc thread-self
ptrace: get_syscall_info peeksiginfo vmaccess
rlimits: rlimits-per-userns
rtc: rtctest
sched: cs_prctl_test
sigaltstack: sas
splice: default_file_splice_read splice_read
syscall_user_dispatch: sud_test
timens: clock_nanosleep exec futex procfs timens timer timerfd
timers: nanosleep posix_timers set-tz
tmpfs: bug-link-o-tmpfile
vDSO: vdso_test_clock_getres vdso_test_correctness
vm: map_fixed_noreplace map_populate mlock2-tests mrelease_test mremap_dontunmap mremap_test on-fault-limit madv_populate
x86: corrupt_xstate_header fsgsbase fsgsbase_restore ioperm iopl ldt_gdt mov_ss_trap ptrace_syscall
x86: sigaltstack sigreturn sigtrap_loop single_step_syscall syscall_arg_fault syscall_nt syscall_numbering sysret_rip test_FCMOV
x86: test_mremap_vdso test_syscall_vdso test_vsyscall trivial_program
END
}

echo "making the headers of $tree ..." >&2
make -s -C "$tree" O="$folder/headers" headers >"$folder/build.log" 2>&1 ||
	{ echo "$0: make headers failed; $folder/build.log" >&2; exit 1; }

rm -rf "$folder/files"
mkdir "$folder/files"
# Numbers are process IDs and times, or addresses; an exit status says what counts.
cat >"$folder/files/run" <<'END'
#!/bin/sh
"$@" >out 2>&1
status=$?
sed -E 's/0x[0-9a-fA-F]+|[0-9]+/N/g' out
exit $status
END
chmod 755 "$folder/files/run"
cat >"$folder/programs.toml" <<'END'
schema_version = 1
packages = ["libc6"]
omit = ["/usr/share/*", "/usr/lib/*/gconv/*", "/usr/lib/*/audit/*"]
files = "files"
END

built=0 missing=
echo "building tests of $tests ..." >&2
all | tr -d : >"$folder/all"
while read -r group names; do
	[ -d "$tests/$group" ] || continue
	mkdir -p "$folder/files/$group"
	for name in $names; do
		if [ -f "$tests/$group/$name.c" ] && (cd "$tests/$group" && ${CC:-gcc} -O1 -w -D_GNU_SOURCE \
			-isystem "$folder/headers/usr/include" -I. -I"$tests" -I"$tests/futex/include" \
			-o "$folder/files/$group/$name" "$name.c" $(ls helpers.c vm_util.c common.c 2>/dev/null) \
			-lpthread -lrt -lm) >>"$folder/build.log" 2>&1; then
			built=$((built + 1))
			program=$(echo "$group-$name" | tr 'A-Z/_' 'a-z--')
			printf '\n[[program]]\nname = "%s"\ncommand = "/held/run /held/%s/%s"\ntimeout = 30\n' \
				"$program" "$group" "$name" >>"$folder/programs.toml"
		else
			missing="$missing $group/$name"
		fi
	done
done <"$folder/all"
rm "$folder/all"
[ -z "$missing" ] || echo "not built:$missing ($folder/build.log)" >&2
echo "$built tests; next: kprune holdout OUT --programs $folder/programs.toml" >&2
