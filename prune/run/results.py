"""What the stages left in a run's folder, put together for the report and for repeating the run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from prune.folder import Folder
from prune.guests.consoles import Said
from prune.guests.heal import load_healed, rounds
from prune.guests.memory import console_of, memory_after_boot, present
from prune.model.buildid import build_id
from prune.plan.plan_file import Plan
from prune.plan.policy import STOP
from prune.run.passes import read_result
from prune.settings import Settings
from tracer.host import file_hash
from tracer.profiles.profile import load_profile
from tracer.profiles.saturation import saturation


def validation(folder: Folder) -> dict[str, Any]:
    """``boots``, ``passed``, ``repeated``, ``misses``, ``answered``, ``console``; ``verify`` is "ok",
    "failed" or "" for not run."""
    found: dict[str, Any] = {
        "boots": 0,
        "passed": 0,
        "repeated": 0,
        "misses": [],
        "answered": [],
        "console": asdict(Said(0, 0)),
        "verify": "",
    }
    if folder.boots.is_file():
        keys = ("boots", "passed", "repeated", "misses", "answered")
        boots = read_result(folder.boots, "boots", keys)
        # Boots of an earlier kprune did not compare consoles, and their kernel is none the worse for it.
        found |= {key: boots[key] for key in (*keys, "console") if key in boots}
    if folder.verdict.is_file():
        found["verify"] = "ok" if read_result(folder.verdict, "verdict", ("ok",))["ok"] else "failed"
    return found


def healing(folder: Folder) -> dict[str, Any]:
    """``rounds`` that had something to heal, ``converged`` (every one of the last boots ran the whole
    workload), ``why`` not, and ``added``, what boots missed."""
    healed = load_healed(folder.healed, build_id(folder.base("vmlinux")))
    found = validation(folder)
    return {
        "rounds": rounds(healed),
        "converged": found["boots"] > 0 and found["passed"] == found["boots"],
        "why": _why_not(folder, found),
        "added": [asdict(each) for each in healed],
    }


def _why_not(folder: Folder, found: dict[str, Any]) -> str:
    if not found["boots"]:
        return "it was not booted"
    if found["misses"]:
        return "still missed: " + ", ".join(miss["function"] for miss in found["misses"])
    each = read_result(folder.boots, "boots", ("each",))["each"]
    failed = [boot for boot in each if boot["problem"]]
    return f"boot {failed[0]['number']} failed without a miss: {failed[0]['problem']}" if failed else ""


def counts(plan: Plan) -> dict[str, int]:
    """Units ``kept`` and ``dropped``; ``inferred``: kept because they may have run where nobody could see;
    ``carried``, with their bytes: because a profile of another build cannot say that they did not; ``stops``:
    functions that stop the machine when they are called."""
    inferred = sum(reason.startswith("inferred:") for reason in plan.reason)
    carried = [
        unit[2] for unit, why in zip(plan.units, plan.reason, strict=True) if why.startswith("carried:")
    ]
    return {
        "kept": int(plan.keep.sum()), "dropped": int((~plan.keep).sum()), "inferred": inferred,
        "carried": len(carried), "carried_bytes": sum(carried),
        "stops": sum(answer.on_miss == STOP for answer in plan.answers.values()),
    }  # fmt: skip


def knowledge(folder: Folder) -> dict[str, Any]:
    """What the profile is made of, and how complete it is: ``profile`` and ``saturation`` of the report."""
    profile = load_profile(folder.profile)
    # Runs of two builds are no sample of one: what the second names otherwise is not new.
    how = None if profile.moved_from else saturation(profile)
    stale = read_result(folder.stale, "stale profiles", ("stale",))["stale"]
    return {
        "profile": {
            "functions": len(profile.functions),
            "sources": list(profile.sources),
            "apps": list(profile.apps),
            "ambiguous": len(profile.ambiguous),
            "unmatched": len(profile.unmatched),
            "stale": stale,
        },
        "saturation": asdict(how) if how else None,
    }


def memory(folder: Folder) -> dict[str, int | None]:
    """Bytes that each kernel left for others when it had booted, by its own account, in machines of one size.

    ``machine``: that size, as the kernels see it, of the first traced run which shares it with a boot of the
    pruned kernel; of such boots the last counts. None each when there is no such pair.
    """
    boots = read_result(folder.boots, "boots", ("each",))["each"] if folder.boots.is_file() else []
    pruned = {}
    for boot in boots:
        console = console_of(folder.path(f"boot/{boot['number']}"))
        pruned[present(console)] = memory_after_boot(console)
    for number in range(1, len(list(folder.path("trace").glob("blocks-*"))) + 1):
        console = console_of(folder.path(f"trace/blocks-{number}"))
        machine = present(console)
        if machine is not None and machine in pruned:
            return {"base": memory_after_boot(console), "pruned": pruned[machine], "machine": machine}
    return {"base": None, "pruned": None, "machine": None}


def command_of(settings: Settings) -> list[str]:
    """The command that repeats a run."""
    paths = {
        "kernel": settings.kernel, "config": settings.config, "rules": settings.rules,
        "profile": settings.profile, "sleepers": settings.sleepers,
    }  # fmt: skip
    return [
        "kprune", "run", str(settings.workload), "--out", str(settings.out), "--keep", settings.keep,
        *(["--arch", settings.arch] if settings.arch else []),
        *(["--toolchain", settings.toolchain] if settings.toolchain != "gcc" else []),
        *(["--lto", settings.lto] if settings.lto != "none" else []),
        *(["--opt", settings.opt] if settings.opt != "config" else []),
        *(["--grain", settings.grain] if settings.grain != "function" else []),
        *(["--chance", settings.chance] if settings.chance != "blocks" else []),
        "--sources", settings.sources, "--quiet-runs", str(settings.quiet),
        *(["--trace-runs", str(settings.trace_runs)] if settings.trace_runs else []),
        *(["--accept-stale-profile"] if settings.accept_stale else []),
        *([] if settings.free_boot else ["--keep-boot"]),
        *(["--profile", "none"] if settings.static else []),
        *(["--tombstone-names"] if settings.named else []),
        "--boots", str(settings.boots), "--heal-rounds", str(settings.heal_rounds),
        *([] if settings.heal else ["--no-heal"]),
        *(word for name, path in paths.items() if path for word in (f"--{name}", str(path))),
    ]  # fmt: skip


def file_hashes(folder: Folder) -> dict[str, str]:
    """File, relative to the folder -> SHA-256, of everything that a run leaves to be used."""
    names = ["profile.json", "heal.json", "plan.json"]
    names += [f"base/{name}" for name in ("vmlinux", "bzImage", ".config", "symbols.json")]
    names += [f"pruned/{name}" for name in ("vmlinux", "bzImage", "tombstones.json")]
    files = {name: folder.path(name) for name in names}
    return {name: file_hash(path) for name, path in files.items() if path.is_file()}
