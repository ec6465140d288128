"""Runs of kprune for tests: the command, and copies of a finished run with another profile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prune.guests.boots import boot_once, read_pruned
from prune.settings import cache_folder, load_settings
from tracer.files.rootfs import Roots
from tracer.sessions.options import SessionOptions
from tracer.workloads.workload_file import load_workload

ROOT = Path(__file__).resolve().parents[2]
KPRUNE = Path(sys.executable).with_name("kprune")


def kprune(*words: str | Path, check: int | None = 0, env: dict[str, str] | None = None) -> Any:
    done = subprocess.run(
        [KPRUNE, *map(str, words)], capture_output=True, text=True, cwd=ROOT, check=False,
        env={**os.environ, **(env or {})},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, f"{words}: exit {done.returncode}\n{done.stderr[-4000:]}"
    return done


def until(says: str, *words: str | Path, check: int | None) -> Any:
    """The command once more, up to three times, until its standard error has what it ``says``: a boot ends at
    its first miss, and on a busy host that may be of something else, which it must name."""
    for _ in range(3):
        for folder in filter(Path.is_dir, (word for word in words if isinstance(word, Path))):
            (folder / ".stages/boot.json").unlink(missing_ok=True)  # or nothing would be done
        done = kprune(*words, check=check)
        if says in done.stderr:
            return done
        assert " missed " in done.stderr, f"{words}: {done.stderr[-4000:]}"
    raise AssertionError(f"{words}: nothing of {says!r} in {done.stderr[-4000:]}")


def edited_profile(out: Path, into: Path, change: Callable[[dict[str, Any]], None]) -> tuple[Path, Path]:
    """A copy of the run, and its profile with a change as a file of its own."""
    folder = shutil.copytree(out, into / "run")
    profile = json.loads((folder / "profile.json").read_text())
    change(profile)
    given = into / "given.json"
    given.write_text(json.dumps(profile))
    for healed in (folder / "heal.json", folder / "heal"):
        shutil.rmtree(healed) if healed.is_dir() else healed.unlink(missing_ok=True)
    return folder, given


def without(*symbols: str) -> Callable[[dict[str, Any]], None]:
    def change(profile: dict[str, Any]) -> None:
        profile["functions"] = [f for f in profile["functions"] if f["symbol"] not in symbols]

    return change


def boot_with(out: Path, workload: Path, more: str, into: Path, smp: bool = False) -> str:
    """Boot a run's pruned kernel once with ``more`` at the end of its workload; what its console said."""
    folder = shutil.copytree(workload, into / "workload")
    text = (folder / "workload.toml").read_text().replace("../../../", f"{ROOT}/")
    (folder / "workload.toml").write_text(text + more)
    made, kernel = load_workload(folder, load_settings(out).arch), read_pruned(out / "pruned", smp)
    root = Roots(made, into / "root", cache_folder()).of(kernel.image)
    boot = boot_once(made, kernel, root, SessionOptions(), 0, "", into / "boot")
    assert boot.problem == ""
    return (into / "boot/console.log").read_text()
