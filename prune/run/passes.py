"""The stages, one function each, from files to files; :mod:`prune.run.pipeline` puts them in order.

This is the edge: here files are read and written and programs started. What is decided is decided in
the passes that these functions call.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.build.config import options_hash
from prune.build.kbuild import KernelBuild, relink
from prune.build.modules import load_modules
from prune.build.recorded import read_last_link
from prune.folder import Folder
from prune.guests.heal import Healed, add_misses, load_healed, save_healed
from prune.guests.misses import Miss
from prune.linking.link import LINK_MAP, PREPARED, Made, prepare
from prune.model.buildid import build_id, entry_point
from prune.model.image import Image
from prune.model.knowledge import Knowledge, read_knowledge
from prune.model.store import stored
from prune.model.symbols import write_symbols
from prune.modules.needs import needed_exports
from prune.plan.plan_file import Plan, load_plan, save_plan
from prune.plan.rules import Rules, read_rules
from prune.run.planning import Model, decide
from prune.settings import Settings
from tracer.host import (
    UserError,
    file_hash,
    read_json,
    say,
    whole_file,
    write_json,
)
from tracer.profiles.profile import load_profile
from tracer.workloads.workload import Workload

# What one stage alone needs, LIEF above all, it imports itself: a plan is made in less time than that takes.
if TYPE_CHECKING:
    from prune.guests.boots import Boot
    from prune.guests.consoles import Said
    from prune.verify.verify import Verdict

SCHEMA = 1


def export(build: KernelBuild, kernel: str, into: Path, arch: str, modules: Sequence[str] = ()) -> None:
    """Copy a finished build's files into the run's folder, with the symbols that the tracer needs.

    Args:
        kernel: which one it is in this run, "production" or "traced"; one build may be both.
        modules: shell patterns of those that the workload ships.
    """
    from prune.modules.export import export_modules

    for name in ("vmlinux", "bzImage", "vmlinux.map", ".config", "link.json"):
        copy_whole(build.artefacts / name, into / name)
    knowledge = read_knowledge(arch)
    image = _image_of(build, into / "vmlinux.map", knowledge)
    identity = {
        "build_id": build_id(into / "vmlinux"), "config": file_hash(into / ".config"),
        "source": build.source.content_hash, "version": build.source.version,
        "options": options_hash(into / ".config"),
    }  # fmt: skip
    write_symbols(image, kernel, identity, entry_point(into / "vmlinux"), into / "symbols.json")
    export_modules(build, into, modules, knowledge)


def _image_of(build: KernelBuild, link_map: Path, knowledge: Knowledge) -> Image:
    """What the pruned kernel is linked from is stored for the plans that follow; a traced kernel is looked at
    once."""
    if build.flavour == "production":
        return stored(build.objtree, link_map, knowledge).image
    from prune.model.assemble import read_image
    from prune.model.mapfile import read_link_map

    return read_image(build.objtree, read_link_map(link_map), knowledge)


def plan(settings: Settings, folder: Folder, model: Model) -> Plan:
    """Decide, and write ``plan.json`` with the base link map beside it."""
    profile = load_profile(folder.profile, references=False, ran=settings.grain == "block")
    exported, used = _plan_modules(settings, folder, model)
    made = decide(settings, folder, model, profile, exported)
    unused = (rule for rule in made.unused_rules if rule not in used)
    made = replace(made, unused_rules=tuple(unused))
    for rule in made.unused_rules:
        say(f"warning: rule {rule} matches nothing")
    save_plan(made, folder.plan)
    copy_whole(folder.base("vmlinux.map"), folder.path(LINK_MAP))
    return made


def _plan_modules(
    settings: Settings, folder: Folder, model: Model
) -> tuple[dict[str, str] | None, frozenset[str]]:
    """Plan the modules that the workload ships, each into a file of its own; (which exports they need then,
    the rules that match something in one of them)."""
    shutil.rmtree(folder.module_plans, ignore_errors=True)
    ships = [module for module in load_modules(folder.path("base")) if module.shipped]
    if not ships:
        return None, frozenset()
    from prune.modules.model import read_module_model
    from prune.modules.plan import plan_modules, save_module_plans

    known = folder.module_profile
    found = {module.name: read_module_model(model.objtree, module, model.knowledge) for module in ships}
    given = read_rules(settings.rules) if settings.rules else Rules()
    rules = given.keep
    plans = plan_modules(
        [each for each in found.values() if each],
        load_profile(known, references=False, ran=False) if known.is_file() else None,
        rules,
        model.knowledge,
        build_id(folder.base("vmlinux")),
        "reachable" if settings.static else settings.keep,
        given.policies,
    )
    save_module_plans(plans, folder.module_plans)
    whole = {module.name: module.needs for module in ships if not found[module.name]}
    used = {str(rule) for rule in rules for each in plans if str(rule) not in each.plan.unused_rules}
    return needed_exports(whole | {plan.name: plan.needs for plan in plans}), frozenset(used)


def boot(workload: Workload, folder: Folder, numbers: Sequence[int], jobs: int = 0) -> tuple[Boot, ...]:
    """Boot the pruned kernel in these variations of the workload, and write ``boots.json``.

    Raises:
        UserError: there is no pruned kernel.
    """
    from prune.guests.boots import boot_pruned, summary
    from prune.run.kernels import kernel_of

    kernel = kernel_of(folder, "pruned")
    boots = boot_pruned(workload, kernel, numbers, folder.path("boot"), jobs)
    said = _said(folder, boots)
    write_json(
        folder.boots,
        {
            "schema_version": SCHEMA, **summary(boots), "console": asdict(said),
            "each": [asdict(each) for each in boots],
        },
    )  # fmt: skip
    return boots


def _said(folder: Folder, boots: Sequence[Boot]) -> Said:
    """What the kernels of these boots said that the whole kernel does not say, and the other way round."""
    from prune.guests.consoles import compare, read_consoles, whole_consoles

    passed = [folder.path(f"boot/{boot.number}/console.log") for boot in boots if not boot.problem]
    whole = whole_consoles((folder.traced_profile, *folder.retraced))
    said = compare(read_consoles(whole), read_consoles(passed))
    for line in said.new[:5]:
        say(f"only the pruned kernel says, in {line.boots} of {said.boots} boots: {line.text}")
    return said


def heal(folder: Folder) -> tuple[Healed, ...]:
    """Take the misses of the last boots over into ``heal.json``; those that are new."""
    each = read_result(folder.boots, "boots", ("each",))["each"]
    return learn(folder, [Miss(**miss) for boot in each for miss in boot["misses"]])


def learn(folder: Folder, misses: Sequence[Miss]) -> tuple[Healed, ...]:
    """Take misses over into ``heal.json``; those that are new."""
    identity = build_id(folder.base("vmlinux"))
    before = load_healed(folder.healed, identity)
    after = add_misses(before, misses)
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
    if build.module_targets:
        from prune.modules.link import link_modules

        link_modules(build, folder, model.knowledge)


def prepare_for(build: KernelBuild, folder: Folder, model: Model) -> None:
    """Make what the linker is given; in the linker's place the objects would be read once more."""
    script = read_last_link(folder.base("link.json")).script
    prepare(script, folder.plan, Path(PREPARED), build.objtree, Made(load_plan(folder.plan), model.stored))


def verify(folder: Folder, objtree: Path, arch: str) -> Verdict:
    """Prove the pruned kernel and write ``verify.json``."""
    from prune.verify.verify import verify_image

    verdict = verify_image(
        folder.pruned("vmlinux"), folder.pruned("vmlinux.map"), folder.plan, folder.pruned("tombstones.json"),
        objtree, arch, folder.profile,
    )  # fmt: skip
    if (folder.pruned("modules") / "modules.json").is_file():
        from prune.verify.modules import check_modules

        more = check_modules(folder.path("pruned"), folder.module_plans, objtree, arch)
        verdict = replace(verdict, checks=(*verdict.checks, more))
    write_json(folder.verdict, {"schema_version": SCHEMA, **verdict.to_json()})
    return verdict


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
