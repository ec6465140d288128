"""The stages, one function each, from files to files; :mod:`prune.pipeline` puts them in order.

This is the edge: here files are read and written and programs started. What is decided is decided in
the passes that these functions call.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from prune.callgraph import CallGraph, make_call_graph
from prune.heal import Healed, add_misses, load_healed, save_healed
from prune.image import Image, read_image
from prune.kbuild import KernelBuild, relink
from prune.knowledge import Knowledge, read_knowledge
from prune.link import LINK_MAP
from prune.linkmap import read_link_map
from prune.misses import Graveyard, Miss, executed_blocks, find_misses, read_graveyard
from prune.plan import Plan, make_plan, save_plan
from prune.rules import read_rules
from prune.script import named_symbols
from prune.settings import Settings, cache_folder
from prune.symbols import build_id, write_symbols
from prune.tables import find_tables
from prune.verify import Verdict, verify_image
from tracer.collect import CollectOptions, collect_profile
from tracer.collect import KernelBuild as TracedKernel
from tracer.host import (
    GuestFailed,
    GuestLost,
    UserError,
    ValidationFailed,
    read_json,
    say,
    whole_file,
    write_json,
)
from tracer.profile import Profile, load_profile, save_profile
from tracer.rootfs import build_initrd
from tracer.session import SessionOptions, run_session
from tracer.workload import Workload

SCHEMA = 1


@dataclass(frozen=True)
class Folder:
    """Where everything of one run lies."""

    out: Path

    def path(self, name: str) -> Path:
        return self.out / name

    @property
    def profile(self) -> Path:
        return self.out / "profile.json"

    @property
    def plan(self) -> Path:
        return self.out / "plan.json"

    @property
    def healed(self) -> Path:
        return self.out / "heal.json"

    @property
    def verdict(self) -> Path:
        return self.out / "verify.json"

    @property
    def boots(self) -> Path:
        return self.out / "boots.json"

    def base(self, name: str) -> Path:
        return self.out / "base" / name

    def traced(self, name: str) -> Path:
        return self.out / "traced" / name

    def pruned(self, name: str) -> Path:
        return self.out / "pruned" / name


@dataclass(frozen=True)
class Model:
    """The image of the production kernel with what is derived from it, read once when first needed."""

    folder: Folder
    objtree: Path
    arch: str

    @cached_property
    def knowledge(self) -> Knowledge:
        return read_knowledge(self.arch)

    @cached_property
    def image(self) -> Image:
        return read_image(self.objtree, read_link_map(self.folder.base("vmlinux.map")), self.knowledge)

    @cached_property
    def graph(self) -> CallGraph:
        return make_call_graph(self.image, find_tables(self.image, self.knowledge), self.knowledge)


def export(build: KernelBuild, into: Path, arch: str) -> None:
    """Copy a finished build's files into the run's folder, with the symbols that the tracer needs."""
    for name in ("vmlinux", "bzImage", "vmlinux.map", ".config", "link.json"):
        copy_whole(build.artefacts / name, into / name)
    knowledge = read_knowledge(arch)
    image = read_image(build.objtree, read_link_map(into / "vmlinux.map"), knowledge)
    write_symbols(image, build.flavour, build_id(into / "vmlinux"), into / "symbols.json")


def trace(settings: Settings, workload: Workload, folder: Folder) -> Profile:
    """Run the workload on both kernels and write ``profile.json``."""
    profile = collect_profile(
        workload,
        TracedKernel(folder.base("bzImage"), folder.base("symbols.json")),
        TracedKernel(folder.traced("bzImage"), folder.traced("symbols.json")),
        folder.path("trace"),
        cache_folder(),
        CollectOptions(runs=settings.trace_runs, sources=settings.sources),
    )
    save_profile(profile, folder.profile)
    return profile


def plan(settings: Settings, folder: Folder, model: Model) -> Plan:
    """Decide, and write ``plan.json`` with the base link map beside it."""
    profile = load_profile(folder.profile)
    identity = build_id(folder.base("vmlinux"))
    if profile.production_build_id != identity:
        raise UserError(
            f"making the plan: {folder.profile} is of build {profile.production_build_id[:12]}, "
            f"this kernel is {identity[:12]}",
            "trace this build: kprune trace",
        )
    script = model.objtree / json.loads(folder.base("link.json").read_text())["script"]
    made = make_plan(
        model.image,
        model.graph,
        _ran(profile),
        read_rules(settings.rules) if settings.rules else (),
        model.knowledge,
        build_id=identity,
        width=settings.keep,
        healed=_healed(load_healed(folder.healed, identity)),
        script_symbols=named_symbols(script.read_text()),
    )
    for rule in made.unused_rules:
        say(f"warning: keep rule {rule} matches nothing")
    save_plan(made, folder.plan)
    copy_whole(folder.base("vmlinux.map"), folder.path(LINK_MAP))
    return made


def _ran(profile: Profile) -> dict[tuple[str, str], str]:
    """(object, section) -> the apps that ran it and the sources that saw it, for the plan's reasons."""
    apps: dict[tuple[str, str], dict[str, None]] = {}
    sources: dict[tuple[str, str], set[str]] = {}
    for record in profile.functions:
        place = (record.object, record.section)
        apps.setdefault(place, {}).update(dict.fromkeys(seen.app for seen in record.seen))
        sources.setdefault(place, set()).update(seen.source for seen in record.seen)
    return {place: f"{', '.join(apps[place])} ({'+'.join(sorted(sources[place]))})" for place in apps}


