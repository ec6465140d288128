"""Which runs a profile takes, what each saw, and the gdb client that causes the deliberate misses."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tracer.collecting.blocks import Blocks
from tracer.collecting.coverage import Coverage, block_run, miss_runs, touched, touched_from, what_moving_adds
from tracer.host import GuestLost, ValidationFailed
from tracer.machines import gdb
from tracer.profiles.symbols import Symbols, make_symbols
from tracer.sessions.jitter import MEMORY, SLOWNESS, jitter
from tracer.sessions.options import Mark, SessionOptions
from tracer.sessions.runner import SessionResult
from tracer.workloads.workload import Workload
from tracer.workloads.workload_file import load_workload

EXAMPLE = Path(__file__).parents[2] / "examples" / "micro"
PHASES = ("boot", "web", "shutdown")


def symbols(names: list[str]) -> Symbols:
    rows = [[0x100 * (i + 1), 0x80, "a.o", f".text.{n}", n, True] for i, n in enumerate(names)]
    return make_symbols("production", "id", rows)


def blocks(touches: list[tuple[int, int]]) -> Blocks:
    """One block of 4 bytes per (address, phase)."""
    starts = np.array([address for address, _ in touches], dtype=np.uint64)
    return Blocks(starts, starts + np.uint64(4), np.array([phase for _, phase in touches]), PHASES)


def test_every_phase_has_what_ran_in_it() -> None:
    known = symbols(["f", "g", "h"])
    ran = blocks([(0x100, 0), (0x110, 1), (0x200, 1), (0x220, 2)])
    by_phase = touched(ran, known)
    assert {phase: flags.tolist() for phase, flags in by_phase.items()} == {
        "boot": [True, False, False],
        "web": [True, True, False],
        "shutdown": [False, True, False],
    }
    # For a miss, a known function that goes on to a block that it never ran before counts.
    assert touched_from(ran, known, "web").tolist() == [True, True, False]


def test_runs_vary_and_the_first_is_the_workload_as_written() -> None:
    workload = load_workload(EXAMPLE)
    plans = [block_run(workload, Path("k"), Path(f"out/{n}"), n, False) for n in range(42)]
    assert plans[0].options.memory == workload.machine.memory
    assert plans[0].options.arguments == () and plans[0].options.seed == 0
    ways = {(plan.options.memory, plan.options.arguments) for plan in plans}
    assert len(ways) == len(set(SLOWNESS)) * len(set(MEMORY))
    assert all(plan.options.memory >= workload.machine.memory for plan in plans)
    assert len({plan.options.block_log for plan in plans}) == len(plans)
    assert len({plan.options.seed for plan in plans}) == len(plans)


def test_two_processors_only_when_the_kernel_can_use_them() -> None:
    assert {jitter(n, False).cpus for n in range(24)} == {1}
    speeds = {(jitter(n, True).cpus, jitter(n, True).slowness) for n in range(24)}
    assert speeds == {(1, slowness) for slowness in SLOWNESS} | {(2, None)}
    assert {jitter(n, True).cpus for n in range(len(SLOWNESS))} == {1, 2}
    assert jitter(0, True).cpus == 1
    assert [jitter(n, False, 5).slowness for n in range(6)] == [None, 5, None, 4, 0, 5]


def test_several_processors_of_the_workloads_own() -> None:
    runs = [jitter(n, True, cpus=4) for n in range(24)]
    assert {(run.cpus, run.slowness is None) for run in runs} == {(4, True), (1, False)}
    assert runs[0] == replace(jitter(0, False), cpus=4)
    in_turns = [run for run in runs if run.single]
    assert {run.cpus for run in in_turns} == {4} and len(in_turns) < sum(run.cpus == 4 for run in runs)
    workload = load_workload(EXAMPLE)
    for run in in_turns:
        options = run.apply(SessionOptions(), workload)
        assert options.single and "4 processors in turns" in run.describe(options, workload)
    # A kernel that cannot use them gets none.
    assert {jitter(n, False, cpus=4).cpus for n in range(24)} == {1}


def test_a_seed_varies_the_order_of_apps_where_any_will_do() -> None:
    workload = load_workload(EXAMPLE)
    assert workload.any_order
    assert workload.ordered_apps(0) == list(enumerate(workload.apps))
    orders = {tuple(number for number, _ in workload.ordered_apps(seed)) for seed in range(1, 20)}
    assert len(orders) > 10 and all(sorted(order) == list(range(len(workload.apps))) for order in orders)
    fixed = replace(workload, any_order=False)
    assert fixed.ordered_apps(3) == fixed.ordered_apps(0)


def covered(workload: Workload, known: Symbols, ran: Blocks) -> Coverage:
    plan = block_run(workload, Path("bzImage"), Path("out/run"), 0, False)
    result = SessionResult("powered off", "", (Mark("boot", 0),), b"", 1.0, (), "")
    return Coverage(plan, result, touched(ran, known), ran.executed_by(0), 0)


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


def test_what_a_moved_kernel_ran_in_boot_is_not_for_booting_alone_unless_others_saw_it() -> None:
    workload = load_workload(EXAMPLE)
    known = symbols(["booted", "random", "later"])
    fixed = covered(workload, known, blocks([(0x100, 0), (0x300, 1)]))
    moved = covered(workload, known, blocks([(0x300, 1)]))
    ran = {"start": np.array([True, True, False]), **moved.ran}
    found = what_moving_adds(replace(moved, ran=ran), [fixed]).ran
    assert found["start"].tolist() == [False, True, False]
    assert found["web"].tolist() == [False, False, True]


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


def test_translations_are_flushed_by_one_step(tmp_path: Path) -> None:
    heard: list[bytes] = []
    serve(tmp_path / "gdb", {b"Q": b"OK", b"s": b"T05thread:01;", b"D": b"OK"}, heard)
    with gdb.attached(tmp_path / "gdb") as client:
        client.flush_translations()
    assert heard == [b"Qqemu.sstep=1", b"s", b"D"]
