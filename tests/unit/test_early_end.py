"""A guest that missed something is not waited for as long; nothing else in the block log ends it early."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tracer.host import UserError
from tracer.machines.vm import RESET, Vm, VmOptions
from tracer.outcome import RootTooLarge
from tracer.phase_names import START
from tracer.sessions.options import Mark, SessionOptions
from tracer.sessions.session import Session
from tracer.workloads.workload_file import load_workload

MICRO = Path(__file__).parents[2] / "examples/micro"


def session(log: Path, **more: Any) -> Session:
    vm = Vm.__new__(Vm)
    vm.options = VmOptions(0, block_log=log)
    return Session(vm, load_workload(MICRO), SessionOptions(grace=20, **more), {})


def block(address: int) -> bytes:
    return b"----------------\nIN: \n0x%016x:  d6   .byte 0xd6\n0x%016x:  90   nop\n\n" % (
        address,
        address + 1,
    )


def waits(of: Session) -> bool:
    return of.missed_deadline() == float("inf")


def test_only_a_tombstone_counts(tmp_path: Path) -> None:
    """By the block, the filter's range is all of the text: what ran in it was taken for a miss, and a guest
    that needed more than 20 seconds was called hung."""
    log = tmp_path / "misses.log"
    of = session(log, block_filter=((0x1000, 0x1000),), misses=frozenset({0x1800}))
    assert waits(of)
    log.write_bytes(block(0x1100) + block(0x17FF))
    assert waits(of) and waits(of)
    log.write_bytes(log.read_bytes() + block(0x1200) + block(0x1800))
    assert not waits(of)


@pytest.mark.parametrize("cut", range(1, len(block(0x1800))))
def test_an_entry_that_is_written_in_two_goes_is_read(tmp_path: Path, cut: int) -> None:
    log = tmp_path / "misses.log"
    of = session(log, misses=frozenset({0x1800}))
    whole = block(0x1100) + block(0x1800)
    log.write_bytes(whole[: len(block(0x1100)) + cut])
    waits(of)
    log.write_bytes(whole)
    assert not waits(of)


def test_what_is_freed_counts_once_it_is(tmp_path: Path) -> None:
    log = tmp_path / "misses.log"
    log.write_bytes(block(0x3000))
    of = session(log, boot_ends=(0x10,), freed=((0x3000, 0x30FF), (0x3200, 0x32FF)))
    assert waits(of)
    of.marks.append(Mark(START, len(log.read_bytes())))
    # Of 32 bit, free_initmem() begins with init code that lies between units of ours: that is no miss.
    log.write_bytes(log.read_bytes() + block(0x3100) + block(0x31FF))
    assert waits(of)
    log.write_bytes(log.read_bytes() + block(0x30FF))
    assert not waits(of)


def test_without_a_log_nobody_waits_for_one() -> None:
    of = session(Path("/nowhere"))
    cast("Any", of).vm = SimpleNamespace()
    assert waits(of)


SAID = "Linux version 6.12\nInitramfs unpacking failed: write error\nFreeing initrd memory: 200964K\n"


def test_a_root_file_system_without_room_is_named_though_the_agent_speaks() -> None:
    """An app was not found, which was behind the agent in the archive."""
    of = session(Path("/nowhere"))
    vm = SimpleNamespace(console_text=lambda: SAID)
    cast("Any", of).vm = vm
    cast("Any", of).take_lines = lambda: ["hello 1 Linux version 6.12"]
    with pytest.raises(UserError, match="does not fit into the guest's memory") as caught:
        of.expect_hello()
    assert caught.value.exit_code == 2 and "more memory" in str(caught.value)
    vm.console_text = lambda: "Linux version 6.12\n"
    assert of.expect_hello() == "Linux version 6.12"


def test_so_it_is_when_there_is_no_agent() -> None:
    of = session(Path("/nowhere"))
    panic = "Kernel panic - not syncing: No working init found.\n"
    cast("Any", of).vm = SimpleNamespace(console_text=lambda: SAID + panic, ending=RESET, ended_at=())
    assert isinstance(_gone(of), RootTooLarge)


def _gone(of: Session) -> Exception:
    try:
        return of.gone()
    except RootTooLarge as error:
        return error
