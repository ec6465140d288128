"""ftrace alone makes a kernel that boots and runs the workload, and a tight one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prune.plan.plan_file import load_plan

ROOT = Path(__file__).resolve().parents[2]
KPRUNE = Path(sys.executable).with_name("kprune")
pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with ftrace as the only source."""
    folder = tmp_path_factory.mktemp("ftrace") / "micro"
    done = subprocess.run(
        [KPRUNE, "run", "examples/micro", "--sources", "ftrace", "--trace-runs", "4", "--boots", "3",
         "--heal-rounds", "8", "--out", str(folder)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def executed(profile: dict[str, Any]) -> set[tuple[str, str]]:
    """What block coverage saw, but for what only the reporting of a miss runs."""
    return {
        (function["object"], function["section"])
        for function in profile["functions"]
        if any(seen["source"] == "blocks" and seen["app"] != "miss" for seen in function["seen"])
    }


def test_it_boots_and_runs_the_workload(traced: Path) -> None:
    report = json.loads((traced / "report.json").read_text())
    assert report["heal"]["converged"] is True
    assert report["validation"]["passed"] == report["validation"]["boots"] == 3


def test_one_boot_was_watched_without_a_gap(traced: Path) -> None:
    runs = json.loads((traced / "profile.json").read_text())["runs"]
    assert [run["source"] for run in runs if run["outcome"] == "powered off"].count("ftrace-boot") == 1
    assert not [run for run in runs if run["source"] == "blocks"]


def test_what_runs_is_kept_and_little_else(traced: Path, micro: Path) -> None:
    """Against block coverage of other runs of the same workload on the same kernel."""
    plan = load_plan(traced / "plan.json")
    truth = executed(json.loads((micro / "profile.json").read_text()))
    code = {
        (obj, section): size
        for (obj, section, size) in plan.units
        if section.startswith(".text.") and (obj, section) in truth
    }
    kept = {
        (obj, section): size
        for (obj, section, size), keep in zip(plan.units, plan.keep.tolist(), strict=True)
        if keep and section.startswith(".text.")
    }
    lost = code.keys() - kept.keys()
    assert len(lost) <= 0.005 * len(code), sorted(lost)
    assert sum(kept.values()) < 1.35 * sum(code.values())


def test_reasons_say_what_was_inferred(traced: Path) -> None:
    reasons = set(load_plan(traced / "plan.json").reason)
    assert {f"inferred: {why}" for why in (
        "cannot be traced, called by what ran", "early boot", "shutdown"
    )} <= reasons  # fmt: skip
    assert "inferred: boot" not in reasons
