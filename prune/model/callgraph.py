"""The call graph: vertices are units, edges are relocations.

A relocation in an entry of a kernel table is an edge from the entry's owner, not from the table: what
``__ex_table`` says of a function matters when the function is there. What functions of an object put aside,
in one section for all of them, leads back to them, which is no edge. Rows are kept as arrays; the networkx
digraph for graph questions is made when one is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from prune.model.elf import SHF_EXECINSTR, Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.tables import Tables

if TYPE_CHECKING:
    import networkx as nx

CALL, TAIL_CALL, ADDRESS, TABLE, DATA = range(5)
EDGE_KINDS = ("call", "tail call", "address taken", "table entry", "data reference")


@dataclass(frozen=True)
class CallGraph:
    """Unique edges ``source[i] -> target[i]`` with ``kind[i]``, an index into ``EDGE_KINDS``."""

    units: int
    source: Rows
    target: Rows
    kind: Rows

    @cached_property
    def graph(self) -> nx.DiGraph:
        """networkx digraph of all units; edge attribute ``kind`` is the most direct kind."""
        import networkx as nx  # a second of importing, for those who ask

        graph = nx.DiGraph()
        graph.add_nodes_from(range(self.units))
        order = np.argsort(-self.kind, kind="stable")
        graph.add_edges_from(
            (source, target, {"kind": EDGE_KINDS[kind]})
            for source, target, kind in zip(
                self.source[order].tolist(),
                self.target[order].tolist(),
                self.kind[order].tolist(),
                strict=True,
            )
        )
        return graph

    def closure(self, start: Rows, kinds: tuple[int, ...], barred: Rows | None = None) -> Rows:
        """Boolean mask of units reached from the mask ``start`` over edges of ``kinds``.

        Units in the mask ``barred`` are reached but not left.
        """
        chosen = np.isin(self.kind, kinds)
        if barred is not None:
            chosen &= ~barred[self.source]
        return self.reach(start, chosen)

    def reach(self, start: Rows, chosen: Rows) -> Rows:
        """Boolean mask of vertices reached from the mask ``start`` over the edges of the mask ``chosen``."""
        source, target = self.source[chosen], self.target[chosen]
        reached = start.copy()
        while True:
            new = np.zeros_like(reached)
            new[target[reached[source]]] = True
            new &= ~reached
            if not new.any():
                return reached
            reached |= new


def make_call_graph(image: Image, tables: Tables, knowledge: Knowledge) -> CallGraph:
    """Edges of the image, each (source, target, kind) once."""
    _, source, target, kind = edges(image, tables, knowledge)
    return unique_edges(len(image.units), source, target, kind)


def unique_edges(vertices: int, source: Rows, target: Rows, kind: Rows) -> CallGraph:
    """A graph of these edges, each once."""
    unique = np.unique(np.stack([source, target, kind.astype(np.int64)]), axis=1)
    return CallGraph(vertices, unique[0], unique[1], unique[2])


def edges(
    image: Image, tables: Tables, knowledge: Knowledge, within: bool = False
) -> tuple[Rows, Rows, Rows, Rows]:
    """(row of ``image.relocations``, source, target, kind) of every relocation that is an edge; those from
    a unit to itself only if ``within``."""
    rows = image.relocations
    valid = (rows["target"] >= 0) & (within | (rows["target"] != tables.owner))
    executable = image.units["flags"] & SHF_EXECINSTR != 0
    aside = np.array([name in knowledge.aside for name in image.names], bool)
    valid &= ~(aside[rows["unit"]] & executable[rows["target"]])
    source, target = tables.owner[valid], rows["target"][valid]
    from_table = np.isin(rows["unit"][valid], tables.rows["unit"])
    kind = np.full(len(source), ADDRESS, np.int8)
    into_code = executable[target]
    last, two = rows["before"][valid] & 0xFF, rows["before"][valid]
    pc_relative = np.isin(rows["type"][valid], knowledge.kinds("pc32"))
    low, high = knowledge.kinds("jump_two_byte")
    jumps = np.isin(last, knowledge.kinds("jump")) | ((two >> 8 == 0x0F) & (last >= low) & (last <= high))
    from_code = executable[rows["unit"][valid]]
    kind[from_code & pc_relative & np.isin(last, knowledge.kinds("call"))] = CALL
    kind[from_code & pc_relative & jumps] = TAIL_CALL
    kind[~from_code | from_table] = TABLE
    kind[~into_code] = DATA
    return np.flatnonzero(valid), source, target, kind
