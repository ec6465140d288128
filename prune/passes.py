"""The stages, one function each, from files to files; :mod:`prune.pipeline` puts them in order.

This is the edge: here files are read and written and programs started. What is decided is decided in
the passes that these functions call.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from prune.boots import Boot, boot_pruned, read_pruned, summary
from prune.callgraph import CallGraph, make_call_graph
from prune.carried import uncertain
from prune.closure import SEES_ALL, infer, watched
from prune.config import options_hash
from prune.evidence import boot_phases, knows_blocks, missed_units, ran_units
from prune.folder import Folder
from prune.functions import Functions, make_functions
from prune.grain import may_lose_blocks
from prune.heal import Healed, add_misses, load_healed, save_healed
from prune.image import Image, read_image
from prune.kbuild import KernelBuild, relink
from prune.knowledge import Knowledge, read_knowledge
from prune.ledger import Ledger
from prune.link import LINK_MAP, PREPARED, prepare
from prune.linkmap import read_link_map
from prune.misses import Miss
from prune.page import make_page
from prune.page_data import page_data
from prune.plan import SMALL, make_plan
from prune.plan_file import Plan, save_plan
from prune.profiling import carried, is_smp
from prune.rules import read_rules
from prune.script import named_symbols
from prune.settings import Settings
from prune.symbols import build_id, write_symbols
from prune.tables import Tables, find_tables
from prune.trim import Range, find_cold, trim
from prune.verify import Verdict, verify_image
from tracer.host import (
    UserError,
    file_hash,
    read_json,
    say,
    whole_file,
    write_json,
)
from tracer.phases import sleepers
from tracer.profile import Profile, load_profile
from tracer.workload import Workload

SCHEMA = 1


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
    def tables(self) -> Tables:
        return find_tables(self.image, self.knowledge)

    @cached_property
    def graph(self) -> CallGraph:
        return make_call_graph(self.image, self.tables, self.knowledge)

    @cached_property
    def functions(self) -> Functions:
        return make_functions(self.image, self.tables, self.knowledge)


def export(build: KernelBuild, into: Path, arch: str) -> None:
    """Copy a finished build's files into the run's folder, with the symbols that the tracer needs."""
    for name in ("vmlinux", "bzImage", "vmlinux.map", ".config", "link.json"):
        copy_whole(build.artefacts / name, into / name)
    knowledge = read_knowledge(arch)
    image = read_image(build.objtree, read_link_map(into / "vmlinux.map"), knowledge)
    identity = {
        "build_id": build_id(into / "vmlinux"), "config": file_hash(into / ".config"),
        "source": build.source.content_hash, "version": build.source.version,
        "options": options_hash(into / ".config"),
    }  # fmt: skip
    write_symbols(image, build.flavour, identity, into / "symbols.json")


def plan(settings: Settings, folder: Folder, model: Model) -> Plan:
    """Decide, and write ``plan.json`` with the base link map beside it."""
    made = decide(settings, folder, model, load_profile(folder.profile))
    for rule in made.unused_rules:
        say(f"warning: keep rule {rule} matches nothing")
    save_plan(made, folder.plan)
    copy_whole(folder.base("vmlinux.map"), folder.path(LINK_MAP))
    return made


def decide(settings: Settings, folder: Folder, model: Model, profile: Profile) -> Plan:
    """The plan for a profile."""
    # Who saw a boot through ftrace alone has seen too little of it to take init code apart.
    sees_all = bool(SEES_ALL & set(profile.sources))
    script = model.objtree / json.loads(folder.base("link.json").read_text())["script"]
    script_symbols = named_symbols(script.read_text())
    ran, healed = ran_units(profile), missed_units(profile)
    rules = read_rules(settings.rules) if settings.rules else ()
    moved = carried(settings, folder, profile.kernel.build_id)
    inferred = _beginnings(model) if settings.static else _inferred(profile, model)
    inferred = {**_carried(moved, model), **_may_sleep(settings, model, ran), **inferred}
    image, graph = model.image, model.graph
    cold: dict[int, tuple[Range, ...]] = {}
    if settings.grain == "block" and knows_blocks(profile, moved):
        known = may_lose_blocks(image, graph, profile, rules, inferred, model.knowledge, script_symbols)
        cold = find_cold(image, model.tables, known, model.knowledge)
        image, tables, _ = trim(image, model.tables, cold, model.knowledge)
        graph = make_call_graph(image, tables, model.knowledge)
    return make_plan(
        image,
        graph,
        {place: why for place, why in ran.items() if place not in healed},
        rules,
        model.knowledge,
        build_id=build_id(folder.base("vmlinux")),
        width="reachable" if settings.static else settings.keep,
        healed=healed,
        inferred=inferred,
        small=SMALL,
        script_symbols=script_symbols,
        phases=boot_phases(profile) if settings.free_boot and sees_all else None,
        whole=not (sees_all or settings.static),
        named=settings.named,
        cold=cold,
    )


def _beginnings(model: Model) -> dict[int, str]:
    """Where a kernel begins, for want of a profile: the lists of functions that booting calls. (Its entry and
    what the linker script names are roots anyway.)"""
    owners = [part.owners for part in model.tables.parts.values() if part.table.calls]
    found = np.unique(np.concatenate(owners)) if owners else np.empty(0, np.int64)
    return dict.fromkeys(found[found >= 0].tolist(), "root: booting calls it")


def _inferred(profile: Profile, model: Model) -> dict[int, str]:
    """What may have run where the profile's sources could not see."""
    what = watched(profile)
    if what is None:
        return {}
    if not what.complete:
        boot = "" if what.boot else ", and no boot was watched"
        say(f"{len(what.blind):,} functions cannot be traced{boot}: reasoning which of them may have run")
    return infer(what, model.functions, model.knowledge)


