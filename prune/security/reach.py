"""What many vertices of a graph reach, all at once: a bit for each of them at every vertex.

Every vertex gets the bits of those that refer to it, over and over until nothing changes: as many rounds as
the longest shortest path has edges, each of them a few array operations over all edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prune.model.callgraph import CallGraph
from prune.model.elf import Rows

#: Vertices whose bits are counted at a time: a byte for each bit of them.
_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Amount:
    """How many functions, and their bytes."""

    functions: int
    bytes: int


def reach_each(graph: CallGraph, vertices: int, starts: Sequence[int], chosen: Rows) -> Rows:
    """Packed bits, a row for each of the ``vertices``: bit ``i`` says that ``starts[i]`` reaches it over
    edges of the mask ``chosen``. Every start reaches itself."""
    found = np.zeros((vertices, (len(starts) + 7) // 8), np.uint8)
    for bit, vertex in enumerate(starts):
        found[vertex, bit >> 3] |= 1 << (bit & 7)
    order = np.argsort(graph.target[chosen], kind="stable")
    source, target = graph.source[chosen][order], graph.target[chosen][order]
    if not len(source) or not starts:
        return found
    first = np.flatnonzero(np.concatenate([[True], target[1:] != target[:-1]]))
    into = target[first]
    while True:
        new = np.bitwise_or.reduceat(found[source], first, axis=0) | found[into]
        if np.array_equal(new, found[into]):
            return found
        found[into] = new


def amounts(bits: Rows, starts: int, counted: Rows, size: Rows) -> list[Amount]:
    """For each start what it reaches of the vertices in the mask ``counted``, of ``size`` bytes each."""
    functions, total = np.zeros(starts, np.int64), np.zeros(starts, np.int64)
    rows = np.flatnonzero(counted)
    for at in range(0, len(rows), _AT_ONCE):
        part = rows[at : at + _AT_ONCE]
        each = np.unpackbits(bits[part], axis=1, count=starts, bitorder="little")
        functions += each.sum(axis=0, dtype=np.int64)
        total += size[part] @ each.astype(np.int64)
    return [Amount(*pair) for pair in zip(functions.tolist(), total.tolist(), strict=True)]


def amount(counted: Rows, size: Rows) -> Amount:
    """All of the mask."""
    return Amount(int(counted.sum()), int(size[counted].sum()))
