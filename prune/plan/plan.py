"""Decide the fate of every unit.

A unit is kept when it ran, when a root reaches it, when a rule names it, or when it is data that
something kept refers to. Everything else is dropped. The first reason that applies, in this order, is
the one recorded. What is kept for booting alone goes where the kernel frees it (:mod:`prune.plan.bootonly`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from prune.model.callgraph import ADDRESS, CALL, DATA, TABLE, TAIL_CALL, CallGraph
from prune.model.elf import Rows, distinct
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.later import Later
from prune.plan.bootonly import Phases, boot_data, boot_only
from prune.plan.plan_file import Plan
from prune.plan.roots import find_roots, referenced_data
from prune.plan.rules import KeepRule, apply_rules

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
    ran: Mapping[int, str],
    rules: tuple[KeepRule, ...],
    knowledge: Knowledge,
    *,
    build_id: str,
    width: str = "ran",
    healed: Mapping[int, str] | None = None,
    inferred: Mapping[int, str] | None = None,
    small: int = 0,
    script_symbols: frozenset[str] = frozenset(),
    phases: Phases | None = None,
    named: bool = False,
    whole: bool = False,
    cold: Mapping[int, tuple[tuple[int, int], ...]] | None = None,
    exported: Mapping[str, str] | None = None,
) -> Plan:
    """Make the plan.

    Args:
        ran: unit -> which apps ran it, for every unit of the profile.
        width: how far around the hot code to keep: ``ran`` (nothing more), ``callees`` (what hot code
            calls directly), ``reachable`` (everything that any reference reaches).
        healed: as ``ran``, for what boots missed; what such a function calls stays as well, some steps
            far into what never ran, since each step would be one more round of healing.
        inferred: unit -> why, for what may have run where no source could see (:mod:`prune.plan.closure`).
        small: keep what code that ran, or may run, refers to, too, if it has no more bytes than this.
        script_symbols: names that the linker script mentions.
        phases: which units ran only until the kernel freed its init memory; None: nothing is placed there.
        whole: code that shares a section in its object stays: nobody saw all that ran.
        cold: unit -> the ranges of it that go although it stays (:mod:`prune.plan.trim`); ``image`` and
        ``graph``
            are without them.
        named: the names of tombstones go into kallsyms.
        exported: symbol -> why its export row stays; no other one does.
    """
    ruled, unused = apply_rules(image, rules)
    reasons = _because_of_what_ran(image, graph, ran, healed or {}, small)
    _add_roots(reasons, image, graph, knowledge, script_symbols, exported or {}, whole)
    _add_inferred(reasons, image, graph, inferred or {}, small)
    reasons.add(list(ruled), lambda unit: f"rule {ruled[unit]}: {ruled[unit].reason}")
    _widen(reasons, graph, _mask(image, ran), width)
    only_ran = _mask(image, ran) & ~reasons.again
    boot = boot_only(image, graph, phases, only_ran, reasons.kept)
    _add_data(reasons, image, graph)
    kept = reasons.kept
    if phases:
        boot |= boot_data(image, boot, kept, image.defining(script_symbols))
    return Plan(
        knowledge.arch,
        build_id,
        width,
        tuple(zip(image.objects, image.digests, strict=True)),
        image.rows,
        kept,
        boot,
        Later(len(image.units), reasons.texts),
        image.pieces,
        tuple(str(rule) for rule in unused),
        named,
        {image.rows[unit][:2]: ranges for unit, ranges in (cold or {}).items()},
    )


def _because_of_what_ran(
    image: Image, graph: CallGraph, hot: Mapping[int, str], mended: Mapping[int, str], small: int
) -> _Reasons:
    """What ran, what was missed, and what stays for either."""
    reasons = _Reasons(len(image.units))
    reasons.add(list(hot), lambda unit: f"ran: {hot[unit]}")
    reasons.add(list(mended), lambda unit: f"healed: {mended[unit]}")
    ran, missed = _mask(image, hot), _mask(image, mended)
    refers = np.isin(graph.kind, _REFERS) & (ran | missed)[graph.source]
    if mended:
        reasons.add(_called_by_healed(graph, ran, missed), lambda _: "called by what was healed")
        reasons.add(_beside_healed(image, graph, ran, missed), lambda _: "referred to beside what was healed")
    reasons.add(_small(image, graph, refers, small), lambda _: "small, and code that ran refers to it")
    return reasons


def _add_roots(
    reasons: _Reasons, image: Image, graph: CallGraph, knowledge: Knowledge,
    script_symbols: frozenset[str], exported: Mapping[str, str], whole: bool,
) -> None:  # fmt: skip
    """What stays whatever ran."""
    for why, units in find_roots(image, graph, knowledge, script_symbols):
        reasons.add(units, lambda _, why=why: f"root: {why}")  # type: ignore[misc]
    rows = _export_rows(image, knowledge, exported)
    reasons.add(list(rows), lambda unit: rows[unit])
    if whole:
        why = "root: shares a section, and nobody saw all that ran"
        reasons.add(np.flatnonzero(image.was_shared), lambda _: why)


def _add_inferred(
    reasons: _Reasons, image: Image, graph: CallGraph, inferred: Mapping[int, str], small: int
) -> None:
    """What may have run, or may yet, and what is small beside it."""
    reasons.add(list(inferred), lambda unit: inferred[unit])
    refers = np.isin(graph.kind, _REFERS) & _mask(image, inferred)[graph.source]
    reasons.add(_small(image, graph, refers, small), lambda _: "small, and code that may run refers to it")


def _export_rows(image: Image, knowledge: Knowledge, exported: Mapping[str, str]) -> dict[int, str]:
    """Unit -> why it stays, of the rows for exported symbols and for their versions."""
    symbols = ((unit, knowledge.exported(name)) for unit, name in enumerate(image.names) if "+" in name)
    return {unit: exported[symbol] for unit, symbol in symbols if symbol in exported}


def _widen(reasons: _Reasons, graph: CallGraph, ran: Rows, width: str) -> None:
    """What is to be kept around what stays anyway."""
    if width == "callees":
        reasons.add(_callees(graph, ran), lambda _: "called by code that ran")
    elif width == "reachable":
        reached = graph.closure(reasons.kept, (CALL, TAIL_CALL, ADDRESS, TABLE, DATA))
        reasons.add(np.flatnonzero(reached), lambda _: "reachable")


def _add_data(reasons: _Reasons, image: Image, graph: CallGraph) -> None:
    """What everything that is kept refers to."""
    referenced = referenced_data(image, graph, reasons.kept)
    reasons.add(list(referenced), lambda unit: f"referenced by {image.unit_label(referenced[unit])}")


class _Reasons:
    """Why units are kept; the first reason that is given stays. ``again``: mask of those that have more."""

    def __init__(self, units: int) -> None:
        self._number = np.full(units, -1, np.int64)
        self._reasons: list[Callable[[int], str]] = []
        self.again: Rows = np.zeros(units, bool)

    def add(self, units: Sequence[int] | Rows, reason: Callable[[int], str]) -> None:
        rows = np.asarray(units, np.int64)
        known = self._number[rows] >= 0
        self.again[rows[known]] = True
        self._number[rows[~known]] = len(self._reasons)
        self._reasons.append(reason)

    @property
    def kept(self) -> Rows:
        """Mask of the units that have a reason."""
        mask: Rows = self._number >= 0
        return mask

    def texts(self) -> list[str]:
        """Of every unit."""
        numbers = enumerate(self._number.tolist())
        return [self._reasons[number](unit) if number >= 0 else "cold" for unit, number in numbers]


def _callees(graph: CallGraph, ran: Rows) -> Rows:
    """What the units of the mask ``ran`` call directly."""
    found: Rows = graph.target[np.isin(graph.kind, (CALL, TAIL_CALL)) & ran[graph.source]]
    return found


def _called_by_healed(graph: CallGraph, ran: Rows, healed: Rows) -> Rows:
    """What healed units call, up to ``_HEALED_DEPTH`` calls away, not through code that ran: that has
    called what it calls."""
    reached = healed.copy()
    calls = np.isin(graph.kind, (CALL, TAIL_CALL)) & ~ran[graph.target]
    source, target = graph.source[calls], graph.target[calls]
    for _ in range(_HEALED_DEPTH):
        reached[target[reached[source]]] = True
    return np.flatnonzero(reached)


def _beside_healed(image: Image, graph: CallGraph, ran: Rows, healed: Rows) -> Rows:
    """What else the hot functions refer to that refer to a healed one of the same object: where they turned
    off the way that was traced, they may do so again. Where one object has most of the code, as with LTO, it
    says nothing of what belongs together."""
    owner = image.units["object"]
    functions = np.bincount(owner[image.units["function"]], minlength=len(image.objects))
    tells = (functions <= max(_FILE, functions.sum() // 2))[owner]
    refers = np.isin(graph.kind, _REFERS) & ran[graph.source]
    turned = (
        refers & healed[graph.target] & (owner[graph.source] == owner[graph.target]) & tells[graph.source]
    )
    from_there = _mask(image, graph.source[turned])
    found = graph.target[refers & from_there[graph.source] & ~ran[graph.target]]
    functions_of: Rows = found[image.units["function"][found]]
    return functions_of


def _small(image: Image, graph: CallGraph, refers: Rows, size: int) -> Rows:
    """Functions of at most ``size`` bytes that the edges ``refers`` lead to: code calls them, or takes
    their address; not what is answered when it is gone: the entry of a system call is small, and what it
    calls is not there."""
    tiny = image.units["function"] & (image.units["size"] <= size) & ~image.units["answered"]
    return distinct(graph.target[refers & tiny[graph.target]])


def _mask(image: Image, units: Iterable[int] | Rows) -> Rows:
    mask = np.zeros(len(image.units), bool)
    mask[units if isinstance(units, np.ndarray) else list(units)] = True
    return mask
