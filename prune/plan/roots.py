"""What stays for another reason than having run: roots, and the data that kept code refers to."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from prune.model.callgraph import EDGE_KINDS, CallGraph
from prune.model.elf import SHF_EXECINSTR, SHF_WRITE, Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.origins import of_whole
from prune.model.tables import Tables


def find_roots(
    image: Image, graph: CallGraph, knowledge: Knowledge, script_symbols: frozenset[str]
) -> list[tuple[str, Rows]]:
    """(reason, units): what has no section of its own, what the script names, and each root of
    ``roots.toml`` with what it reaches, up to the barriers."""
    *starts, answering, numbered = image.starts
    found: list[tuple[str, Rows]] = [
        ("no section of its own", np.flatnonzero(~(image.units["function"] | image.units["data"]))),
        ("named by the linker script", image.defining(script_symbols)),
        ("answers pruned system calls", np.array(answering, np.int64)),
        ("is in a list of types by number", np.array(numbered, np.int64)),
    ]
    barred = image.units["barred"] | _of_everything(image)
    for row, units in zip(knowledge.roots["root"], starts, strict=True):
        start = np.zeros(len(image.units), bool)
        start[list(units)] = True
        kinds = tuple(EDGE_KINDS.index(kind) for kind in row["follow"])
        reached = graph.closure(start, kinds, barred)
        found.append((row["reason"], np.flatnonzero(reached)))
    return found


def _of_everything(image: Image) -> Rows:
    """Mask of the sections that hold code of all files, in the one object that a kernel is made of, as with
    IBT: they stay anyway, and lead from everything to everything. (An entry of the console's to all of
    ``.ref.text`` kept 7% of the text of a hardened 6.12.)"""
    found: Rows = of_whole(image) & (image.units["flags"] & SHF_EXECINSTR != 0) & ~image.units["function"]
    return found


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


def parameters_that_ran(
    image: Image, graph: CallGraph, tables: Tables, ran: Container[int]
) -> dict[int, str]:
    """Unit -> why it stays, of operations that rows of a table of parameters name, where these have no
    variable (module_param_call()): nothing refers to them but the row, which stays if one of them ran."""
    named = [part.owners for part in tables.parts.values() if part.table.through]
    owners = np.unique(np.concatenate([*named, np.empty(0, np.int64)]))
    owners = owners[owners >= 0]
    constant = image.units["data"][owners] & (image.units["flags"][owners] & SHF_WRITE == 0)
    held = np.isin(graph.source, owners[constant]) & image.units["function"][graph.target]
    pairs = zip(graph.source[held].tolist(), graph.target[held].tolist(), strict=True)
    return {unit: f"a parameter: {image.unit_label(of)} ran" for unit, of in pairs if of in ran}
