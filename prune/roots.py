"""What stays for another reason than having run: roots, and the data that kept code refers to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prune.callgraph import EDGE_KINDS, CallGraph
from prune.elf import Rows
from prune.image import Image, matches
from prune.knowledge import Knowledge


def find_roots(
    image: Image, graph: CallGraph, knowledge: Knowledge, script_symbols: frozenset[str]
) -> list[tuple[str, list[int]]]:
    """(reason, units): what has no section of its own, what the script names, and each root of
    ``roots.toml`` with what it reaches, up to the barriers."""
    units_of: dict[str, list[int]] = {}
    for unit, _, _, name in image.functions:
        units_of.setdefault(name, []).append(unit)
    barriers = knowledge.roots["barriers"]["symbols"]
    barred = np.zeros(len(image.units), bool)
    for name, units in units_of.items():
        if matches(name, barriers):
            barred[units] = True
    fixed = np.flatnonzero(~(image.units["function"] | image.units["data"])).tolist()
    found = [
        ("no section of its own", fixed),
        ("named by the linker script", sorted(script_units(image, script_symbols))),
        ("answers pruned system calls", _units_named(units_of, [row.to for row in knowledge.redirects])),
    ]
    for row in knowledge.roots["root"]:
        start = np.zeros(len(image.units), bool)
        start[_units_named(units_of, row["start"])] = True
        kinds = tuple(EDGE_KINDS.index(kind) for kind in row["follow"])
        found.append((row["reason"], np.flatnonzero(graph.closure(start, kinds, barred)).tolist()))
    return found


def script_units(image: Image, script_symbols: frozenset[str]) -> frozenset[int]:
    """The units whose symbols the linker script names."""
    named = [int(image.symbol_unit[row]) for name, row in image.globals_.items() if name in script_symbols]
    return frozenset(unit for unit in named if unit >= 0)


def _units_named(units_of: Mapping[str, list[int]], names: Sequence[str]) -> list[int]:
    return [unit for name in names for unit in units_of.get(name, ())]


def referenced_data(image: Image, graph: CallGraph, kept: Rows) -> dict[int, int]:
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
