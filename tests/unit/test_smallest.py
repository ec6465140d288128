"""Healing on the way to the smallest memory: what is kept, what is undone, what is not healed at all."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from prune.folder import Folder
from prune.guests.heal import load_healed
from prune.guests.minram import Trial
from prune.guests.misses import Miss
from prune.run import passes, smallest
from prune.run.pipeline import Pipeline
from prune.run.smallest import Healer, _Guests

READ = Miss("vmstat_start", "mm/vmstat.o", ".text.vmstat_start", "seq_read_iter")
SHRINK = Miss("shrink_list", "mm/vmscan.o", ".text.shrink_list", "shrink_lruvec")
KILL = Miss("oom_badness", "mm/oom_kill.o", ".text.oom_badness", "out_of_memory")


class Run:
    """A run's folder, how often its kernel was linked, and guests that miss what ``missing`` has in turn."""

    def __init__(self, folder: Path, missing: list[tuple[Miss, ...] | BaseException]) -> None:
        self.folder, self.linked, self.missing = Folder(folder), 0, missing
        workload = SimpleNamespace(arch="x86_64")
        pipeline = SimpleNamespace(folder=self.folder, renew=self.renew, workload=workload)
        self.healer = Healer(cast(Pipeline, pipeline))
        self.guests = cast(
            Any, SimpleNamespace(healer=self.healer, healed=0, hopeless={}, load=lambda: None, _one=self.one)
        )

    def renew(self) -> None:
        self.linked += 1

    def one(self, memory: int, again: bool) -> tuple[Trial, tuple[Miss, ...]]:
        missed = self.missing.pop(0)
        if isinstance(missed, BaseException):
            raise missed
        return Trial(memory, f"missed {missed[0].function}" if missed else "", 1.0, again), missed

    def try_with(self, memory: int) -> Trial:
        return _Guests.try_with(self.guests, memory, False)

    @property
    def healed(self) -> list[str]:
        return [each.function for each in load_healed(self.folder.healed, "ab")]


@pytest.fixture(autouse=True)
def one_build(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (smallest, passes):
        monkeypatch.setattr(module, "build_id", lambda path: "ab")


def test_what_makes_it_serve_is_kept(tmp_path: Path) -> None:
    run = Run(tmp_path, [(READ,), (SHRINK,), ()])
    assert run.try_with(4096).fits
    assert (run.healed, run.linked) == (["vmstat_start", "shrink_list"], 2)


def test_what_does_not_is_undone_and_the_kernel_linked_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path, [(READ,), ()])
    assert run.try_with(8192).fits
    run.missing = [(SHRINK,), (SHRINK,)]
    trial = run.try_with(4096)
    assert not trial.fits and trial.final
    assert (run.healed, run.linked) == (["vmstat_start"], 3)
    assert "shrink_list: not kept, since it does not do all the same" in capsys.readouterr().err


def test_a_machine_with_no_memory_left_is_not_healed(tmp_path: Path) -> None:
    """What chooses a process to kill is some twenty functions, each of which would cost a link and a boot."""
    run = Run(tmp_path, [(KILL,)])
    assert not run.try_with(4096).fits
    assert (run.healed, run.linked) == ([], 0)


def test_nor_is_what_it_missed_before(tmp_path: Path) -> None:
    run = Run(tmp_path, [(SHRINK,), (KILL,)])
    assert run.try_with(4096).final
    assert (run.healed, run.linked) == ([], 2)


def test_a_search_that_is_ended_leaves_nothing_healed(tmp_path: Path) -> None:
    run = Run(tmp_path, [(READ,), ()])
    run.try_with(8192)
    run.missing = [(SHRINK,), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt):
        run.try_with(4096)
    assert run.healed == ["vmstat_start"]
