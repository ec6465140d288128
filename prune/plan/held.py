"""Functions that are called through pointers while their caller holds a lock.

From the code it shows under which locks calls by name are made (:mod:`prune.model.locks`); of calls through
pointers only the contract of a table says so, for which the kernel has Documentation/filesystems/locking.rst
and Documentation/networking/netdevices.rst. ``closure.toml`` lists, under ``locks.through``, names of
functions, and of the tables that hold them where the names alone do not tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate

import numpy as np

from prune.model.callgraph import CallGraph
from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge


def held_through(image: Image, graph: CallGraph, knowledge: Knowledge) -> Rows:
    """Mask of the units of such functions."""
    found = np.zeros(len(image.units), bool)
    for rule in knowledge.closure["locks"]["through"]:
        functions = _functions(image, rule["functions"])
        if "tables" in rule:
            functions &= _held_by(image, graph, rule["tables"])
        found |= functions
    return found


def _functions(image: Image, patterns: Sequence[str]) -> Rows:
    wanted = _any_of(patterns)
    found = np.zeros(len(image.units), bool)
    # Compilers add to names (.isra.0).
    found[[unit for unit, _, _, name in image.functions if wanted(name.partition(".")[0])]] = True
    return found


def _held_by(image: Image, graph: CallGraph, patterns: Sequence[str]) -> Rows:
    """Mask of what data refers to whose name is one of a table's; it has a section of its own."""
    wanted = _any_of(f"*.{pattern}" for pattern in patterns)
    tables = image.units["data"] & np.fromiter(map(wanted, image.names), bool, len(image.names))
    found = np.zeros(len(image.units), bool)
    found[graph.target[tables[graph.source]]] = True
    return found


def _any_of(patterns: Iterable[str]) -> Callable[[str], bool]:
    matches = re.compile("|".join(map(translate, patterns))).match
    return lambda name: matches(name) is not None
