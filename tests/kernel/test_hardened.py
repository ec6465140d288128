"""A kernel of each series with all that hardening guides turn on, with ftrace in it: traced, pruned, proved,
booted by two processors and at random addresses; debuggers find its lines, and no live patch what is gone."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from prune.run.steps import Steps
from prune.settings import load_settings
from tests.kernel.runs import ROOT, boot_with, kprune

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
HERE = Path(__file__).parent / "hardened"
BOOTS = 10


@dataclass(frozen=True)
class Series:
    """A kernel as ``--kernel`` takes it, and what its mitigations are called."""

    kernel: str
    mitigations: Path


MICRO = ROOT / "examples/micro"
SERIES = (
    Series("linux-source-6.1", MICRO / "mitigations.config"),
    Series("linux-source-6.12", MICRO / "mitigations-6.9.config"),
)


@pytest.fixture(scope="module", params=SERIES, ids=lambda each: each.kernel)
def series(request: pytest.FixtureRequest) -> Series:
    chosen: Series = request.param
    return chosen


@pytest.fixture(scope="module")
def out(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hardened") / "run"
    kprune(
        "run", HERE, "--kernel", series.kernel, "--fragment", series.mitigations, "--single-build",
        "--out", folder, "--trace-runs", "4", "--boots", str(BOOTS), "--heal-rounds", "12",
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


def test_every_option_is_there(out: Path, series: Series) -> None:
    asked = [
        line
        for file in (MICRO / "hardened.config", series.mitigations)
        for line in file.read_text().splitlines()
    ]
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
    if sizes[0] < 1000:
        pytest.skip("its build takes the relocations out of vmlinux (arch/x86/Makefile.postlink)")
    assert sizes[1] < 0.6 * sizes[0]


def test_debuggers_find_the_same_lines(out: Path) -> None:
    base, pruned = code(out / "base/vmlinux"), code(out / "pruned/vmlinux")
    # Pruned system calls share the address of the one that answers for them.
    names = [n for n in pruned if n in base and not n.startswith("__") and "." not in n][::7]
    assert len(names) > 1000
    there = lines(out / "base/vmlinux", [base[name] for name in names])
    here = lines(out / "pruned/vmlinux", [pruned[name] for name in names])
    assert [(n, a, b) for n, a, b in zip(names, there, here, strict=True) if a != b] == []


def test_a_live_patch_of_what_was_pruned_is_refused_by_name(out: Path, tmp_path: Path) -> None:
    rows = [line.split() for line in (out / "pruned/System.map").read_text().splitlines()]
    gone = [name for _, kind, name in rows if kind == "u" and len(name) == len("cmdline_proc_show")]
    more = f'[[app]]\nname = "refuse"\ncommand = "/root/repatch.sh {gone[0]}"\ntimeout = 60\n'
    assert f"symbol '{gone[0]}' not found in symbol table" in boot_with(out, HERE, more, tmp_path, smp=True)
