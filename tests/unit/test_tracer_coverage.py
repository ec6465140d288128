"""Which runs a profile takes, what each saw, and the gdb client that causes the deliberate misses."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from tracer import gdb
from tracer.blocks import Blocks
from tracer.coverage import JITTER, Coverage, block_runs, first_touched, miss_runs, touched_from
from tracer.host import GuestLost, ValidationFailed
from tracer.session import Mark, SessionOptions, SessionResult
from tracer.symbols import Symbols, make_symbols
from tracer.workload import Workload, load_workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "micro"
PHASES = ("boot", "web", "shutdown")


def symbols(names: list[str]) -> Symbols:
    rows = [[0x100 * (i + 1), 0x80, "a.o", f".text.{n}", n, True] for i, n in enumerate(names)]
    return make_symbols("production", "id", rows)


def blocks(touches: list[tuple[int, int]]) -> Blocks:
    """One block of 4 bytes per (address, phase)."""
    starts = np.array([address for address, _ in touches], dtype=np.uint64)
    return Blocks(starts, starts + np.uint64(4), np.array([phase for _, phase in touches]), PHASES)


def test_first_phase_counts() -> None:
    known = symbols(["f", "g", "h"])
    ran = blocks([(0x100, 0), (0x110, 1), (0x200, 1), (0x220, 2)])
    first = first_touched(ran, known)
    assert {phase: flags.tolist() for phase, flags in first.items()} == {
        "boot": [True, False, False],
        "web": [False, True, False],
        "shutdown": [False, False, False],
    }
    # For a miss, a known function that goes on to a block that it never ran before counts.
    assert touched_from(ran, known, "web").tolist() == [True, True, False]


def test_runs_vary() -> None:
    workload = load_workload(EXAMPLE)
    plans = block_runs(workload, Path("bzImage"), Path("out"), len(JITTER) + 1)
    ways = {(plan.options.memory, plan.options.arguments) for plan in plans}
    assert len(ways) == len(JITTER)
    assert (workload.machine.memory, ()) in ways
    assert len({plan.options.block_log for plan in plans}) == len(plans)


def covered(workload: Workload, known: Symbols, ran: Blocks) -> Coverage:
    plan = block_runs(workload, Path("bzImage"), Path("out"), 1)[0]
    result = SessionResult("powered off", "", (Mark("boot", 0),), b"", 1.0, (), "")
    return Coverage(plan, result, first_touched(ran, known), 0)


def test_misses_are_caused_where_every_run_goes() -> None:
    workload = load_workload(EXAMPLE)
    known = symbols(["vfs_write", "ksys_write", "tick_periodic"])
    always = covered(workload, known, blocks([(0x200, 0), (0x300, 0)]))
    once = covered(workload, known, blocks([(0x100, 0), (0x200, 0), (0x300, 1)]))
    plans = miss_runs(workload, Path("bzImage"), Path("out"), known, [always, once])
    pokes = [plan.options.poke for plan in plans]
    assert [poke.address for poke in pokes if poke] == [0x200, 0x200, 0x300]
    assert [plan.options.oops_panic for plan in plans] == [True, False, False]
    nothing = covered(workload, known, blocks([]))
    with pytest.raises(ValidationFailed, match="causing miss-oops: none of"):
        miss_runs(workload, Path("bzImage"), Path("out"), known, [nothing])


def serve(path: Path, answers: dict[bytes, bytes], heard: list[bytes]) -> threading.Thread:
    """A gdbstub that says at once that the guest has halted, as QEMU's does."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def talk() -> None:
        with server:
            connection, _ = server.accept()
        with connection:
            connection.sendall(b"$T02thread:01;#d7")
            while data := connection.recv(4096):
                for packet in data.split(b"$")[1:]:
                    body = packet.partition(b"#")[0]
                    heard.append(body)
                    connection.sendall(b"+$" + answers[body[:1]] + b"#00")

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    return thread


def test_poke(tmp_path: Path) -> None:
    heard: list[bytes] = []
    thread = serve(tmp_path / "gdb", {b"M": b"OK", b"D": b"OK"}, heard)
    gdb.poke_memory(tmp_path / "gdb", 0xFFFFFFFF81000000, b"\xd6")
    thread.join(5)
    assert heard == [b"Mffffffff81000000,1:d6", b"D"]


def test_poke_where_nothing_is_mapped(tmp_path: Path) -> None:
    serve(tmp_path / "gdb", {b"M": b"E14", b"D": b"OK"}, [])
    with pytest.raises(GuestLost, match="not mapped"):
        gdb.poke_memory(tmp_path / "gdb", 0x1000, b"\xd6", tries=1)
    with pytest.raises(GuestLost, match="gdbstub"):
        gdb.poke_memory(tmp_path / "nobody", 0x1000, b"\xd6")


def test_a_session_is_strict_unless_told() -> None:
    assert SessionOptions().oops_panic
    assert not SessionOptions().expect_panic


def test_poke_that_ends_the_guest_at_once(tmp_path: Path) -> None:
    """QEMU closed the connection instead of answering the detach: the poke has worked all the same."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "gdb"))
    server.listen()

    def talk() -> None:
        with server:
            connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"+$OK#9a")
            while b"$D#" not in connection.recv(4096):
                pass

    threading.Thread(target=talk, daemon=True).start()
    gdb.poke_memory(tmp_path / "gdb", 0x1000, b"\xd6")
