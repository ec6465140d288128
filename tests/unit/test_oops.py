"""Reports are found in consoles as serial lines leave them; what is no report is passed over."""

from __future__ import annotations

import pytest

from tests.unit.pruned_run import log
from tracer.oops import Oops, Place, find_oopses, parse_place

STONE = Place("__kprune_tombstones_start", 0x2FB, 0x1008)


def one(console: str) -> Oops:
    (found,) = find_oopses(console)
    return found


def stamped(text: str, who: str = "", at: str = "[    3.123456]") -> list[str]:
    return [f"{at}{f'[{who:>6}]' if who else ''} {line}" for line in text.splitlines()]


def test_a_real_one_of_64_bits() -> None:
    found = one(log("x86_64"))
    assert (found.what, found.died, found.own, found.place) == ("invalid opcode", True, False, STONE)
    assert (found.comm, found.pid, found.cpu) == ("swapper", 1, 0)
    assert (found.panic, found.ended, found.slide) == ("Fatal exception in interrupt", True, 0)
    assert found.release == "6.1.192"
    assert found.trace[0].place == Place("clocksource_watchdog", 0x2CE, 0x3B5)
    assert found.trace[-1].place.name == "ret_from_fork" and not any(each.sure for each in found.trace)
    assert log("x86_64").split("\n")[found.line - 1].startswith("invalid opcode")


def test_a_real_one_of_32_bits() -> None:
    found = one(log("i386"))
    assert found.place == Place("__kprune_tombstones_start", 0x1096, 0x1F6A)
    assert [each.place.name for each in found.trace][:2] == ["vfs_write", "ksys_write"]
    assert found.panic.startswith("Attempted to kill init!")


def test_a_real_fault_of_what_was_freed() -> None:
    found = one(log("freed"))
    assert found.what == "BUG: unable to handle page fault for address: ffffffff815260e9"
    assert (found.fetched, found.linked) == (0xFFFFFFFF815260E9, 0xFFFFFFFF815260E9)
    assert found.place == Place("neigh_rand_reach_time", 0, 0x1B) and found.died
    assert found.comm == "kworker/0:1"


@pytest.mark.parametrize("name", ["x86_64", "i386", "freed"])
@pytest.mark.parametrize(
    "prefix",
    [
        "[    3.123456] ", "<4>[    3.1] ", "[    T1] ", "[    3.123456][    T1] ", "\x1b[0m", "\0",
        "Nov 25 17:26:01 board kernel: [    3.123456] ", "[Wed Nov 25 17:26:01 2026] ",
        "[2026-11-25 17:26:01.123] [    3.1][   C12] ", "2026-11-25T17:26:01,1+00:00 ",
    ],
)  # fmt: skip
def test_what_stands_before_a_line_is_not_a_part_of_it(name: str, prefix: str) -> None:
    plain = log(name).replace("\r", "")
    for ends in ("\n", "\r\n", "\r\r\n", "\r"):
        assert find_oopses(ends.join(prefix + line for line in plain.split("\n"))) == find_oopses(plain)


def test_newer_kernels() -> None:
    """6.9 puts "Oops: " before it, 6.12 the user; what follows the number was there before."""
    newer = log("x86_64").replace("invalid opcode: 0000 [#1]", "Oops: invalid opcode: 0000 [#1] SMP NOPTI")
    found = one(newer.replace("CPU: 0 PID: 1", "CPU: 0 UID: 0 PID: 1"))
    assert (found.what, found.pid, found.place) == ("Oops: invalid opcode", 1, STONE)


def test_two_processors_at_a_time_are_told_apart() -> None:
    """printk says who prints; each oops has its own call trace then, line by line beside the other's."""
    early = "\n".join(log("x86_64").splitlines()[7:])
    late = early.replace("clocksource_watchdog+0x2ce/0x3b5", "tcp_ack+0x4/0x8").replace("#1]", "#2]")
    late = late.replace("0x2fb/", "0x2fc/").replace("CPU: 0 PID: 1", "CPU: 1 PID: 7")
    both = [
        line for pair in zip(stamped(early, "T1"), stamped(late, "C1"), strict=True) for line in pair
    ]  # fmt: skip
    first, second = find_oopses("\n".join(both))
    assert (first.place, second.place) == (STONE, Place(STONE.name, 0x2FC, 0x1008))
    assert (first.pid, second.pid, second.cpu) == (1, 7, 1)
    assert first.trace[0].place.name == "clocksource_watchdog" and second.trace[0].place.name == "tcp_ack"
    assert len(first.trace) == len(second.trace) == 17


def test_what_others_print_between_the_lines() -> None:
    lines = log("x86_64").replace("\r", "").split("\n")
    noisy = "\n".join(f"{line}\nrandom: crng init done\n\xff\xfe\x01 login: " for line in lines)
    assert [each.place for each in find_oopses(noisy)] == [STONE]
    assert one(noisy).trace == one(log("x86_64")).trace
    assert one("$ cat /proc/x" + log("x86_64").replace("RIP:", "ok RIP:")).place == STONE


def test_the_summary_is_of_the_first_oops_and_no_report() -> None:
    """oops_end() repeats the registers of the first oops, whichever it ends."""
    begin, end = (
        log("i386").replace("\r", "").split("Kernel panic")[0],
        "Kernel panic - not syncing: Fatal exception",
    )
    head, tail = begin.split("---[ end")
    second = head.replace("0x1096", "0x1098").replace("[#1]", "[#2]").replace("Linux version", "x")
    first, other = find_oopses(f"{begin}{second}---[ end{tail}{end}\n")
    assert (first.panic, other.panic) == ("", "Fatal exception")
    assert first.place and other.place and (first.place.offset, other.place.offset) == (0x1096, 0x1098)


