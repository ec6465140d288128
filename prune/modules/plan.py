"""Decide what of the workload's modules stays, and so what they need of the kernel.

A module that block coverage saw run is planned like a kernel (:mod:`prune.plan.plan`), each by itself. What
the loader calls stays, and so does all of its init and exit code. A module that nobody saw run stays whole.
What code and data that stay leave undefined is what the module needs; an export row of vmlinux, or of another
module, stays when somebody needs it, whether its function is there or has become a tombstone. What the
kernel calls through tables of the module's while it holds a lock stops the machine when it is gone; locks
that the module takes itself are the kernel's functions, and nobody follows these here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge, this_module
from prune.model.lock_calls import make_locks
from prune.modules.model import ModuleModel
from prune.modules.needs import needed_exports
from prune.plan.evidence import evidence
from prune.plan.held import held_through
from prune.plan.plan import SMALL, make_plan
from prune.plan.plan_file import Plan, load_plan, save_plan
from prune.plan.policy import Policy
from prune.plan.roots import parameters_that_ran
from prune.plan.rules import KeepRule
from prune.plan.stops import find_stops
from prune.plan.timers import may_go_off
from tracer.host import say
from tracer.profiles.profile import Profile
from tracer.profiles.signatures import signatures


@dataclass(frozen=True)
class ModulePlan:
    """``plan`` of one module's units; ``needs``: the symbols that what stays leaves undefined."""

    model: ModuleModel
    plan: Plan
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.model.module.name


def plan_modules(
    models: Sequence[ModuleModel],
    profile: Profile | None,
    rules: tuple[KeepRule, ...],
    knowledge: Knowledge,
    build_id: str,
    width: str = "ran",
    policies: Sequence[Policy] = (),
) -> tuple[ModulePlan, ...]:
    """Plan every module, those first that others depend on last: who needs an export has to be known.

    Args:
        profile: of functions of modules; None when nothing is known.
        policies: what one of them wants to trap stops no machine.
    """
    needed: dict[str, str] = {}
    made: dict[str, ModulePlan] = {}
    for model in _users_first(models):
        plan = _plan(model, profile, rules, knowledge, build_id, width, needed)
        plan = replace(plan, plan=_with_stops(plan.plan, model, policies, knowledge))
        made[model.module.name] = plan
        needed |= {
            symbol: why
            for symbol, why in needed_exports({plan.name: plan.needs}).items()
            if symbol not in needed
        }
    return tuple(made[model.module.name] for model in models)


def _users_first(models: Sequence[ModuleModel]) -> list[ModuleModel]:
    depth = {model.module.name: len(model.module.depends) for model in models}
    # What a module depends on has fewer dependencies than it, all of which are among its own.
    return sorted(models, key=lambda model: -depth[model.module.name])


def _plan(
    model: ModuleModel,
    profile: Profile | None,
    rules: tuple[KeepRule, ...],
    knowledge: Knowledge,
    build_id: str,
    width: str,
    needed: Mapping[str, str],
) -> ModulePlan:
    image, graph = model.image, model.graph
    ran: Mapping[int, str] = {}
    missed: Mapping[int, str] = {}
    objects = set(image.objects)
    records = tuple(each for each in profile.functions if each.object in objects) if profile else ()
    if not records or profile is None:
        say(f"module {model.module.name}: no block coverage saw it run; it stays whole")
        others = (unit for unit, name in enumerate(image.names) if not knowledge.exported(name))
        inferred = dict.fromkeys(others, "nobody saw the module run")
    else:
        mine = replace(profile, functions=records)
        known = evidence(mine, signatures(mine), image)
        hot = np.zeros(len(image.units), bool)
        hot[list(known.ran)] = True
        ran, missed = known.ran, known.missed
        inferred = may_go_off(image, graph, knowledge, hot, hot)
    parameters = parameters_that_ran(image, graph, model.tables, ran.keys() | missed.keys())
    inferred = {**inferred, **parameters, **_called_by_loader(image)}
    plan = make_plan(
        image, graph, ran, rules, knowledge, build_id=build_id, width=width, healed=missed,
        inferred=inferred, small=SMALL, exported=needed,
    )  # fmt: skip
    return ModulePlan(model, plan, _undefined(model, plan.keep))


def _with_stops(plan: Plan, model: ModuleModel, policies: Sequence[Policy], knowledge: Knowledge) -> Plan:
    image = model.image
    held = held_through(image, model.graph, knowledge)
    sleeping, _ = make_locks(image, model.tables, knowledge).entered(plan.keep, held)
    return replace(plan, answers=find_stops(image, plan.keep, sleeping, policies))


def _called_by_loader(image: Image) -> dict[int, str]:
    """What struct module refers to: init and exit, wherever they are."""
    section = this_module()
    this = np.array([name == section for name in image.names], bool)
    rows = image.relocations
    target = rows["target"][this[rows["unit"]]]
    return dict.fromkeys(target[target >= 0].tolist(), "root: the loader calls it")


def _undefined(model: ModuleModel, keep: Rows) -> tuple[str, ...]:
    """The names that no object of the module defines, of what code, data and tables that stay refer to."""
    image = model.image
    rows = image.relocations
    open_ = (image.definition[rows["symbol"]] < 0) & keep[rows["unit"]] & keep[model.tables.owner]
    symbols = np.unique(rows["symbol"][open_])
    names = set()
    for row in symbols.tolist():
        number = int(np.searchsorted(image.symbols_at, row, "right")) - 1
        names.add(image.files[number].symbol_name(row - int(image.symbols_at[number])))
    return tuple(sorted(names - {""}))


def save_module_plans(plans: Iterable[ModulePlan], folder: Path) -> None:
    """Write a plan file for each module, ``folder/PATH.json``."""
    for plan in plans:
        save_plan(plan.plan, folder / f"{plan.model.module.path}.json")


def load_module_plan(folder: Path, path: str) -> Plan | None:
    """The plan of the module at ``path``; None when it has none.

    Raises:
        UserError: damaged.
    """
    file = folder / f"{path}.json"
    return load_plan(file) if file.is_file() else None
