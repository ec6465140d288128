"""One kernel with all that hardening guides turn on, with ftrace in it: traced, pruned, proved, booted by two
processors and at random addresses, and its lines found by debuggers."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from prune.settings import load_settings
from prune.steps import Steps
from tests.kernel.runs import ROOT, kprune

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
HERE = Path(__file__).parent / "hardened"
BOOTS = 5


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hardened") / "run"
    kprune(
        "run", HERE, "--single-build", "--out", folder, "--trace-runs", "4", "--boots", str(BOOTS),
        "--heal-rounds", "6",
    )  # fmt: skip
    return folder


def code(vmlinux: Path) -> dict[str, int]:
    """Functions of one name -> address."""
    said = subprocess.run(["nm", vmlinux], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in said.splitlines()]
    found: dict[str, list[int]] = {}
    for address, kind, name in (row for row in rows if len(row) == 3):
        if kind in "tT":
            found.setdefault(name, []).append(int(address, 16))
    return {name: at[0] for name, at in found.items() if len(at) == 1}


def lines(vmlinux: Path, addresses: list[int]) -> list[str]:
    words = "\n".join(map(hex, addresses))
    return subprocess.run(
        ["addr2line", "-e", vmlinux], input=words, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_every_option_is_there(out: Path) -> None:
    asked = [*(ROOT / "examples/micro/hardened.config").read_text().splitlines()]
    config = (out / "base/.config").read_text().splitlines()
    assert [line for line in asked if line.startswith("CONFIG_") and line not in config] == []
    assert (out / "base/vmlinux").samefile(out / "traced/vmlinux") or (
        (out / "base/vmlinux").read_bytes() == (out / "traced/vmlinux").read_bytes()
    )


def test_it_shrinks_and_every_boot_runs_the_workload(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    assert report["pruned"]["text_bytes"] < 0.4 * report["base"]["text_bytes"]
    assert report["validation"]["verify"] == "ok"
    assert report["validation"]["passed"] == report["validation"]["boots"] == BOOTS
    variations = " ".join(each["variation"] for each in json.loads((out / "boots.json").read_text())["each"])
    assert "at a random address" in variations and "2 processors" in variations


def test_relocations_shrink_with_the_code(out: Path) -> None:
    """What the kernel adds to when it moves, as its own tool counts it (arch/x86/tools/relocs.c)."""
    tool = Steps(load_settings(out)).production.objtree / "arch/x86/tools/relocs"
    sizes = [
        len(subprocess.run([tool, out / side / "vmlinux"], capture_output=True, check=True).stdout)
        for side in ("base", "pruned")
    ]
    assert sizes[1] < 0.6 * sizes[0]


def test_debuggers_find_the_same_lines(out: Path) -> None:
    base, pruned = code(out / "base/vmlinux"), code(out / "pruned/vmlinux")
    # Pruned system calls share the address of the one that answers for them.
    names = [n for n in pruned if n in base and not n.startswith("__") and "." not in n][::7]
    assert len(names) > 1000
    there = lines(out / "base/vmlinux", [base[name] for name in names])
    here = lines(out / "pruned/vmlinux", [pruned[name] for name in names])
    assert [(n, a, b) for n, a, b in zip(names, there, here, strict=True) if a != b] == []