def _healed(healed: Iterable[Healed]) -> dict[tuple[str, str], str]:
    return {(each.object, each.section): f"missed by a boot, called by {each.caller}" for each in healed}


def heal(folder: Folder) -> int:
    """Take the misses of the last boots over into ``heal.json``; how many were new."""
    identity = build_id(folder.base("vmlinux"))
    before = load_healed(folder.healed, identity)
    misses = read_result(folder.boots, "boots", ("misses",))["misses"]
    after = add_misses(before, [(m["function"], m["object"], m["section"], m["caller"]) for m in misses])
    if len(after) > len(before):
        save_healed(after, folder.healed, identity)
    return len(after) - len(before)


def link(build: KernelBuild, folder: Folder, plan_file: Path) -> None:
    """Let kbuild link the pruned kernel and its boot image into ``OUT/pruned``.

    What verify and boot said of the kernel before is not said of this one.
    """
    for stale in (folder.verdict, folder.boots):
        stale.unlink(missing_ok=True)
    relink(build, plan_file, folder.path("pruned"), folder.path("link.log"))


def verify(folder: Folder, objtree: Path, arch: str) -> Verdict:
    """Prove the pruned kernel and write ``verify.json``."""
    verdict = verify_image(
        folder.pruned("vmlinux"), folder.pruned("vmlinux.map"), folder.plan, folder.pruned("tombstones.json"),
        objtree, arch,
    )  # fmt: skip
    write_json(folder.verdict, {"schema_version": SCHEMA, **verdict.to_json()})
    return verdict


@dataclass(frozen=True)
class Boot:
    """One boot of the pruned kernel: ``problem`` is "" when the whole workload ran.

    ``repeated``: why it is the second try, "" for the first. An emulator on a busy host can hang a guest;
    a kernel that hangs does it again.
    """

    seconds: float
    problem: str
    exit_code: int
    misses: tuple[Miss, ...]
    repeated: str = ""


def boot_pruned(workload: Workload, folder: Folder, count: int) -> list[Boot]:
    """Boot the pruned kernel ``count`` times, run the workload, and write ``boots.json``.

    Raises:
        UserError: there is no pruned kernel.
    """
    graveyard = read_graveyard(folder.pruned("tombstones.json"))
    initrd = build_initrd(workload, folder.path("boot"), cache_folder())

    def boot(number: int) -> Boot:
        made = _boot_once(workload, folder, initrd, graveyard, folder.path(f"boot/{number}"))
        if made.exit_code == GuestLost.exit_code:
            say(f"boot {number} of {count}: once more, for {made.problem}")
            again = _boot_once(workload, folder, initrd, graveyard, folder.path(f"boot/{number}"))
            made = replace(again, repeated=made.problem)
        said = made.problem or f"ran the whole workload, powered off after {made.seconds:.1f} s"
        say(f"boot {number} of {count}: {said}")
        return made

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        boots = list(pool.map(boot, range(1, count + 1)))
    write_json(folder.boots, {"schema_version": SCHEMA, **summary(boots), "each": [asdict(b) for b in boots]})
    return boots


def _boot_once(workload: Workload, folder: Folder, initrd: Path, graveyard: Graveyard, into: Path) -> Boot:
    into.mkdir(parents=True, exist_ok=True)
    log = into / "misses.log"
    log.unlink(missing_ok=True)
    options = SessionOptions(block_log=log, block_filter=(graveyard.range,) if graveyard.stones else ())
    seconds, problem, code = 0.0, "", 0
    try:
        result = run_session(folder.pruned("bzImage"), initrd, workload, options, into)
        console, seconds = result.console, result.seconds
    except (GuestFailed, GuestLost, ValidationFailed) as error:
        problem, code, console = str(error), error.exit_code, getattr(error, "console", "")
    misses = find_misses(graveyard, executed_blocks(log.read_bytes() if log.is_file() else b""), console)
    if misses:
        problem, code = "missed " + "; ".join(map(str, misses[:5])), GuestFailed.exit_code
    return Boot(round(seconds, 2), problem, code, misses)


def summary(boots: list[Boot]) -> dict[str, Any]:
    """``boots``, ``passed``, ``repeated`` and ``misses`` as the report has them, a missed function once."""
    misses = {(miss.function, miss.object): miss for boot in boots for miss in boot.misses}
    return {
        "boots": len(boots),
        "passed": sum(not boot.problem for boot in boots),
        "repeated": sum(bool(boot.repeated) for boot in boots),
        "misses": [asdict(miss) for miss in misses.values()],
    }


def read_result(path: Path, what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """A result of an earlier stage, with at least these keys.

    Raises:
        UserError: missing or damaged, or of another kprune.
    """
    value: dict[str, Any] = read_json(path, what, SCHEMA)
    lost = [key for key in keys if key not in value]
    if lost:
        raise UserError(
            f"reading the {what}: {path} has no {', '.join(lost)}", "make it again with this kprune"
        )
    return value


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file under a name that it gets when it is complete."""
    try:
        with source.open("rb") as stream, whole_file(target, "wb") as copy:
            shutil.copyfileobj(stream, copy)
    except FileNotFoundError as error:
        raise UserError(f"copying {source}: it does not exist", "build first: kprune build") from error
