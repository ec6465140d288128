#!/bin/bash
# procps, and what it reads.
set -euo pipefail
. /root/system.sh
sleep 100 & sleeper=$!
for round in 1 $((KPRUNE_SEED % 2 ? 2 : 0)); do
	[ $round = 0 ] && continue
	ps aux >/dev/null
	ps -eo pid,ppid,user,ni,stat,wchan:20,rss,etimes,args >/dev/null
	ps -eLf >/dev/null
	top -b -n 1 >/dev/null
done
[ "$(pgrep -x sleep -P $$)" = $sleeper ]
free -m
vmstat
uptime
pmap -x $sleeper >/dev/null
pwdx $sleeper
renice -n 3 -p $sleeper >/dev/null
taskset -p $sleeper
cat /proc/$sleeper/{status,stat,maps,smaps,limits,io,mounts,cmdline,environ,cgroup} >/dev/null 2>&1 || true
ls -l /proc/$sleeper/fd /proc/$sleeper/ns >/dev/null
cat /proc/{cpuinfo,meminfo,stat,uptime,loadavg,version,filesystems,interrupts,mounts,devices,vmstat,zoneinfo} >/dev/null
cat /proc/net/{dev,route,tcp,tcp6,udp,udp6,unix,arp,snmp,netstat,if_inet6,ipv6_route,sockstat,packet} >/dev/null
sysctl -a >/dev/null 2>&1
sysctl -w kernel.pid_max=20000 net.ipv4.ip_default_ttl=64
! sysctl -w kernel.nothing=1 2>/dev/null
! sysctl -w kernel.pid_max=x 2>/dev/null
pkill -x sleep -P $$
wait $sleeper || [ $? = 143 ]
! kill $sleeper 2>/dev/null
! ps -p $sleeper
python3 - <<'END'
import multiprocessing.shared_memory as shared, os, resource, signal, threading, time
done = threading.Event()
threads = [threading.Thread(target=done.wait) for _ in range(8)]
for thread in threads: thread.start()
done.set()
for thread in threads: thread.join()
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.2)
memory = shared.SharedMemory(create=True, size=1 << 16)
memory.buf[:3] = b"abc"
child = os.fork()
if not child:
    os._exit(memory.buf[0])
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == ord("a")
memory.close(); memory.unlink()
resource.getrusage(resource.RUSAGE_CHILDREN)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.sched_yield(); os.getpriority(os.PRIO_PROCESS, 0); os.times(); os.getloadavg()
os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
END
