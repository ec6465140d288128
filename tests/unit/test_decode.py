"""``kprune decode``: real console logs, and all that happens to them on their way."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prune.cli import main
from prune.commands import decode as cmd_decode
from prune.commands.decode import load_kernel
from prune.folder import Folder
from prune.guests.decode import Decoded, decode
from prune.guests.heal import add_misses, save_healed
from tests.unit.pruned_run import FREED_MAP, FREED_ROW, log, without_kallsyms, write_run

#: Log -> (function, its object, who called it).
MISSED = {
    "x86_64": ("__clocksource_unstable", "kernel/time/clocksource.o", "clocksource_watchdog+0x2ce"),
    "i386": ("redirected_tty_write", "drivers/tty/tty_io.o", "vfs_write+0xe6"),
    "freed": ("neigh_rand_reach_time", "net/core/neighbour.o", "neigh_periodic_work+0x92"),
}


def run_of(name: str, folder: Path) -> Path:
    if name == "freed":
        return write_run(folder, name, freed=[FREED_ROW], system_map=FREED_MAP)
    return write_run(folder, name)


def decoded(text: str, folder: Path) -> tuple[Decoded, ...]:
    return decode(text, load_kernel(Folder(folder)))


def said(each: Decoded) -> tuple[str, str, str]:
    assert each.at and each.caller
    return each.at.function, each.at.object, f"{each.caller.function}+{each.caller.offset:#x}"


def kprune(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["decode", *map(str, words)])
    return int(caught.value.code or 0)


@pytest.mark.parametrize("name", MISSED)
def test_a_real_log(name: str, tmp_path: Path) -> None:
    (found,) = decoded(log(name), run_of(name, tmp_path))
    assert said(found) == MISSED[name] and not found.doubt
    assert found.missed == ("freed" if name == "freed" else "tombstone")
    assert found.outcome == "panic" and found.pid in (1, 13) and found.at and found.at.address


@pytest.mark.parametrize("name", ["x86_64", "i386"])
def test_a_kernel_without_kallsyms(name: str, tmp_path: Path) -> None:
    (found,) = decoded(without_kallsyms(name), run_of(name, tmp_path))
    assert said(found) == MISSED[name] and not found.doubt


def test_a_kernel_that_moved_says_by_how_much(tmp_path: Path) -> None:
    run = run_of("x86_64", tmp_path)
    text = without_kallsyms("x86_64", 0x1E000000)
    (found,) = decoded(text, run)
    assert said(found) == MISSED["x86_64"] and not found.doubt
    (found,) = decoded(text.partition("Kernel Offset")[0], run)
    assert (found.missed, found.miss) == ("unknown", None) and "nokaslr" in found.doubt
    assert found.caller and found.caller.function.startswith("0xffffffff9f")
    (found,) = decoded(text[text.index("RIP:") :].partition("Kernel Offset")[0], run)
    assert found.missed == "unknown" and not found.what


def test_what_was_freed_of_a_kernel_that_moved(tmp_path: Path) -> None:
    text = log("freed").replace("ffffffff8152", "ffffffffa152")
    text = text.replace("Kernel Offset: disabled", "Kernel Offset: 0x20000000 from 0xffffffff81000000 (x)")
    (found,) = decoded(text, run_of("freed", tmp_path))
    assert said(found) == MISSED["freed"] and not found.doubt
    # Of whom the address is lost, the name tells.
    (found,) = decoded(log("freed").replace("ffffffff815260e9", "ffffffff00000000"), tmp_path)
    assert said(found) == MISSED["freed"]


def test_a_log_of_another_link_names_nobody(tmp_path: Path) -> None:
    run = run_of("x86_64", tmp_path / "a")
    (found,) = decoded(log("x86_64").replace("/0x1008", "/0x104b"), run)
    assert (found.missed, found.at, found.miss) == ("unknown", None, None) and "another link" in found.doubt
    other = FREED_MAP.replace("neigh_rand_reach_time", "register_netdevice")
    run = write_run(tmp_path / "b", "freed", freed=[{**FREED_ROW, "symbol": "x"}], system_map=other)
    (found,) = decoded(log("freed"), run)
    assert (found.missed, found.miss) == ("unknown", None)
    assert "register_netdevice where it had neigh_rand_reach_time" in found.doubt


def test_doubts(tmp_path: Path) -> None:
    run = run_of("x86_64", tmp_path)
    for change, doubt in (
        (("Linux version 6.1.192", "Linux version 6.6.1"), "of Linux 6.6.1, this kernel is 6.1.192"),
        (("run_timer_softirq", "run_timers"), "has no run_timers"),
    ):
        (found,) = decoded(log("x86_64").replace(*change), run)
        assert said(found) == MISSED["x86_64"] and doubt in found.doubt and found.miss is None


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (lambda text: text.partition("Kernel panic")[0], "killed"),
        (lambda text: text.partition("Kernel panic")[0] + "Fixing recursive fault but reboot is needed!\n",
         "stuck"),
        (lambda text: text.partition("---[ end")[0], "cut off"),
    ],
)  # fmt: skip
def test_what_became_of_the_machine(change: Callable[[str], str], outcome: str, tmp_path: Path) -> None:
    (found,) = decoded(change(log("i386")), run_of("i386", tmp_path))
    assert found.outcome == outcome and said(found) == MISSED["i386"]


@pytest.mark.parametrize("name", MISSED)
def test_half_a_log_names_the_same_function_or_none(name: str, tmp_path: Path) -> None:
    kernel = load_kernel(Folder(run_of(name, tmp_path)))
    for text in {log(name), without_kallsyms(name)} if name != "freed" else {log(name)}:
        for cut in range(0, len(text), 31):
            for part in (text[:cut], text[cut:], f"\xff\0{text[cut:]}"):
                for found in decode(part, kernel):
                    named = found.at.function if found.at and found.missed else ""
                    assert named in ("", MISSED[name][0])
                    # Half a call trace has lost its end, or all of it.
                    assert found.caller is None or str(found.caller).startswith(MISSED[name][2])


TRAPS = {
    "symbol": "tcp_ack", "object": "net/ipv4/tcp_input.o", "section": ".text.tcp_ack",
    "address": 0xFFFFFFFF81003000, "traps": [[0x20, 0x20], [0x44, 0x90]],
}  # fmt: skip
FUNCTIONS = [
    [0xFFFFFFFF81200000, 0x100, "net/ipv4/tcp_input.o", ".text.tcp_ack", "tcp_ack", True],
    [0xFFFFFFFF81200100, 0x80, "net/ipv4/tcp_ipv4.o", ".text.tcp_v4_rcv", "tcp_v4_rcv", True],
    [0xFFFFFFFF81200200, 0x80, "a.o", ".text.twice", "twice", True],
    [0xFFFFFFFF81200300, 0x80, "b.o", ".text.twice", "twice", True],
]
MAP = (
    "ffffffff81003000 T tcp_ack\nffffffff81003080 T tcp_v4_rcv\nffffffff81003100 t twice\n"
    "ffffffff81003200 t twice\nffffffff81003300 T __kprune_tombstones_start\n"
    "ffffffff81003301 T __kprune_tombstones_end\nffffffff81004000 T _etext\n"
)
BLOCK = """invalid opcode: 0000 [#1]
CPU: 1 PID: 7 Comm: httpd Not tainted 6.1 #1
RIP: 0010:tcp_ack+0x44/0x60
Call Trace:
 ? twice+0x3/0x80
 tcp_v4_rcv+0x10/0x80
---[ end trace 0000000000000000 ]---
"""


@pytest.fixture
def trimmed(tmp_path: Path) -> Path:
    gone = {"symbol": "gone", "object": "g.o", "section": ".text.gone", "names": ["gone"]}
    return write_run(
        tmp_path, tombstones=[{**gone, "address": 0xFFFFFFFF81003300}], trimmed=[TRAPS],
        functions=FUNCTIONS, system_map=MAP, start=0xFFFFFFFF81003300,
    )  # fmt: skip


def test_a_block_of_a_function(trimmed: Path) -> None:
    for text in (BLOCK, BLOCK.replace("tcp_ack+0x44/0x60", "0xffffffff81003044")):
        (found,) = decoded(text, trimmed)
        assert (
            found.missed == "block" and found.at and (found.at.offset, found.at.function) == (0x90, "tcp_ack")
        )
        assert found.at.address == 0xFFFFFFFF81200090
        # Within a function the unwinder knows better than the stack.
        assert found.caller and found.caller.function == "tcp_v4_rcv"
        # The call, not what follows it; where blocks are gone before it, nobody knows.
        assert found.caller.address == 0xFFFFFFFF8120010F
    (found,) = decoded(BLOCK.replace("tcp_v4_rcv+0x10/0x80", "tcp_ack+0x3/0x60"), trimmed)
    assert found.caller and (found.caller.function, found.caller.object) == ("twice", "")
    # Traps lie before the tombstones: those count from their own beginning.
    (found,) = decoded(BLOCK.replace("tcp_ack+0x44/0x60", "__kprune_tombstones_start+0x0/0x1"), trimmed)
    assert found.at and found.at.function == "gone" and found.missed == "tombstone"


@pytest.mark.parametrize(
    "text",
    [
        BLOCK.replace("0x44/", "0x45/"),
        BLOCK.replace("invalid opcode", "general protection fault, maybe for address 0x1").replace(
            "0x44/", "0x1/"
        ),
        f"kernel BUG at net/ipv4/tcp.c:4!\n{BLOCK}",
        f"WARNING: CPU: 0 PID: 1 at net/a.c:9 tcp_ack+0x44/0x60\n{BLOCK.partition(chr(10))[2]}",
        BLOCK.replace("invalid opcode", "int3"),
        BLOCK.replace("RIP: 0010:tcp_ack+0x44/0x60", "RIP: 0010:0xffffffff81003045"),
        "BUG: kernel NULL pointer dereference, address: 0000000000000008\n"
        "#PF: supervisor read access in kernel mode\nOops: 0000 [#1]\nRIP: 0010:tcp_v4_rcv+0x1/0x80\n",
        "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n",
    ],
)
def test_what_is_no_miss_is_said_to_be_none(
    text: str, trimmed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = decoded(text, trimmed)
    assert (found.missed, found.miss) == ("", None)
    (trimmed / "log").write_text(text)
    assert kprune(trimmed / "log", trimmed) == 0
    answer = capsys.readouterr().out
    assert "no miss: " in answer and "--add" not in answer
    assert ("tcp_" in answer) == ("RIP" in text)


def test_where_init_memory_is_no_fault_int3_tells(tmp_path: Path) -> None:
    row = {**FREED_ROW, "symbol": "setup_early", "address": 0xC1200000, "size": 48}
    run = write_run(tmp_path, "i386", freed=[row], system_map="c1200000 t setup_early\n")
    for place in ("setup_early+0x1/0x30", "0xc1200001"):
        (found,) = decoded(f"int3: 0000 [#1]\nEIP: {place}\nCall Trace:\n ? vfs_write+0xe6/0x147\n", run)
        assert found.missed == "freed" and found.at and found.at.function == "setup_early"
        assert found.caller and found.caller.function == "vfs_write"


def test_answers_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of("x86_64", tmp_path / "out")
    path = tmp_path / "console log"
    path.write_text(log("x86_64") + log("x86_64"))
    assert kprune(path, run) == 5
    text = capsys.readouterr()
    assert text.out.count("missed __clocksource_unstable (kernel/time/clocksource.o)") == 2
    assert f"kprune decode '{path}' {run} --add" in text.out and f"kprune heal {run}" in text.out
    assert "missed functions: 1; oopses in doubt: 0; other reports: 0" in text.err
    assert "no source lines" in text.err
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(log("x86_64").encode())))
    assert kprune("-", run, "--json") == 5
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    (oops,) = answer["oopses"]
    assert (oops["at"]["function"], oops["missed"], oops["pid"]) == ("__clocksource_unstable", "tombstone", 1)
    assert answer["mend"] == [f"kprune decode - {run} --add", f"kprune heal {run}"]
    # What is known already need not be added again.
    miss = decoded(log("x86_64"), run)[0].miss
    assert miss is not None
    save_healed(add_misses((), [miss]), run / "heal.json", "aa")
    assert kprune(path, run, "--json") == 5
    assert json.loads(capsys.readouterr().out)["mend"] == [f"kprune heal {run}"]
    path.write_bytes(b"\xff\xfeall is well\0\n")
    assert kprune(path, run) == 0
    assert capsys.readouterr().out == ""


def test_what_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of("x86_64", tmp_path / "out")
    path = tmp_path / "log"
    path.write_text(log("x86_64"))
    assert kprune(tmp_path / "none", run) == 2
    assert "reading the console log" in capsys.readouterr().err
    assert kprune(tmp_path, run) == 2
    assert kprune(path, tmp_path) == 2
    assert "kprune link" in capsys.readouterr().err
    monkeypatch.setattr(cmd_decode, "MOST", 100)
    assert kprune(path, run) == 2
    assert "tail -c" in capsys.readouterr().err
    monkeypatch.undo()
    (run / "pruned" / "System.map").unlink()
    assert kprune(path, run) == 2
    assert "System.map" in capsys.readouterr().err


def test_a_panic_of_a_policy_is_a_miss(tmp_path: Path) -> None:
    """Its tombstone is code that calls panic(): no oops, and the dump of the stack is in its own trace."""
    stone = {"symbol": "gone", "object": "a.o", "section": ".text.gone", "names": ["gone"], "address": 0x5000}
    write_run(
        tmp_path, tombstones=[stone | {"size": 60}], start=0x5000, system_map="00001000 T asks\n",
        functions=[[0x1000, 32, "a.o", ".text.asks", "asks", True]],
    )  # fmt: skip
    text = (
        "Kernel panic - not syncing: kprune: gone (a.o) was pruned\n"
        "CPU: 0 PID: 7 Comm: sh Not tainted 6.1.0 #1\nCall Trace:\n dump_stack_lvl+0x2d/0x3c\n"
        " panic+0xd5/0x2a0\n __kprune_tombstones_start+0x30/0x3c\n asks+0x4/0x20\n"
    )
    (found,) = decoded(text, tmp_path)
    assert (found.missed, said(found)) == ("tombstone", ("gone", "a.o", "asks+0x4"))
    assert (found.outcome, found.pid) == ("panic", 7)
    (other,) = decoded(text.replace("gone (a.o)", "stays (a.o)"), tmp_path)
    assert not other.missed


IN_MODULE = """Linux version 6.1.192 (x)
invalid opcode: 0000 [#1]
CPU: 0 PID: 77 Comm: mv Not tainted 6.1.192 #1
RIP: 0010:ovl_dentry_revalidate+0x0/0x1 [overlay]
Call Trace:
 <TASK>
 ? ovl_rename+0x1d/0x20 [overlay]
 </TASK>
---[ end trace 0000000000000000 ]---
"""


def test_a_miss_in_a_module_is_one_and_its_functions_are_no_strangers(tmp_path: Path) -> None:
    run = run_of("x86_64", tmp_path)
    name, place = "ovl_dentry_revalidate", "fs/overlayfs/overlay.o"
    row = {"symbol": name, "object": place, "section": f".text.{name}", "names": [name]}
    (run / "pruned/modules").mkdir(parents=True)
    value = {"schema_version": 1, "modules": {"overlay": [row]}}
    (run / "pruned/modules/tombstones.json").write_text(json.dumps(value))
    (found,) = decoded(IN_MODULE, run)
    assert said(found) == (name, place, "ovl_rename+0x1d") and not found.doubt
    assert (found.missed, found.outcome) == ("tombstone", "killed")
    (other,) = decoded(IN_MODULE.replace("[overlay]", "[other]"), run)
    assert not other.missed