def _carried(moved: Sequence[Profile], model: Model) -> dict[int, str]:
    """What may have run according to profiles of other builds, which cannot say so of this one."""
    lists = [unit for unit, part in model.tables.parts.items() if part.table.calls]
    reasons: dict[int, str] = {}
    for profile in moved:
        reasons |= uncertain(profile, model.functions, lists) | reasons
    return reasons


def _may_sleep(settings: Settings, model: Model, ran: Mapping[tuple[str, str], str]) -> dict[int, str]:
    """What tasks may sleep in, of what ran: it may be in its callers in the build that says where they do."""
    if settings.sleepers is None:
        return {}
    profile = load_profile(settings.sleepers)
    image = model.image
    found = uncertain(replace(profile, functions=sleepers(profile)), model.functions, ())
    places = zip(image.units["object"][list(found)].tolist(), found, strict=True)
    return {unit: found[unit] for number, unit in places if (image.objects[number], image.names[unit]) in ran}


def boot(workload: Workload, folder: Folder, numbers: Sequence[int]) -> tuple[Boot, ...]:
    """Boot the pruned kernel in these variations of the workload, and write ``boots.json``.

    Raises:
        UserError: there is no pruned kernel.
    """
    kernel = read_pruned(folder.path("pruned"), is_smp(folder.base(".config")))
    boots = boot_pruned(workload, kernel, numbers, folder.path("boot"))
    write_json(folder.boots, {"schema_version": SCHEMA, **summary(boots), "each": [asdict(b) for b in boots]})
    return boots


def heal(folder: Folder) -> tuple[Healed, ...]:
    """Take the misses of the last boots over into ``heal.json``; those that are new."""
    identity = build_id(folder.base("vmlinux"))
    before = load_healed(folder.healed, identity)
    each = read_result(folder.boots, "boots", ("each",))["each"]
    after = add_misses(before, [Miss(**miss) for boot in each for miss in boot["misses"]])
    if len(after) > len(before):
        save_healed(after, folder.healed, identity)
    return after[len(before) :]


def link(build: KernelBuild, folder: Folder, model: Model) -> None:
    """Let kbuild link the pruned kernel and its boot image into ``OUT/pruned``.

    What verify and boot said of the kernel before is not said of this one.
    """
    for stale in (folder.verdict, folder.boots):
        stale.unlink(missing_ok=True)
    relink(
        build, folder.plan, folder.path("pruned"), folder.path("link.log"),
        before=lambda: prepare_for(build, folder, model),
    )  # fmt: skip


def prepare_for(build: KernelBuild, folder: Folder, model: Model) -> None:
    """Make what the linker is given; in the linker's place the objects would be read once more."""
    script = Path(json.loads(folder.base("link.json").read_text())["script"])
    prepare(script, folder.plan, Path(PREPARED), build.objtree, model.image)


def verify(folder: Folder, objtree: Path, arch: str) -> Verdict:
    """Prove the pruned kernel and write ``verify.json``."""
    verdict = verify_image(
        folder.pruned("vmlinux"), folder.pruned("vmlinux.map"), folder.plan, folder.pruned("tombstones.json"),
        objtree, arch, folder.profile,
    )  # fmt: skip
    write_json(folder.verdict, {"schema_version": SCHEMA, **verdict.to_json()})
    return verdict


def page(folder: Folder, ledger: Ledger, report: Mapping[str, Any], version: str, arch: str) -> None:
    """Write ``report.html``."""
    each = read_result(folder.boots, "boots", ("each",))["each"] if folder.boots.is_file() else []
    logs = [folder.path(f"boot/{boot['number']}/console.log") for boot in each]
    log = next((path.read_text(errors="replace") for path in logs if path.is_file()), "")
    validation = report["validation"]
    facts = [
        f"Linux {version}", arch, f"build {build_id(folder.base('vmlinux'))[:12]}",
        f"verify: {validation['verify'] or 'not run'}",
        f"{validation['passed']} of {validation['boots']} boots ran the whole workload",
    ]  # fmt: skip
    data = page_data(ledger, load_profile(folder.profile), report, each, log, facts)
    with whole_file(folder.page) as stream:
        stream.write(make_page(data))
    say(f"the report to look at: {folder.page}")


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
