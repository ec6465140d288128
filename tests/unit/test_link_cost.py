"""What a link costs is what the linker itself took, of every kind of linker."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from prune.measure.cost import Cost, program_cost
from prune.run.measuring import _cost_cells
from tests.unit.elfwriter import Section, write_elf
from tracer.host import BuildFailed, HostError


def test_the_peak_is_the_programs_own(tmp_path: Path) -> None:
    here = bytearray(200 << 20)  # this process is larger than what it measures
    here[::4096] = b"x" * len(here[::4096])
    command = [sys.executable, "-I", "-S", "-c", "x = bytearray(64 << 20); import time; time.sleep(0.2)"]
    cost = program_cost(command, doing="measuring", cwd=tmp_path)
    assert 64 << 20 < cost.peak_bytes < 128 << 20
    assert cost.seconds >= 0.2 and cost.cpu_seconds < cost.seconds


def test_a_program_counts_with_the_one_that_it_waits_for(tmp_path: Path) -> None:
    inner = "x = bytearray(64 << 20); import time; time.sleep(0.3)"
    outer = (
        f"import subprocess, sys; y = bytearray(64 << 20); subprocess.run([sys.executable, '-c', {inner!r}])"
    )
    cost = program_cost([sys.executable, "-c", outer], doing="measuring", cwd=tmp_path)
    assert cost.peak_bytes > 128 << 20


@pytest.mark.parametrize("linker", ["ld", "ld.lld"])
def test_both_linkers_are_measured(tmp_path: Path, linker: str) -> None:
    if not shutil.which(linker):
        pytest.skip(f"{linker} is not installed")
    (tmp_path / "a.o").write_bytes(write_elf([Section(".text")], []))
    cost = program_cost([linker, "-r", "-o", "b.o", "a.o"], doing="measuring", cwd=tmp_path)
    assert (tmp_path / "b.o").is_file()
    assert cost.seconds > 0 and cost.peak_bytes > 1 << 20


def test_a_program_that_fails_says_so(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"measuring: ld exited 1: .*no-such-file"):
        program_cost(["ld", "-o", "x", "no-such-file.o"], doing="measuring", cwd=tmp_path)
    with pytest.raises(HostError, match="measuring: no-such-linker is not there"):
        program_cost(["no-such-linker"], doing="measuring", cwd=tmp_path)


def test_steps_add_up_and_rounds_have_a_median() -> None:
    rounds = [Cost(1, 2, 30 << 20) + Cost(4, 5, 20), Cost(7, 7, 10 << 20), Cost(6, 7, 40 << 20)]
    assert rounds[0] == Cost(5, 7, 30 << 20)
    assert _cost_cells(rounds) == {
        "seconds": {"value": 6, "low": 5, "high": 7, "n": 3, "why": ""},
        "peak_mib": {"value": 30, "low": 10, "high": 40, "n": 3, "why": ""},
    }
