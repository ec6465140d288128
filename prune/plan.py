"""Decide the fate of every unit.

A unit is kept when it ran, when a root reaches it, when a rule names it, or when it is data that
something kept refers to. Everything else is dropped. The first reason that applies, in this order, is
the one recorded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prune.callgraph import ADDRESS, CALL, DATA, EDGE_KINDS, TABLE, TAIL_CALL, CallGraph
from prune.elf import Rows
from prune.image import Image, matches
from prune.knowledge import Knowledge
from prune.rules import KeepRule, apply_rules
from tracer.host import UserError, read_json, whole_file

SCHEMA = 1
WIDTHS = ("ran", "callees", "reachable")


@dataclass(frozen=True)
class Plan:
    """``keep[u]`` and ``reason[u]`` for every unit of one image; nothing else decides."""

    arch: str
    build_id: str
    width: str
    objects: tuple[tuple[str, str], ...]
    units: tuple[tuple[str, str, int], ...]
    keep: Rows
    reason: tuple[str, ...]
    unused_rules: tuple[str, ...] = ()


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
    script_symbols: frozenset[str] = frozenset(),
) -> Plan:
    """Make the plan.

    Args:
        ran: (object, section) -> which apps ran it, for every unit of the profile.
        width: how far around the hot code to keep: ``ran`` (nothing more), ``callees`` (what hot code
            calls directly), ``reachable`` (everything that any reference reaches).
        healed: as ``ran``, for what boots missed; what such a function calls directly stays as well, since
            nothing that it calls need have run before, and each would be one more round of healing.
        script_symbols: names that the linker script mentions.

    Raises:
        UserError: the profile speaks of a unit that this image does not have.
    """
    reasons: dict[int, str] = {}

    def because(units: Sequence[int], reason: Callable[[int], str]) -> None:
        for unit in units:
            reasons.setdefault(unit, reason(unit))

    hot, mended = _hot_units(image, ran), _hot_units(image, healed or {})
    because(list(hot), lambda unit: f"ran: {hot[unit]}")
    because(list(mended), lambda unit: f"healed: {mended[unit]}")
    because(_callees(graph, mended), lambda unit: "called by what was healed")
    because(_fixed(image).tolist(), lambda unit: "root: no section of its own")
    named = [int(image.symbol_unit[row]) for name, row in image.globals_.items() if name in script_symbols]
    because([unit for unit in named if unit >= 0], lambda unit: "root: named by the linker script")
    for reason, units in _roots(image, graph, knowledge):
        because(units.tolist(), lambda unit, why=reason: f"root: {why}")  # type: ignore[misc]
    ruled, unused = apply_rules(image, rules)
    because(list(ruled), lambda unit: f"rule {ruled[unit]}: {ruled[unit].reason}")
    if width == "callees":
        because(_callees(graph, hot), lambda unit: "called by code that ran")
    elif width == "reachable":
        kinds = (CALL, TAIL_CALL, ADDRESS, TABLE, DATA)
        because(
            np.flatnonzero(graph.closure(_mask(image, reasons), kinds)).tolist(), lambda unit: "reachable"
        )
    referenced = _referenced_data(image, graph, _mask(image, reasons))
    because(list(referenced), lambda unit: f"referenced by {image.unit_label(referenced[unit])}")
    keep = _mask(image, reasons)
    return Plan(
        knowledge.arch,
        build_id,
        width,
        object_digests(image.root, image.objects),
        _rows(image),
        keep,
        tuple(reasons.get(unit, "cold") for unit in range(len(keep))),
        tuple(str(rule) for rule in unused),
    )


def _rows(image: Image) -> tuple[tuple[str, str, int], ...]:
    return tuple(
        (image.objects[obj], name, size)
        for obj, name, size in zip(
            image.units["object"].tolist(), image.names, image.units["size"].tolist(), strict=True
        )
    )


def _mask(image: Image, reasons: Mapping[int, str]) -> Rows:
    mask = np.zeros(len(image.units), bool)
    mask[list(reasons)] = True
    return mask


def _hot_units(image: Image, ran: Mapping[tuple[str, str], str]) -> dict[int, str]:
    hot: dict[int, str] = {}
    for place, apps in ran.items():
        unit = image.unit_of.get(place)
        if unit is None:
            raise UserError(
                f"making the plan: the profile knows {place[0]}:{place[1]}, this kernel does not",
                "the profile is of another build: trace this one",
            )
        hot[unit] = apps
    return hot


def _callees(graph: CallGraph, units: Iterable[int]) -> list[int]:
    """What the units call directly."""
    calls = np.isin(graph.kind, (CALL, TAIL_CALL)) & np.isin(graph.source, list(units))
    found: list[int] = graph.target[calls].tolist()
    return found


def _fixed(image: Image) -> Rows:
    return np.flatnonzero(~(image.units["function"] | image.units["data"]))


def _roots(image: Image, graph: CallGraph, knowledge: Knowledge) -> list[tuple[str, Rows]]:
    """(reason, units) of each root of ``roots.toml``: its symbols and what they call, up to the barriers."""
    units_of: dict[str, list[int]] = {}
    for unit, _, _, name in image.functions:
        units_of.setdefault(name, []).append(unit)
    barriers = knowledge.roots["barriers"]["symbols"]
    barred = np.zeros(len(image.units), bool)
    for name, units in units_of.items():
        if matches(name, barriers):
            barred[units] = True
    found = [("answers pruned system calls", _units_named(units_of, [row.to for row in knowledge.redirects]))]
    for row in knowledge.roots["root"]:
        start = np.zeros(len(image.units), bool)
        start[_units_named(units_of, row["start"])] = True
        kinds = tuple(EDGE_KINDS.index(kind) for kind in row["follow"])
        found.append((row["reason"], np.flatnonzero(graph.closure(start, kinds, barred))))
    return found


def _units_named(units_of: Mapping[str, list[int]], names: Sequence[str]) -> Rows:
    return np.array([unit for name in names for unit in units_of.get(name, ())], np.int64)


def _referenced_data(image: Image, graph: CallGraph, kept: Rows) -> dict[int, int]:
    """Data unit -> the kept unit that refers to it (directly or through other data)."""
    data = image.units["data"] & ~kept
    into_data = data[graph.target]
    source, target = graph.source[into_data], graph.target[into_data]
    by: dict[int, int] = {}
    reached = kept.copy()
    while True:
        step = reached[source] & ~reached[target]
        if not step.any():
            return by
        for origin, unit in zip(source[step].tolist(), target[step].tolist(), strict=True):
            by.setdefault(unit, origin)
        reached[target[step]] = True


def object_digests(root: Path, objects: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(object, BLAKE2 of its content), to tell whether a plan is about the objects at hand."""
    return tuple(
        (name, hashlib.blake2b((root / name).read_bytes(), digest_size=12).hexdigest()) for name in objects
    )


