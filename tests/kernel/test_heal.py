"""Healing makes up for a poor profile: from a single run to boots under jitter that miss nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KPRUNE = Path(sys.executable).with_name("kprune")
pytestmark = pytest.mark.kernel
#: What timers do when a packet is late shows in one boot of several: a round finds one or two of such.
ROUNDS = "10"


def test_one_run_is_enough_to_begin_with(micro: Path, tmp_path: Path) -> None:
    """`make bench-heal` does the same with fifty boots to a round, and fifty more."""
    out = tmp_path / "out"
    for name in ("base", "traced"):
        shutil.copytree(micro / name, out / name)
    shutil.copy(micro / "run.json", out)
    for words in (("trace", "--trace-runs", "1"), ("heal", "--boots", "3", "--heal-rounds", ROUNDS)):
        done = subprocess.run([KPRUNE, *words, out], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads((out / "report.json").read_text())
    runs = json.loads((out / "trace" / "profile.json").read_text())["runs"]
    names = {run["name"] for run in runs if not run["name"].startswith("miss")}
    assert names == {"ftrace-1", "blocks-1"}
    assert report["heal"]["converged"] is True and report["heal"]["rounds"] <= int(ROUNDS)
    assert (report["validation"]["boots"], report["validation"]["misses"]) == (3, [])
    known = {f["symbol"] for f in json.loads((out / "profile.json").read_text())["functions"]}
    assert known >= {each["function"] for each in report["heal"]["added"]}
