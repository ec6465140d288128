"""Whether a lock is held is read from what real compilers make of taking it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.model.callgraph import make_call_graph
from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.knowledge import read_knowledge
from prune.model.lock_calls import make_locks
from prune.model.tables import find_tables
from prune.plan.held import held_through
from prune.plan.policy import STOP, make_policies
from prune.plan.stops import find_stops
from tests.conftest import image

from .toy import CFLAGS, SOURCES, TARGETS

UNDER = {
    "under", "tried", "wrapped", "deep", "retaken", "in_loop", "one_left", "spinning", "tail",
    "case_1", "case_2", "case_3", "case_4", "led_1", "led_2", "led_3", "led_4",
}  # fmt: skip


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
@pytest.mark.parametrize("flags", [(), ("-DSHARED",)])
def test_what_is_called_under_a_lock_stops_and_nothing_else(
    arch: str, level: str, flags: tuple[str, ...], tmp_path: Path
) -> None:
    found, keep, locked = followed(tmp_path, level, *flags, arch=arch)
    assert (".sched.text" in found.names) is bool(flags)
    stops = find_stops(found, keep, locked, ())
    names = {answer.function.removeprefix("cold_") for answer in stops.values()}
    # A lock that is released by a store is held to the end.
    assert names == {*UNDER, "spun"}
    assert {answer.on_miss for answer in stops.values()} == {STOP}


def test_where_spin_locks_are_released_by_calls_these_count(tmp_path: Path) -> None:
    found, keep, locked = followed(tmp_path, "-Os", "-DVISIBLE")
    names = {answer.function for answer in find_stops(found, keep, locked, ()).values()}
    assert "cold_spinning" in names and "cold_spun" not in names


def test_what_a_policy_wants_to_trap_does(tmp_path: Path) -> None:
    found, keep, locked = followed(tmp_path, "-Os")
    policies = make_policies([{"functions": ["cold_case_*"], "on_miss": "trap"}], "testing")
    names = {answer.function for answer in find_stops(found, keep, locked, policies).values()}
    assert "cold_under" in names and not any(name.startswith("cold_case_") for name in names)


def test_code_that_goes_does_not_count(tmp_path: Path) -> None:
    found, keep, locked = followed(tmp_path, "-Os", without="goes_deeper")
    names = {answer.function for answer in find_stops(found, keep, locked, ()).values()}
    assert "cold_under" in names and "cold_deep" not in names


@pytest.mark.parametrize("arch", TARGETS)
def test_what_a_table_has_called_under_a_lock_stops(arch: str, tmp_path: Path) -> None:
    """A program asked for memory at a place (MAP_32BIT); what finds it was gone. The task was killed under
    its own mmap_lock, and waited for that for ever."""
    compiled = tmp_path / "through.o"
    words = ["gcc", *CFLAGS, *TARGETS[arch].flags, "-c", SOURCES / "through.c", "-o", compiled]
    subprocess.run(words, check=True)
    knowledge = read_knowledge(arch)
    found = image(tmp_path, {"fs/through.o": compiled.read_bytes()}, knowledge=knowledge)
    tables = find_tables(found, knowledge)
    keep = np.array(
        [
            not name.startswith(".text.") or name in (".text._start", ".text.toy_lookup")
            for name in found.names
        ]
    )
    held = held_through(found, make_call_graph(found, tables, knowledge), knowledge)
    sleeping, spinning = make_locks(found, tables, knowledge).entered(keep, held)
    assert not spinning.any()
    assert {answer.function for answer in find_stops(found, keep, sleeping, ()).values()} == {
        "by_lookup", "toy_unlink", "toy_fault", "toy_mmap", "arch_get_unmapped_area", "toy_rtm_newaddr",
        "toy_newlink",
    }  # fmt: skip


def followed(folder: Path, *flags: str, arch: str = "x86_64", without: str = "") -> tuple[Image, Rows, Rows]:
    """The image of locks.c, what stays of it, and what is called under a lock."""
    compiled = folder / "locks.o"
    words = ["gcc", *CFLAGS, *flags, *TARGETS[arch].flags, "-c", SOURCES / "locks.c", "-o", compiled]
    subprocess.run(words, check=True)
    knowledge = read_knowledge(arch)
    found = image(folder, {"k/locks.o": compiled.read_bytes()}, knowledge=knowledge)
    keep = np.array([".text.cold_" not in name and name != f".text.{without}" for name in found.names])
    sleeping, spinning = make_locks(found, find_tables(found, knowledge), knowledge).entered(keep)
    return found, keep, sleeping | spinning
