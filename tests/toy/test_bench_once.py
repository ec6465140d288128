"""What the bench measures of kprune makes the wrapper's vmlinux, and leaves the object tree alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from prune.guests.heal import healed_profile
from prune.linking.link import LINK_MAP
from prune.settings import Settings
from tracer.profiles.profile import KernelId, save_profile

from .toy import Toy


def _run_folder(toy: Toy, out: Path) -> Path:
    """As `kprune build` and `kprune trace` leave it, of a toy in which nothing ran."""
    Settings(toy.tree, out, free_boot=False).save()
    base = out / "base"
    base.mkdir()
    shutil.copy(toy.tree / "base.map", base / "vmlinux.map")
    shutil.copy(toy.tree / "link.json", base)
    # The toy's own vmlinux has no build id.
    identified = ["ld", "-r", "--build-id", "lib/two.o", "-o", base / "vmlinux"]
    subprocess.run(identified, cwd=toy.tree, check=True)
    profile = healed_profile((), KernelId("", "", "", ""), {})
    save_profile(replace(profile, workload_name="toy"), out / "profile.json")
    return out


def _files(tree: Path) -> dict[Path, int]:
    """Path -> when it was written, of what is not kprune's own."""
    return {path: path.stat().st_mtime_ns for path in tree.rglob("*") if ".kprune" not in path.parts}


def test_one_process_plans_and_links(toy: Toy, tmp_path: Path) -> None:
    out, into = _run_folder(toy, tmp_path / "out"), tmp_path / "into"
    before = _files(toy.tree)
    command = [sys.executable, "-m", "prune.bench.once", out, toy.tree, into, "x86_64"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert _files(toy.tree) == before
    for name in ("plan.json", LINK_MAP):
        shutil.copy(into / name, toy.tree / name)
    assert toy.link(plan=True).returncode == 0
    assert (into / "vmlinux").read_bytes() == (toy.tree / "vmlinux").read_bytes()
    assert len((into / "vmlinux").read_bytes()) < len((toy.tree / "base").read_bytes())
