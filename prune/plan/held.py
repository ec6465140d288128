"""Functions that are called through pointers while their caller holds a lock.

From the code it shows under which locks calls by name are made (:mod:`prune.model.locks`); of calls through
pointers only the contract of a table says so, for which the kernel has Documentation/filesystems/locking.rst
and Documentation/networking/netdevices.rst. ``closure.toml`` lists, under ``locks.through``, names of
functions, and of the tables that hold them where the names alone do not tell.
"""

from __future__ import annotations

import numpy as np

from prune.model.callgraph import CallGraph
from prune.model.elf import Rows
from prune.model.image import Image, expression
from prune.model.knowledge import Knowledge


def held_through(image: Image, graph: CallGraph, knowledge: Knowledge) -> Rows:
    """Mask of the units of such functions."""
    rules = knowledge.closure["locks"]["through"]
    names: dict[int, list[str]] = {}
    for unit, _, _, name in image.functions:
        names.setdefault(unit, []).append(name.partition(".")[0])  # compilers add to it (.isra.0)
    free = (pattern for rule in rules if "tables" not in rule for pattern in rule["functions"])
    anywhere = expression(tuple(free)).match
    chosen = [unit for unit, mine in names.items() if any(map(anywhere, mine))]
    # A table has a section of its own, called by its name.
    data = np.flatnonzero(image.units["data"])
    sections = [image.names[unit] for unit in data.tolist()]
    for rule in rules:
        if "tables" in rule:
            is_table = expression(tuple(f"*.{pattern}" for pattern in rule["tables"])).match
            tables = data[np.array([is_table(section) is not None for section in sections], bool)]
            wanted = expression(tuple(rule["functions"])).match
            held = np.unique(graph.target[np.isin(graph.source, tables)]).tolist()
            chosen += [unit for unit in held if any(map(wanted, names.get(unit, ())))]
    found = np.zeros(len(image.units), bool)
    found[chosen] = True
    return found
