"""The plan for a profile: everything that has a say in it, put together.

What is imported here is imported for every plan; what only other stages need is not among it.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from prune.build.modules import load_modules
from prune.build.recorded import read_last_link
from prune.folder import Folder
from prune.linking.script import named_symbols
from prune.model.buildid import build_id
from prune.model.callgraph import CallGraph, make_call_graph
from prune.model.elf import Rows
from prune.model.functions import Functions
from prune.model.image import Image
from prune.model.knowledge import Knowledge, read_knowledge
from prune.model.store import Stored, stored
from prune.model.tables import Tables
from prune.modules.needs import needed_exports
from prune.options import read_options
from prune.plan.bootonly import Phases
from prune.plan.chance import decides_in, may_run
from prune.plan.closure import SEES_ALL, infer, watched
from prune.plan.evidence import boot_phases, evidence, knows_blocks
from prune.plan.held import held_through
from prune.plan.plan import SMALL, make_plan
from prune.plan.plan_file import Plan
from prune.plan.policy import Policy
from prune.plan.refusals import find_refusals
from prune.plan.roots import parameters_that_ran
from prune.plan.rules import KeepRule, Rules, read_rules
from prune.plan.stops import find_stops
from prune.plan.timers import may_go_off
from prune.settings import Settings
from tracer.host import say, uncollected
from tracer.profiles.phases import sleepers
from tracer.profiles.profile import Profile, load_profile
from tracer.profiles.signatures import Signatures, signatures


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
    def stored(self) -> Stored:
        return stored(self.objtree, self.folder.base("vmlinux.map"), self.knowledge)

    @property
    def image(self) -> Image:
        return self.stored.image

    @property
    def tables(self) -> Tables:
        return self.stored.tables

    @property
    def graph(self) -> CallGraph:
        return self.stored.graph

    @property
    def functions(self) -> Functions:
        return self.stored.functions


@dataclass(frozen=True)
class Cut:
    """What is planned with: the image and the graph without what cold blocks refer to. ``cold``: unit -> its
    cold ranges, ``traps``: unit -> the places in them that have a trap."""

    image: Image
    graph: CallGraph
    cold: Mapping[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    traps: Mapping[int, Rows] = field(default_factory=dict)


@uncollected()
def decide(
    settings: Settings,
    folder: Folder,
    model: Model,
    profile: Profile,
    exported: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for a profile.

    Args:
        exported: symbol -> why its export row stays; None: what the modules need as they were built.
    """
    if exported is None:
        exported = needed_exports({m.name: m.needs for m in load_modules(folder.base("")) if m.shipped})
    # Who saw a boot through ftrace alone has seen too little of it to take init code apart.
    sees_all = bool(SEES_ALL & set(profile.sources))
    script = model.objtree / read_last_link(folder.base("link.json")).script
    script_symbols = named_symbols(script.read_text())
    kinds = signatures(profile)
    known = evidence(profile, kinds, model.image)
    given = read_rules(settings.rules) if settings.rules else Rules()
    rules = given.keep
    moved = _moved(settings, folder, profile)
    phases = boot_phases(profile, kinds, known) if settings.free_boot and sees_all else None
    inferred = _beginnings(model) if settings.static else _inferred(profile, kinds, model)
    inferred = {**_carried(moved, model), **_may_sleep(settings, model, known.masks), **inferred}
    ran = known.ran.keys() | known.missed.keys()
    inferred = {**parameters_that_ran(model.image, model.graph, model.tables, ran), **inferred}
    if not settings.static:
        inferred = {**_by_chance(settings, model, known.ran, phases), **inferred}
    cut = Cut(model.image, model.graph)
    if settings.grain == "block" and knows_blocks(profile, moved):
        whole = set(inferred)
        if settings.chance == "blocks":
            whole.update(np.flatnonzero(decides_in(model.image, model.graph, model.knowledge)).tolist())
        cut = _cut(model, profile, rules, whole, script_symbols)
    plan = make_plan(
        cut.image,
        cut.graph,
        known.ran,
        rules,
        model.knowledge,
        build_id=build_id(folder.base("vmlinux")),
        width="reachable" if settings.static else settings.keep,
        healed=known.missed,
        inferred=inferred,
        small=SMALL,
        script_symbols=script_symbols,
        phases=phases,
        whole=not (sees_all or settings.static),
        named=settings.named,
        cold=cut.cold,
        exported=exported,
    )
    plan = _with_stops(plan, given.policies, model, cut.traps)
    refusals = find_refusals(cut.image, plan.keep, given.policies, model.knowledge)
    plan = replace(plan, answers={**plan.answers, **refusals})
    return _with_answers(plan, given.policies, folder, model) if given.policies else plan