def test_what_an_interrupt_came_into_is_no_report() -> None:
    """The unwinder shows its registers within the call trace, of programs, too."""
    found = one(
        "invalid opcode: 0000 [#1]\nCPU: 0 PID: 9 Comm: a b c Tainted: G        W 6.1 #1\n"
        "RIP: 0010:f+0x0/0x1\nCall Trace:\n <IRQ>\n g+0x5/0x9\n </IRQ>\n <TASK>\n"
        "RIP: 0010:native_safe_halt+0x13/0x14\n ? h+0x1/0x3 [mod]\nRIP: 0033:0x7f1234567890\n</TASK>\n"
    )
    assert found.place == Place("f", 0, 1) and found.comm == "a b c"
    assert [(str(each.place), each.sure) for each in found.trace] == [
        ("g+0x5/0x9", True),
        ("h+0x1/0x3", False),
    ]


def test_a_user_program_that_faults_is_no_report() -> None:
    assert find_oopses("httpd[33]: segfault at 0\nRIP: 0033:0x401000\nCode: 00\n") == ()


def test_warnings_and_bugs_are_the_kernel_s_own() -> None:
    warning, bug = find_oopses(
        "------------[ cut here ]------------\nWARNING: CPU: 0 PID: 5 at net/a.c:7 f+0x4/0x9\n"
        "CPU: 0 PID: 5 Comm: x Not tainted 6.1 #1\nRIP: 0010:f+0x4/0x9\nCall Trace:\n g+0x1/0x2\n"
        "---[ end trace 0 ]---\n"
        "kernel BUG at fs/b.c:8!\ninvalid opcode: 0000 [#1]\nRIP: 0010:h+0x4/0x9\n"
    )
    assert (warning.own, warning.died, warning.ended) == (True, False, True)
    assert (bug.own, bug.died, bug.what) == (True, True, "kernel BUG at fs/b.c:8!")


def test_a_panic_alone_and_one_of_another_cause() -> None:
    found = one(
        "Kernel panic - not syncing: VFS: Unable to mount root fs\nCPU: 0 PID: 1 Comm: swapper Not tainted\n"
    )
    assert (found.panic, found.what, found.pid) == ("VFS: Unable to mount root fs", "", 1)
    lockup, panic = find_oopses(
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]\nRIP: 0010:f+0x1/0x2\n"
        "Kernel panic - not syncing: softlockup: hung tasks\n---[ end Kernel panic - not syncing: x ]---\n"
    )
    assert (lockup.died, lockup.panic, panic.panic) == (False, "", "softlockup: hung tasks")


def test_a_panic_long_after_an_oops_is_another_one() -> None:
    killed = log("i386").partition("Kernel panic")[0]
    noise = "eth0: link is up\n" * 100
    first, panic = find_oopses(
        f"{killed}{noise}Kernel panic - not syncing: Attempted to kill init! exitcode=0\n"
    )
    assert (first.panic, panic.what) == ("", "") and panic.panic.startswith("Attempted")
    first, panic = find_oopses(f"{killed}Kernel panic - not syncing: Out of memory\n")
    assert (first.panic, panic.panic) == ("", "Out of memory")


def test_who_panics_is_who_had_the_oops() -> None:
    oops = "invalid opcode: 0000 [#1]\nRIP: 0010:f+0x0/0x1\nCall Trace:\n"
    lines = [*stamped(oops, "T7"), *stamped(oops.replace("f+", "g+"), "C1")]
    lines += stamped("Kernel panic - not syncing: Fatal exception\n", "T7")
    lines += stamped("Kernel panic - not syncing: Fatal exception in interrupt\n", "C1")
    assert [each.panic for each in find_oopses("\n".join([*lines, ""]))] == ["Fatal exception", ""]


def test_each_boot_has_its_own_offset() -> None:
    oops = (
        "invalid opcode: 0000 [#1]\nRIP: 0010:0xffffffff9f000010\n"
        "Kernel panic - not syncing: Fatal exception\n"
    )
    first, second, third = find_oopses(
        f"Linux version 6.1.1 (x)\n{oops}Kernel Offset: 0x1e000000 from 0xffffffff81000000 (x)\n"
        f"Linux version 6.1.2 (x)\n{oops}Kernel Offset: disabled\nLinux version 6.1.3\n{oops}"
    )
    assert [each.slide for each in (first, second, third)] == [0x1E000000, 0, None]
    assert [each.release for each in (first, second, third)] == ["6.1.1", "6.1.2", "6.1.3"]


@pytest.mark.parametrize("name", ["x86_64", "i386", "freed"])
def test_a_log_that_begins_or_ends_anywhere_says_nothing_wrong(name: str) -> None:
    text = log(name)
    whole = one(text)
    for cut in range(0, len(text), 11):
        for part in (text[:cut], text[cut:]):
            found = find_oopses(part)
            assert all(each.place in (whole.place, None) for each in found), part
            assert len(found) <= 2


def test_the_int3_of_freed_memory_is_one_byte_back() -> None:
    assert one("int3: 0000 [#1]\nEIP: setup_early+0x1/0x30\n").behind == 1
    assert one("invalid opcode: 0000 [#1]\nEIP: f+0x1/0x30\n").behind == 0


def test_places() -> None:
    assert parse_place("f.isra.0+0x1a/0x30") == Place("f.isra.0", 0x1A, 0x30)
    assert parse_place("0xc1000000") == Place("", 0xC1000000)
    assert str(Place("", 0xC1)) == "0xc1" and str(Place("f", 1, 2)) == "f+0x1/0x2"
    for half in ("", "f", "f+0x1", "f+0x1/", "f+0x1/0xg", "+0x1/0x2", "0x", "0x11112222333344445"):
        assert parse_place(half) is None, half