def save_plan(plan: Plan, path: Path) -> None:
    """Write ``plan.json``: a row a unit, so that two plans can be compared with diff."""
    rows = [
        json.dumps([obj, section, size, "keep" if keep else "drop", reason])
        for (obj, section, size), keep, reason in zip(
            plan.units, plan.keep.tolist(), plan.reason, strict=True
        )
    ]
    head = {
        "schema_version": SCHEMA, "arch": plan.arch, "build_id": plan.build_id, "width": plan.width,
        "unused_rules": list(plan.unused_rules), "columns": ["object", "section", "size", "fate", "reason"],
    }  # fmt: skip
    with whole_file(path) as stream:
        stream.write(json.dumps(head)[:-1])
        stream.write(
            ',\n"objects": {\n' + ",\n".join(json.dumps(o) + ": " + json.dumps(d) for o, d in plan.objects)
        )
        stream.write('\n},\n"units": [\n' + ",\n".join(rows) + "\n]}\n")


def load_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises:
        UserError: not a plan of this schema.
    """
    value = read_json(path, "plan", SCHEMA)
    try:
        rows = value["units"]
        return Plan(
            value["arch"],
            value["build_id"],
            value["width"],
            tuple(value["objects"].items()),
            tuple((str(row[0]), str(row[1]), int(row[2])) for row in rows),
            np.array([{"keep": True, "drop": False}[row[3]] for row in rows], bool),
            tuple(str(row[4]) for row in rows),
            tuple(value["unused_rules"]),
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"reading the plan: {path}: {error!r}", "make it again: kprune plan") from error
