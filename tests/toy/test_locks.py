"""Whether a lock is held is read from what real compilers make of taking it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from prune.elf import Rows
from prune.image import Image
from prune.knowledge import read_knowledge
from prune.lock_calls import make_locks
from prune.locks import called_locked, find_stops
from prune.policy import STOP, make_policies
from prune.tables import find_tables
from tests.conftest import image

from .toy import CFLAGS, SOURCES, TARGETS

UNDER = {
    "under", "tried", "wrapped", "deep", "retaken", "in_loop", "one_left", "spinning", "tail",
    "case_1", "case_2", "case_3", "case_4",
}  # fmt: skip


def made(arch: str, level: str, folder: Path) -> Image:
    compiled = folder / "locks.o"
    words = ["gcc", *CFLAGS, level, *TARGETS[arch].flags, "-c", SOURCES / "locks.c", "-o", compiled]
    subprocess.run(words, check=True)
    return image(folder, {"k/locks.o": compiled.read_bytes()}, knowledge=read_knowledge(arch))


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_what_is_called_under_a_lock_stops_and_nothing_else(arch: str, level: str, tmp_path: Path) -> None:
    found, keep, locked = followed(arch, level, tmp_path)
    stops = find_stops(found, keep, locked, ())
    names = {answer.function.removeprefix("cold_") for answer in stops.values()}
    # Where a table leads is anywhere in its function.
    assert names - {"behind_switch"} == UNDER
    assert {answer.on_miss for answer in stops.values()} == {STOP}


def test_what_a_policy_wants_to_trap_does(tmp_path: Path) -> None:
    found, keep, locked = followed("x86_64", "-Os", tmp_path)
    policies = make_policies([{"functions": ["cold_case_*"], "on_miss": "trap"}], "testing")
    stops = find_stops(found, keep, locked, policies)
    assert not any(answer.function.startswith("cold_case_") for answer in stops.values())
    assert len(stops) in (len(UNDER) - 4, len(UNDER) - 3)


def test_code_that_goes_does_not_count(tmp_path: Path) -> None:
    found, keep, locked = followed("x86_64", "-Os", tmp_path, without="goes_deeper")
    assert "deep" not in {answer.function for answer in find_stops(found, keep, locked, ()).values()}


def followed(arch: str, level: str, folder: Path, without: str = "") -> tuple[Image, Rows, Rows]:
    """The image, what stays of it, and what is called under a lock."""
    found = made(arch, level, folder)
    knowledge = read_knowledge(arch)
    keep = np.array([".text.cold_" not in name and name != f".text.{without}" for name in found.names])
    locks = make_locks(found, find_tables(found, knowledge), knowledge)
    return found, keep, called_locked(locks, keep)
