"""What measuring a real pair of kernels gives: its shape, and numbers that can be true; no speed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prune.grid.grid import SPEEDS, Column, make_column
from prune.measure.cell import Cell, read_cell
from prune.run.measuring import measured_rows, take_turns
from prune.run.passes import read_result
from prune.run.pipeline import Pipeline
from prune.settings import load_settings
from tracer.sessions.measure import measure
from tracer.workloads.workload_file import load_workload

pytestmark = pytest.mark.kernel
KEYS = {"requests_per_second", "latency_p50_ms", "latency_p99_ms", "hello_seconds", "ready_seconds"}


@pytest.fixture(scope="module")
def pipeline(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Over a copy of the run: measuring leaves files."""
    out = tmp_path_factory.mktemp("measure") / "micro"
    shutil.copytree(micro, out)
    return Pipeline(load_settings(out))


def test_two_turns_of_the_pair(pipeline: Pipeline) -> None:
    """Of a kernel and itself: under a load that nobody traced, a pruned one may miss something."""
    image = pipeline.folder.pruned("bzImage")
    whole, pruned = pipeline.folder.base("bzImage").read_bytes(), image.read_bytes()
    image.write_bytes(whole)
    take_turns(pipeline, turns=2, seconds=0.5)
    image.write_bytes(pruned)
    found = read_result(pipeline.folder.path("speed.json"), "speed", ("base", "pruned", "ratio", "turns"))
    assert found["misses"] == []
    assert len(found["turns"]) == 2 and all(len(seen["windows"]) == 2 for seen in found["turns"][0])
    for side in ("base", "pruned", "ratio"):
        assert set(found[side]) == KEYS
        for cell in map(read_cell, found[side].values()):
            assert cell.value and cell.value > 0 and cell.n == 2
    for seen in (seen for turn in found["turns"] for seen in turn):
        assert 0 < seen["hello"] <= seen["ready"] < 60
        # Whole rounds of the ten requests of get.py.
        assert all(window["requests"] % 10 == 0 for window in seen["windows"])
    ratio = read_cell(found["ratio"]["requests_per_second"])
    assert ratio.low is not None and ratio.high is not None
    assert ratio.low < ratio.value < ratio.high
    report = json.loads(pipeline.folder.path("report.json").read_text())
    rows = measured_rows(pipeline, report, found)
    cells = make_column(Column("pruned (gcc)", "gcc", "pruned"), report, None, rows["pruned"])
    assert cells["requests per second, of its base"] == ratio
    assert all(cells[row].value for row in (*SPEEDS, "link, s"))
    assert rows["base"]["boot to ready, of its base"] == Cell(None, "is the base")
    for side in ("base", "pruned"):  # The linker holds the whole image, and is no Python.
        peak = rows[side]["link peak memory, MiB"].value
        size = pipeline.folder.path(side).joinpath("vmlinux").stat().st_size >> 20
        assert peak and size < peak < 1024


def test_a_kernel_that_cannot_boot_is_named(pipeline: Pipeline, tmp_path: Path) -> None:
    """With a command line on which no kernel comes far; the first to boot is to blame."""
    folder = tmp_path / "workload"
    shutil.copytree(pipeline.workload.folder, folder)
    toml = (folder / "workload.toml").read_text()
    (folder / "workload.toml").write_text(
        toml.replace('memory = "128M"', 'memory = "128M"\ncmdline = "rdinit=/nothing init=/nothing"')
    )
    kernels = (pipeline.folder.base("bzImage"), pipeline.folder.pruned("bzImage"))
    initrd = next(pipeline.folder.out.rglob("initrd.cpio"))
    found = measure(kernels, (initrd, initrd), load_workload(folder), 2, 0.5, tmp_path / "out")
    assert (found.turns, found.side) == ((), 0)
    assert "panic" in str(found.error)
