"""Misses are named by the VM's log; the caller comes from the oops when there is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prune.guests.boots import Boot, summary, way_out
from prune.guests.graveyard import Graveyard, read_graveyard
from prune.guests.misses import Answered, find_answered, find_misses
from tracer.host import UserError
from tracer.sessions.executed import executed_blocks

LOG = b"""----------------
IN: \n0xffffffff810e7a54:  d6                       .byte    0xd6

----------------
IN: dump
0xffffffff810e6d08:  d6                       .byte    0xd6

"""
OOPS = """invalid opcode: 0000 [#1]
CPU: 0 PID: 33 Comm: httpd Not tainted 6.1.192 #1
RIP: 0010:tcp_try_coalesce+0x0/0x1
Code: d6 d6 <d6> d6
Call Trace:
 <IRQ>
 ? other_dead+0x1/0x1
 ? tcp_queue_rcv+0x2d/0xa1
 ? tcp_rcv_established+0x1ec/0x35a
RIP: 0010:tcp_try_coalesce+0x0/0x1
"""

# Linux 6.1 for i386, of a web server that was to write through a dropped function.
OOPS_32 = """invalid opcode: 0000 [#1]
CPU: 0 PID: 1 Comm: init Not tainted 6.1.192 #1
EIP: vfs_write+0x0/0x2
Code: 22 8b 43 10 e8 b3 f1 ff ff 89 f1 58 5b 89 e8 5e 5f 5d c3 <0f> 0b 56 53 89 c3 83 ec 40 89 14 24 8b 40 20
EAX: c0360000 EBX: c0360000 ECX: 00000007 EDX: b7f9b370
ESI: c011bf80 EDI: 00000000 EBP: b7f9b370 ESP: c011bf74
DS: 007b ES: 007b FS: 0000 GS: 0033 SS: 0068 EFLAGS: 00000286
Call Trace:
 ? ksys_write+0x51/0x89
 ? __do_fast_syscall_32+0x50/0x6b
---[ end trace 0000000000000000 ]---
EIP: vfs_write+0x0/0x2
EAX: c0360000 EBX: c0360000 ECX: 00000007 EDX: b7f9b370
Kernel panic - not syncing: Fatal exception
"""


@pytest.fixture
def graveyard(tmp_path: Path) -> Path:
    rows = [
        ("tcp_try_coalesce", 0xFFFFFFFF810E7A54),
        ("dump", 0xFFFFFFFF810E6D08),
        ("other_dead", 0xFFFFFFFF810E7A53),
    ]
    stones = [
        {
            "symbol": name, "object": "x.o", "section": f".text.{name}", "names": [name], "address": address,
            "size": 1, "answer": "", "call": False,
        }
        for name, address in rows
    ]  # fmt: skip
    path = tmp_path / "tombstones.json"
    value = {"schema_version": 5, "start": 0, "tombstones": stones, "freed": [], "trimmed": []}
    path.write_text(json.dumps(value))
    return path


def test_misses_are_in_the_order_of_execution_with_callers(graveyard: Path) -> None:
    found = find_misses(read_graveyard(graveyard), executed_blocks(LOG), OOPS)
    assert [(m.function, m.caller) for m in found] == [("tcp_try_coalesce", "tcp_queue_rcv"), ("dump", "")]
    assert "caller unknown" in str(found[1])


def test_an_oops_of_32_bits_names_the_caller() -> None:
    log = b"----------------\nIN: \n0xc10e6d08:  0f 0b                    ud2      \n\n"
    stone = ("vfs_write", "fs/read_write.o", ".text.vfs_write")
    found = find_misses(
        Graveyard({0xC10E6D08: stone}, {"vfs_write": 0xC10E6D08}), executed_blocks(log), OOPS_32
    )
    assert [(miss.function, miss.caller) for miss in found] == [("vfs_write", "ksys_write")]
    # Without a log the oops is enough.
    assert find_misses(Graveyard({0xC10E6D08: stone}, {"vfs_write": 0xC10E6D08}), (), OOPS_32) == found


def test_a_silent_guest_is_still_attributed(graveyard: Path) -> None:
    assert [m.function for m in find_misses(read_graveyard(graveyard), executed_blocks(LOG), "")] == [
        "tcp_try_coalesce",
        "dump",
    ]


def test_without_kallsyms_the_address_names_the_function(graveyard: Path) -> None:
    oops = OOPS.replace("tcp_try_coalesce+0x0/0x1", "0xffffffff810e7a54")
    assert find_misses(read_graveyard(graveyard), executed_blocks(LOG), oops)[0].caller == "tcp_queue_rcv"


def test_the_range_covers_every_tombstone(graveyard: Path) -> None:
    assert read_graveyard(graveyard).range == (0xFFFFFFFF810E6D08, 0x810E7A54 - 0x810E6D08 + 1)


def test_a_damaged_file_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "tombstones.json"
    path.write_text('{"schema_version": 5, "tombstones": [{}]}')
    with pytest.raises(UserError, match="link again"):
        read_graveyard(path)


def test_a_miss_knows_its_phase() -> None:
    stones = Graveyard({0x10: ("f", "a.o", ".text.f"), 0x11: ("g", "a.o", ".text.g")}, {"f": 0x10, "g": 0x11})
    log = b"IN:\n0x00000010:  0f 0b\n\nIN:\n0x00000011:  0f 0b\n"
    phases = ((0, "boot"), (20, "web"))
    found = find_misses(stones, executed_blocks(log), "", phases)
    assert [(miss.function, miss.phase) for miss in found] == [("f", "boot"), ("g", "web")]


def test_what_a_policy_answered_for_is_no_miss() -> None:
    graves = {0x10: ("f", "a.o", ".text.f"), 0x19: ("g", "a.o", ".text.g")}
    stones = Graveyard(graves, {"f": 0x10, "g": 0x19}, answers={0x10: "-ENOTTY"})
    log = b"IN:\n0x00000010:  b8\n\nIN:\n0x00000019:  0f 0b\n\nIN:\n0x00000010:  b8\n"
    phases = ((0, "boot"), (50, "web"))
    assert [miss.function for miss in find_misses(stones, executed_blocks(log), "", phases)] == ["g"]
    (found,) = find_answered(stones, executed_blocks(log), phases)
    assert found == Answered("f", "a.o", ".text.f", "-ENOTTY", "boot")
    assert str(found) == "f (a.o) returned -ENOTTY"
    quiet = Boot(0, "", 1.0, "", 0, (), answered=(found,))
    once = summary((quiet, quiet))
    assert (once["passed"], once["misses"], [each["function"] for each in once["answered"]]) == (2, [], ["f"])


# What i386 says of a function that it has freed, when nothing else lies there yet.
FREED_32 = """int3: 0000 [#1]
CPU: 0 PID: 1 Comm: init Not tainted 6.1.192 #1
EIP: setup_early+0x1/0x30
Call Trace:
 ? setup_early+0x1/0x30
 ? chrdev_open+0x6b/0xe3
---[ end trace 0000000000000000 ]---
"""


def test_what_was_freed_and_is_executed_all_the_same() -> None:
    unit = ("setup_early", "a.o", ".text.setup_early")
    behind = (0x130, 0x13F, "g", "a.o", ".text.g")
    stones = Graveyard({0x10: ("f", "a.o", ".text.f")}, {"f": 0x10}, freed=((0x100, 0x12F, *unit), behind))
    assert stones.freed_range == (0x100, 0x40)
    block = b"IN:\n0x00000100:  cc\n\n"
    phases = ((0, "boot"), (len(block), "start"), (2 * len(block), "web"))
    # Booting runs it, and then web does, and runs on.
    (miss,) = find_misses(
        stones, (*executed_blocks(block * 3)[::2], (0x130, 3 * len(block))), FREED_32, phases
    )
    assert (miss.function, miss.caller, miss.phase) == ("setup_early", "chrdev_open", "web")
    assert find_misses(stones, executed_blocks(block), "", phases) == ()
    # What the guest says is enough, where nobody logs blocks.
    (miss,) = find_misses(stones, (), FREED_32, ((0, "web"),))
    assert (miss.function, miss.caller, miss.phase) == ("setup_early", "chrdev_open", "web")
    # Nobody looked when it was freed.
    assert find_misses(stones, executed_blocks(block * 3), "", ((0, "boot"), (1, "web"))) == ()


def test_a_static_function_that_stayed_may_have_a_dead_one_s_name(graveyard: Path) -> None:
    namesake = OOPS.replace("tcp_queue_rcv+0x2d/0xa1", "dump+0x2d/0xa1")
    (miss,) = find_misses(read_graveyard(graveyard), (), namesake)
    assert (miss.function, miss.caller) == ("tcp_try_coalesce", "dump")
    assert find_misses(read_graveyard(graveyard), (), "RIP: 0010:dump+0x0/0xa1\n") == ()


@pytest.fixture
def trimmed(tmp_path: Path) -> Path:
    path = tmp_path / "tombstones.json"
    row = {
        "symbol": "tcp_ack", "object": "net/ipv4/tcp_input.o", "section": ".text.tcp_ack",
        "address": 0xFFFFFFFF81003000, "traps": [[0x20, 0x20], [0x44, 0x90]],
    }  # fmt: skip
    value = {"schema_version": 5, "start": 0, "tombstones": [], "freed": [], "trimmed": [row]}
    path.write_text(json.dumps(value))
    return path


def test_a_cold_block_is_named_by_function_and_place(trimmed: Path) -> None:
    log = b"IN: \n0xffffffff81003044:  d6\n\n"
    (miss,) = find_misses(read_graveyard(trimmed), executed_blocks(log), "")
    assert (miss.function, miss.offset) == ("tcp_ack", 0x90)
    assert str(miss).startswith("tcp_ack+0x90 (net/ipv4/tcp_input.o)")


def test_a_trap_that_kept_code_runs_into_is_told_by_the_oops(trimmed: Path) -> None:
    """The block that ends in it began before, where there is no trap."""
    log = b"IN: \n0xffffffff81003010:  90\n\n"
    oops = "RIP: 0010:tcp_ack+0x20/0x60\nCall Trace:\n tcp_rcv+0x10/0x40\n"
    (miss,) = find_misses(read_graveyard(trimmed), executed_blocks(log), oops)
    assert (miss.function, miss.offset, miss.caller) == ("tcp_ack", 0x20, "tcp_rcv")


def test_an_oops_elsewhere_in_such_a_function_is_no_miss(trimmed: Path) -> None:
    oops = "RIP: 0010:tcp_ack+0x21/0x60\nCall Trace:\n tcp_rcv+0x10/0x40\n"
    assert find_misses(read_graveyard(trimmed), (), oops) == ()


OOPS_IN_MODULE = """invalid opcode: 0000 [#1]
CPU: 0 PID: 33 Comm: ip Not tainted 6.1.192 #1
RIP: 0010:vlan_dev_uninit+0x0/0x1 [8021q]
Call Trace:
 <TASK>
 ? vlan_dev_stop+0x0/0x1 [8021q]
 ? unregister_netdevice_many+0x2dd/0x4a0
 ? vlan_dellink+0x1d/0x20 [8021q]
"""


def test_a_miss_in_a_module_is_named_by_the_oops_alone(graveyard: Path) -> None:
    (graveyard.parent / "modules").mkdir()
    rows = [
        {"symbol": name, "object": "net/8021q/8021q.o", "section": f".text.{name}", "names": [name]}
        for name in ("vlan_dev_uninit", "vlan_dev_stop")
    ]
    value = {"schema_version": 1, "modules": {"8021q": rows}}
    (graveyard.parent / "modules" / graveyard.name).write_text(json.dumps(value))
    found = read_graveyard(graveyard)
    (miss,) = find_misses(found, (), OOPS_IN_MODULE, [(0, "boot"), (0, "vlan")])
    assert (miss.function, miss.object, miss.phase) == ("vlan_dev_uninit", "net/8021q/8021q.o", "vlan")
    assert miss.caller == "unregister_netdevice_many"
    # A function of the kernel's own, or of another module, is another one.
    for other in (OOPS_IN_MODULE.replace(" [8021q]", ""), OOPS_IN_MODULE.replace("[8021q]", "[bridge]")):
        assert find_misses(found, (), other) == ()
    # Behind its first byte there is something else.
    assert find_misses(found, (), OOPS_IN_MODULE.replace("uninit+0x0", "uninit+0x1")) == ()


@pytest.mark.parametrize("value", [{}, {"modules": []}, {"modules": {"a": [{}]}}, {"modules": {"a": 1}}])
def test_damaged_tombstones_of_modules_are_an_error(graveyard: Path, value: dict[str, object]) -> None:
    (graveyard.parent / "modules").mkdir()
    path = graveyard.parent / "modules" / graveyard.name
    path.write_text(json.dumps({"schema_version": 1, **value}))
    with pytest.raises(UserError, match=r"modules/tombstones\.json"):
        read_graveyard(graveyard)


@pytest.mark.parametrize(
    ("problem", "misses", "helps"),
    [
        ("running app shell: sleep: cannot read realtime clock: Function not implemented", [], True),
        ("running app shell: Function not implemented", [{"function": "f"}], False),
        ("running app shell: no such file", [], False),
    ],
)
def test_where_nothing_was_missed_a_program_that_got_enosys_says_so(
    problem: str, misses: list[dict[str, str]], helps: bool
) -> None:
    assert bool(way_out({"problem": problem, "misses": misses})) == helps
