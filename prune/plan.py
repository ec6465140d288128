"""Decide the fate of every unit.

A unit is kept when it ran, when a root reaches it, when a rule names it, or when it is data that
something kept refers to. Everything else is dropped. The first reason that applies, in this order, is
the one recorded. What is kept for booting alone goes where the kernel frees it (:mod:`prune.bootonly`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from prune.bootonly import Phases, boot_data, boot_only
from prune.callgraph import ADDRESS, CALL, DATA, TABLE, TAIL_CALL, CallGraph
from prune.elf import Rows, distinct
from prune.image import Image
from prune.knowledge import Knowledge
from prune.plan_file import Plan
from prune.roots import find_roots, referenced_data, script_units
from prune.rules import KeepRule, apply_rules
from tracer.host import UserError

#: Measured with examples/micro: what was ever healed calls 0 to 3 functions that never ran, however far.
_HEALED_DEPTH = 3
_REFERS = (CALL, TAIL_CALL, ADDRESS)
#: Functions that a source file may have: the most in a 6.1 defconfig are the 824 of net/wireless/trace.o.
_FILE = 2000
#: Bytes of a function that is better kept than missed. With examples/micro all such functions that hot code
#: refers to are 0.3% of the kernel's text, and a sixth of what boots ever missed.
SMALL = 24


def make_plan(
    image: Image,
    graph: CallGraph,
    ran: Mapping[tuple[str, str], str],
    rules: tuple[KeepRule, ...],
    knowledge: Knowledge,
    *,
    build_id: str,
    width: str = "ran",
    healed: Mapping[tuple[str, str], str] | None = None,
    inferred: Mapping[int, str] | None = None,
    small: int = 0,
    script_symbols: frozenset[str] = frozenset(),
    phases: Phases | None = None,
    named: bool = False,
    whole: bool = False,
    cold: Mapping[int, tuple[tuple[int, int], ...]] | None = None,
) -> Plan:
    """Make the plan.

    Args:
        ran: (object, section) -> which apps ran it, for every unit of the profile.
        width: how far around the hot code to keep: ``ran`` (nothing more), ``callees`` (what hot code
            calls directly), ``reachable`` (everything that any reference reaches).
        healed: as ``ran``, for what boots missed; what such a function calls stays as well, some steps
            far into what never ran, since each step would be one more round of healing.
        inferred: unit -> why, for what may have run where no source could see (:mod:`prune.closure`).
        small: keep what code that ran refers to, too, if it has no more bytes than this.
        script_symbols: names that the linker script mentions.
        phases: which units ran only until the kernel freed its init memory; None: nothing is placed there.
        whole: code that shares a section in its object stays: nobody saw all that ran.
        cold: unit -> the ranges of it that go although it stays (:mod:`prune.trim`); ``image`` and ``graph``
            are without them.
        named: the names of tombstones go into kallsyms.

    Raises:
        UserError: the profile speaks of a unit that this image does not have.
    """
    hot, mended = hot_units(image, ran), hot_units(image, healed or {})
    ruled, unused = apply_rules(image, rules)
    reasons = _because_of_what_ran(image, graph, hot, mended, small)
    for why, units in find_roots(image, graph, knowledge, script_symbols):
        reasons.add(units, lambda _, why=why: f"root: {why}")  # type: ignore[misc]
    if whole:
        shared = np.flatnonzero(image.was_shared).tolist()
        reasons.add(shared, lambda _: "root: shares a section, and nobody saw all that ran")
    reasons.add(inferred or {}, lambda unit: (inferred or {})[unit])
    reasons.add(ruled, lambda unit: f"rule {ruled[unit]}: {ruled[unit].reason}")
    if width == "callees":
        reasons.add(_callees(graph, hot), lambda _: "called by code that ran")
    elif width == "reachable":
        reached = graph.closure(reasons.mask(image), (CALL, TAIL_CALL, ADDRESS, TABLE, DATA))
        reasons.add(np.flatnonzero(reached).tolist(), lambda _: "reachable")
    only_ran = _mask(image, hot) & ~_mask(image, reasons.again)
    boot = boot_only(image, graph, phases, only_ran, reasons.mask(image))
    _add_data(reasons, image, graph)
    kept = reasons.mask(image)
    if phases:
        boot |= boot_data(image, boot, kept, script_units(image, script_symbols))
    return Plan(
        knowledge.arch,
        build_id,
        width,
        tuple(zip(image.objects, image.digests, strict=True)),
        image.rows,
        kept,
        boot,
        tuple(reasons.of.get(unit, "cold") for unit in range(len(image.units))),
        image.pieces,
        tuple(str(rule) for rule in unused),
        named,
        {
            (image.objects[int(image.units["object"][unit])], image.names[unit]): ranges
            for unit, ranges in (cold or {}).items()
        },
    )


def _because_of_what_ran(
    image: Image, graph: CallGraph, hot: Mapping[int, str], mended: Mapping[int, str], small: int
) -> _Reasons:
    """What ran, what was missed, and what stays for either."""
    reasons = _Reasons()
    reasons.add(hot, lambda unit: f"ran: {hot[unit]}")
    reasons.add(mended, lambda unit: f"healed: {mended[unit]}")
    reasons.add(_called_by_healed(image, graph, hot, mended), lambda _: "called by what was healed")
    reasons.add(_beside_healed(image, graph, hot, mended), lambda _: "referred to beside what was healed")
    reasons.add(
        _small(image, graph, [*hot, *mended], small),
        lambda _: "small, and code that ran refers to it",
    )
    return reasons


def _add_data(reasons: _Reasons, image: Image, graph: CallGraph) -> None:
    """What everything that is kept refers to."""
    referenced = referenced_data(image, graph, reasons.mask(image))
    owners = image.units["object"].tolist()
    labels = {by: f"{image.objects[owners[by]]}:{image.names[by]}" for by in set(referenced.values())}
    reasons.add(referenced, lambda unit: f"referenced by {labels[referenced[unit]]}")


class _Reasons:
    """Unit -> why it is kept; the first reason that is given stays. ``again``: those that have more."""

    def __init__(self) -> None:
        self.of: dict[int, str] = {}
        self.again: set[int] = set()

    def add(self, units: Iterable[int], reason: Callable[[int], str]) -> None:
        for unit in units:
            if unit in self.of:
                self.again.add(unit)
            else:
                self.of[unit] = reason(unit)

    def mask(self, image: Image) -> Rows:
        return _mask(image, self.of)


def hot_units(image: Image, ran: Mapping[tuple[str, str], str]) -> dict[int, str]:
    try:
        return {image.unit_of[place]: apps for place, apps in ran.items()}
    except KeyError as error:
        place = error.args[0]
        raise UserError(
            f"making the plan: the profile knows {place[0]}:{place[1]}, this kernel does not",
            "the profile is of another build: trace this one",
        ) from None


def _callees(graph: CallGraph, units: Iterable[int]) -> list[int]:
    """What the units call directly."""
    calls = np.isin(graph.kind, (CALL, TAIL_CALL)) & np.isin(graph.source, list(units))
    found: list[int] = graph.target[calls].tolist()
    return found


def _called_by_healed(image: Image, graph: CallGraph, hot: Iterable[int], healed: Iterable[int]) -> list[int]:
    """What healed units call, up to ``_HEALED_DEPTH`` calls away, not through code that ran: that has
    called what it calls."""
    ran, reached = _mask(image, hot), _mask(image, healed)
    calls = np.isin(graph.kind, (CALL, TAIL_CALL)) & ~ran[graph.target]
    source, target = graph.source[calls], graph.target[calls]
    for _ in range(_HEALED_DEPTH):
        reached[target[reached[source]]] = True
    return np.flatnonzero(reached).tolist()


def _beside_healed(image: Image, graph: CallGraph, hot: Iterable[int], healed: Iterable[int]) -> list[int]:
    """What else the hot functions refer to that refer to a healed one of the same object: where they turned
    off the way that was traced, they may do so again. Where one object has most of the code, as with LTO, it
    says nothing of what belongs together."""
    ran, missed = _mask(image, hot), _mask(image, healed)
    owner = image.units["object"]
    functions = np.bincount(owner[image.units["function"]], minlength=len(image.objects))
    tells = (functions <= max(_FILE, functions.sum() // 2))[owner]
    refers = np.isin(graph.kind, _REFERS) & ran[graph.source]
    turned = (
        refers & missed[graph.target] & (owner[graph.source] == owner[graph.target]) & tells[graph.source]
    )
    from_there = _mask(image, graph.source[turned])
    found: list[int] = graph.target[refers & from_there[graph.source] & ~ran[graph.target]].tolist()
    return [unit for unit in found if image.units["function"][unit]]


def _small(image: Image, graph: CallGraph, hot: Iterable[int], size: int) -> list[int]:
    """Functions of at most ``size`` bytes that hot code calls, or takes the address of; not what is answered
    when it is gone: the entry of a system call is small, and what it calls is not there."""
    tiny = image.units["function"] & (image.units["size"] <= size) & ~image.units["answered"]
    refers = np.isin(graph.kind, _REFERS) & _mask(image, hot)[graph.source] & tiny[graph.target]
    found: list[int] = distinct(graph.target[refers]).tolist()
    return found


def _mask(image: Image, units: Iterable[int]) -> Rows:
    mask = np.zeros(len(image.units), bool)
    mask[list(units)] = True
    return mask
