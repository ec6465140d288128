"""What the stages left in a run's folder, put together for the report and for repeating the run."""

from __future__ import annotations

from typing import Any

from prune.heal import load_healed
from prune.passes import Folder, read_result
from prune.settings import Settings
from prune.symbols import build_id
from tracer.host import file_hash


def validation(folder: Folder) -> dict[str, Any]:
    """``boots``, ``passed``, ``repeated``, ``misses``; ``verify`` is "ok", "failed" or "" for not run."""
    found: dict[str, Any] = {"boots": 0, "passed": 0, "repeated": 0, "misses": [], "verify": ""}
    if folder.boots.is_file():
        keys = ("boots", "passed", "repeated", "misses")
        boots = read_result(folder.boots, "boots", keys)
        found |= {key: boots[key] for key in keys}
    if folder.verdict.is_file():
        found["verify"] = "ok" if read_result(folder.verdict, "verdict", ("ok",))["ok"] else "failed"
    return found


def healing(folder: Folder) -> dict[str, Any]:
    """``rounds``, ``converged`` (the last boots missed nothing), ``added`` (function names)."""
    healed = load_healed(folder.healed, build_id(folder.base("vmlinux")))
    return {
        "rounds": max((each.round for each in healed), default=0),
        "converged": not validation(folder)["misses"],
        "added": [each.function for each in healed],
    }


def command_of(settings: Settings) -> list[str]:
    """The command that repeats a run."""
    paths = {"kernel": settings.kernel, "config": settings.config, "rules": settings.rules}
    return [
        "kprune", "run", str(settings.workload), "--out", str(settings.out), "--keep", settings.keep,
        "--sources", settings.sources, "--trace-runs", str(settings.trace_runs),
        "--boots", str(settings.boots), *([] if settings.heal else ["--no-heal"]),
        *(word for name, path in paths.items() if path for word in (f"--{name}", str(path))),
    ]  # fmt: skip


def file_hashes(folder: Folder) -> dict[str, str]:
    """File, relative to the folder -> SHA-256, of everything that a run leaves to be used."""
    names = ["profile.json", "heal.json", "plan.json"]
    names += [f"base/{name}" for name in ("vmlinux", "bzImage", ".config", "symbols.json")]
    names += [f"pruned/{name}" for name in ("vmlinux", "bzImage", "tombstones.json")]
    files = {name: folder.path(name) for name in names}
    return {name: file_hash(path) for name, path in files.items() if path.is_file()}