def _cut(
    model: Model,
    profile: Profile,
    rules: tuple[KeepRule, ...],
    whole: Iterable[int],
    script_symbols: frozenset[str],
) -> Cut:
    """The kernel without the blocks that it may lose; ``whole``: units that lose none."""
    # Disassembling is for those who want it.
    from prune.plan.grain import may_lose_blocks
    from prune.plan.trim import find_cold, trim

    knowledge = model.knowledge
    blocks = may_lose_blocks(model.image, model.graph, profile, rules, whole, knowledge, script_symbols)
    cold = find_cold(model.image, model.tables, blocks, knowledge)
    image, tables, trimming = trim(model.image, model.tables, cold, knowledge)
    traps = {unit: made.traps for unit, made in trimming.trims.items()} if trimming else {}
    return Cut(image, make_call_graph(image, tables, knowledge), cold, traps)


def _with_stops(plan: Plan, policies: Sequence[Policy], model: Model, traps: Mapping[int, Rows]) -> Plan:
    """The plan with what of it stops the machine, for who is killed there may hold a lock.

    Args:
        traps: unit -> the places in its cold ranges that have one.
    """
    image, locks = model.image, model.stored.locks
    entered = locks.entered(plan.keep, held_through(image, model.graph, model.knowledge))
    answers = find_stops(image, plan.keep, entered[0] | entered[1], policies)
    stops = {unit: places[locks.held_at(entered, unit, places)] for unit, places in traps.items()}
    stops = {unit: places for unit, places in stops.items() if len(places) and plan.keep[unit]}
    if answers or stops:
        blocks = sum(map(len, stops.values()))
        what = f"{len(answers):,} of the dropped functions" + f" and {blocks:,} of the cold blocks" * bool(
            blocks
        )
        say(f"{what} stop the machine, for who comes there may hold a lock")
    named = {image.rows[unit][:2]: tuple(places.tolist()) for unit, places in stops.items()}
    return replace(plan, answers=answers, stops=named)


def _with_answers(plan: Plan, policies: Sequence[Policy], folder: Folder, model: Model) -> Plan:
    """The plan with what the policies say of what it drops."""
    # DWARF is for those who have policies.
    from prune.plan.answers import find_answers
    from prune.plan.typed import TypeReader

    image = model.image
    digests = dict(zip(image.objects, image.digests, strict=True))
    types = cache(TypeReader(model.objtree, digests, model.knowledge))
    options = frozenset(name for name, value in read_options(folder.base(".config")).items() if value == "y")
    answers, unused = find_answers(image, plan.keep, policies, types, model.knowledge, options)
    say(f"policy: {len(answers):,} of the dropped functions answer or panic when they are called")
    answers = {**plan.answers, **answers}
    return replace(plan, answers=answers, unused_rules=(*plan.unused_rules, *map(str, unused)))


def _by_chance(settings: Settings, model: Model, ran: Iterable[int], phases: Phases | None) -> dict[int, str]:
    """What may run, or run once more when booting is over, though no trace has seen it."""
    image, graph, knowledge = model.image, model.graph, model.knowledge
    hot = np.zeros(len(image.units), bool)
    hot[list(ran)] = True
    lasting = hot.copy()
    lasting[phases.only if phases else []] = False
    if settings.chance == "none":
        return may_go_off(image, graph, knowledge, hot, lasting)
    return may_run(image, graph, knowledge, hot, lasting)


def _beginnings(model: Model) -> dict[int, str]:
    """Where a kernel begins, for want of a profile: the lists of functions that booting calls. (Its entry and
    what the linker script names are roots anyway.)"""
    owners = [part.owners for part in model.tables.parts.values() if part.table.calls]
    found = np.unique(np.concatenate([*owners, np.empty(0, np.int64)]))
    return dict.fromkeys(found[found >= 0].tolist(), "root: booting calls it")


def _inferred(profile: Profile, kinds: Signatures, model: Model) -> dict[int, str]:
    """What may have run where the profile's sources could not see."""
    what = watched(profile, kinds)
    if what is None:
        return {}
    if not what.complete:
        boot = "" if what.boot else ", and no boot was watched"
        say(f"{len(what.blind):,} functions cannot be traced{boot}: reasoning which of them may have run")
    return infer(what, model.functions, model.knowledge)


def _moved(settings: Settings, folder: Folder, profile: Profile) -> list[Profile]:
    """The profiles of other builds that went into this one, as they were made."""
    if not profile.moved_from:
        return []
    from prune.run.profiling import carried

    return carried(settings, folder, profile.kernel.build_id)


def _carried(moved: Sequence[Profile], model: Model) -> dict[int, str]:
    """What may have run according to profiles of other builds, which cannot say so of this one."""
    reasons: dict[int, str] = {}
    if not moved:
        return reasons
    from prune.plan.carried import uncertain

    lists = [unit for unit, part in model.tables.parts.items() if part.table.calls]
    for profile in moved:
        reasons |= uncertain(profile, model.functions, lists) | reasons
    return reasons


def _may_sleep(settings: Settings, model: Model, ran: Container[int]) -> dict[int, str]:
    """What tasks may sleep in, of what ran: it may be in its callers in the build that says where they do."""
    if settings.sleepers is None:
        return {}
    from prune.plan.carried import uncertain

    profile = load_profile(settings.sleepers)
    found = uncertain(replace(profile, functions=sleepers(profile)), model.functions, ())
    return {unit: why for unit, why in found.items() if unit in ran}
