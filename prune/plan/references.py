"""Which function of a build refers to which, for the profile to take along
(:mod:`tracer.profiles.references`)."""

from __future__ import annotations

import numpy as np

from prune.model.callgraph import ADDRESS, CALL, TAIL_CALL
from prune.model.elf import Rows
from prune.model.functions import Functions
from tracer.profiles.references import References

#: How code refers to code.
DIRECT = (CALL, TAIL_CALL, ADDRESS)


def find_references(functions: Functions) -> References:
    """What every function refers to itself; not what the data says that it refers to."""
    image = functions.image
    owner = image.units["object"][functions.of_unit].tolist()
    rows = sorted(
        (image.objects[owner[vertex]], tuple(sorted(names)), vertex)
        for vertex, names in functions.symbols.items()
        if functions.is_code[vertex]
    )
    number = np.full(len(functions.of_unit), -1, np.int64)
    number[[vertex for _, _, vertex in rows]] = np.arange(len(rows))
    source, target, times = direct_edges(functions)
    source, target = number[source], number[target]
    known = (source >= 0) & (target >= 0)
    source, target = np.repeat(source[known], times[known]), np.repeat(target[known], times[known])
    order = np.lexsort((target, source))
    bounds = np.searchsorted(source[order], np.arange(len(rows) + 1)).tolist()
    targets = target[order].tolist()
    return References(
        tuple((name, names) for name, names, _ in rows),
        tuple(tuple(targets[bounds[i] : bounds[i + 1]]) for i in range(len(rows))),
    )


def direct_edges(functions: Functions) -> tuple[Rows, Rows, Rows]:
    """(source, target, how often) of calls, jumps, and addresses taken by code, by vertex."""
    graph = functions.graph
    chosen = np.isin(graph.kind, DIRECT) & functions.is_code[graph.source] & functions.is_code[graph.target]
    pairs, which = np.unique(
        graph.source[chosen] * len(functions.of_unit) + graph.target[chosen], return_inverse=True
    )
    times = np.bincount(which, functions.times[chosen], len(pairs)).astype(np.int64)
    return pairs // len(functions.of_unit), pairs % len(functions.of_unit), times
