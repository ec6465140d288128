"""Cold blocks of functions that stay, taken out of a real kernel that then runs its workload."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prune.guests.graveyard import read_graveyard
from prune.guests.held_out import ENOSYS
from prune.ledger.ledger import COLUMNS
from prune.plan.plan_file import load_plan
from prune.settings import CHANCES

KPRUNE = Path(sys.executable).with_name("kprune")
pytestmark = pytest.mark.kernel


def kprune(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KPRUNE, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def trimmed(micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of examples/micro, pruned again by the block from the same trace, and healed."""
    out = tmp_path_factory.mktemp("blocks") / "out"
    for name in ("base", "traced", "trace"):
        shutil.copytree(micro / name, out / name)
    for name in ("run.json", "heal.json"):
        if (micro / name).is_file():
            shutil.copy(micro / name, out)
    done = kprune("heal", "--grain", "block", "--boots", "3", "--heal-rounds", "15", out)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def report_of(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "report.json").read_text())
    return value


def test_it_runs_the_whole_workload_and_is_proved(trimmed: Path) -> None:
    report = report_of(trimmed)
    assert report["heal"]["converged"] is True
    assert report["validation"]["passed"] == report["validation"]["boots"] == 3
    assert report["validation"]["verify"] == "ok"
    blocks = next(
        c for c in json.loads((trimmed / "verify.json").read_text())["checks"] if c["name"] == "blocks"
    )
    assert blocks["checked"] > 10_000


def test_an_eighth_of_what_whole_functions_leave_goes(micro: Path, trimmed: Path) -> None:
    before, after = report_of(micro)["pruned"], report_of(trimmed)["pruned"]
    assert after["text_bytes"] < 0.875 * before["text_bytes"]
    assert after["resident_text_bytes"] < 0.9 * before["resident_text_bytes"]
    assert after["rodata_bytes"] < before["rodata_bytes"]


def test_who_leaves_less_to_chance_keeps_more(trimmed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trimmed, out)
    left = []
    for chance in CHANCES:
        done = kprune("plan", out, "--chance", chance)
        assert done.returncode == 0, done.stderr[-4000:]
        assert json.loads((out / "run.json").read_text())["chance"] == chance
        plan = load_plan(out / "plan.json")
        functions = {unit[:2]: unit[2] for unit, keep in zip(plan.units, plan.keep, strict=True) if keep}
        cold = sum(end - begin for ranges in plan.cold.values() for begin, end in ranges)
        left.append((set(functions), sum(functions.values()) - cold))
    assert left[0][0] >= left[1][0] > left[2][0]
    assert left[0][1] > left[1][1] > left[2][1]


def test_a_pruned_system_call_answers(trimmed: Path, tmp_path: Path) -> None:
    """Its case is a cold block of the function that leads to system calls; a program that nobody profiled was
    killed for it."""
    out = tmp_path / "out"
    shutil.copytree(trimmed, out)
    listed = tmp_path / "programs.toml"
    listed.write_text('schema_version = 1\n\n[[program]]\nname = "renice"\ncommand = "renice 5 $$"\n')
    done = kprune("holdout", out, "--programs", listed, "--json")
    assert done.returncode == 0, done.stderr[-4000:]
    (fate,) = json.loads(done.stdout)["kernels"][0]["fates"]
    assert fate["outcome"] == ENOSYS and "not implemented" in fate["differs"][1]


def test_the_ledger_says_what_cold_blocks_were(trimmed: Path) -> None:
    value = json.loads((trimmed / "ledger.json").read_text())
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in value["rows"]]
    report = report_of(trimmed)
    text = sum(row["pruned"] for row in rows if row["kind"] in ("text", "tombstones"))
    assert report["pruned"]["text_bytes"] == text
    assert report["block_traps"] == len(read_graveyard(trimmed / "pruned" / "tombstones.json").offsets)
    lost = sum(row["base"] - row["pruned"] for row in rows if row["removed_by"] == "cold blocks")
    plan = load_plan(trimmed / "plan.json")
    cold = sum(end - begin for ranges in plan.cold.values() for begin, end in ranges)
    traps = len(read_graveyard(trimmed / "pruned" / "tombstones.json").offsets)
    assert lost == cold - traps > 100_000


def test_a_cold_block_that_is_asked_for_is_told_by_function_and_place(trimmed: Path, tmp_path: Path) -> None:
    """The plan takes the way out of vfs_read that every read takes."""
    out = tmp_path / "out"
    shutil.copytree(trimmed, out)
    profile = json.loads((out / "profile.json").read_text())
    record = next(f for f in profile["functions"] if f["symbol"] == "ksys_read")
    last = record["ran"][-1]
    assert last > 40
    # What ran is said to end with the first block.
    record["ran"] = [0, record["ran"][1] // 2]
    (out / "one.json").write_text(json.dumps(profile))
    shutil.rmtree(out / "heal", ignore_errors=True)
    done = kprune("plan", "--profile", out / "one.json", out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert kprune("link", out).returncode == 0
    done = kprune("boot", "--boots", "1", out)
    assert done.returncode == 5
    assert "missed ksys_read+0x" in done.stderr and "fs/read_write.o" in done.stderr


def test_why_says_what_went(trimmed: Path) -> None:
    plan = load_plan(trimmed / "plan.json")
    (obj, section), ranges = max(plan.cold.items(), key=lambda item: sum(e - b for b, e in item[1]))
    said = json.loads(kprune("why", f"{obj}:{section}", trimmed, "--json").stdout)
    assert said[0]["cold"] == [list(each) for each in ranges]
    done = kprune("why", f"{obj}:{section}", trimmed)
    assert "bytes of cold blocks" in done.stdout


def test_without_block_coverage_it_is_refused(trimmed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(trimmed, out)
    profile = json.loads((out / "profile.json").read_text())
    for function in profile["functions"]:
        function["ran"] = []
    (out / "none.json").write_text(json.dumps(profile))
    shutil.rmtree(out / "heal", ignore_errors=True)
    done = kprune("plan", "--profile", out / "none.json", out)
    assert done.returncode == 2
    assert "does not say which blocks of this build ran" in done.stderr
