"""What user space can come to in a kernel: the system calls that answer, and the functions behind each.

*Reachable* is meant statically, from the entry of a system call on, by the objects' relocations, and by the
calls that the assembler has resolved. No value is followed. Three answers, the second holding the first:

    direct    calls and jumps to a function by its name alone. An indirect call leads nowhere: a lower bound
    referred  besides, what is referred to: functions whose address such code takes, or finds in data that it
              refers to, in any depth. A pointer that somebody else has put into memory (a driver that has
              registered itself) is not followed, so this is no upper bound
    pointers  of all system calls together: as if any indirect call could lead to any function whose address
              resident code or data holds (also as a jump table does, inside of it). An upper bound, but for
              code that is made at run time

An entry counts itself. What is freed after boot is neither reached nor counted: it is not there any more when
programs ask. A function is what has a symbol: aliases are one, so are those that a short branch holds
together (:mod:`prune.model.apart`); clones and cold parts are of their own. Its bytes are those of the link,
without blocks that were taken out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prune.ledger.sizes import original_object, unit_placed
from prune.model.callgraph import ADDRESS, CALL, TABLE, TAIL_CALL
from prune.model.elf import Rows
from prune.model.functions import Functions
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.linkmap import LinkMap
from prune.security.reach import Amount, amount, amounts, reach_each

DIRECT = (CALL, TAIL_CALL)
#: Kinds of edges by which a function's address is held.
HELD = (ADDRESS, TABLE)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a build: ``size[u]`` bytes of each unit of its image that is in it, 0 for none;
    ``freed``: mask of those that are freed after boot. The graph of ``functions`` has what is in it and
    more."""

    functions: Functions
    size: Rows
    freed: Rows

    @cached_property
    def there(self) -> Rows:
        """Mask of the vertices that are resident."""
        resident: Rows = ((self.size > 0) & ~self.freed)[self.functions.of_unit]
        return resident

    @cached_property
    def is_function(self) -> Rows:
        mask: Rows = self.functions.mask(self.functions.symbols) & self.functions.is_code
        return mask

    @cached_property
    def counted(self) -> Rows:
        """Mask of the functions that are resident."""
        mask: Rows = self.is_function & self.there
        return mask

    @cached_property
    def bytes(self) -> Rows:
        """Of each vertex; a function that shares a unit reaches to the next one."""
        keys = self.functions.keys
        unit, offset = keys >> 32, keys & 0xFFFFFFFF
        end = self.size[unit]
        inside = np.flatnonzero(unit[1:] == unit[:-1])
        end[inside] = offset[inside + 1]
        return np.concatenate([self.size, np.maximum(end - offset, 0)])

    def edges(self, kinds: Collection[int] | None) -> Rows:
        """Mask of the edges of these kinds, or of all, between what is resident."""
        graph = self.functions.graph
        mask: Rows = self.there[graph.source] & self.there[graph.target]
        return mask if kinds is None else mask & np.isin(graph.kind, list(kinds))


@dataclass(frozen=True)
class Reached:
    """What one system call reaches; see the module for what that means."""

    direct: Amount
    referred: Amount


@dataclass(frozen=True)
class SystemCall:
    """One that answers programs of ``bits`` in the base kernel; ``base``, ``pruned``: what is behind it, None
    where it does not answer."""

    name: str
    bits: int
    entry: str
    base: Reached | None
    pruned: Reached | None


@dataclass(frozen=True)
class Whole:
    """All resident functions of a kernel, and what all system calls together reach of them."""

    all: Amount
    direct: Amount
    referred: Amount
    pointers: Amount


def kernel_of(functions: Functions, link_map: LinkMap) -> Kernel:
    """The kernel that a link map is of; the sections of the base's map as they were taken apart."""
    image = functions.image
    size = np.zeros(len(image.units), np.int64)
    freed = np.zeros(len(image.units), bool)
    begin, end = link_map.init
    for row in link_map.placed:
        unit, _ = unit_placed(image, original_object(row.object), row.section) if row.size else (None, False)
        if unit is not None:
            size[unit] += row.size
            freed[unit] = begin <= row.address < end
    return Kernel(functions, size, freed)


def find_entries(functions: Functions, knowledge: Knowledge) -> dict[str, tuple[str, int, int]]:
    """Entry -> (name, bits, vertex) of all system calls that something leads to, answered or not.

    Where a kernel has nothing of what is known to lead to them, all entries that its link has.
    """
    found: dict[str, tuple[str, int, int]] = {}
    named, graph = functions.named, functions.graph
    for kind in knowledge.system_calls:
        origins = functions.mask(vertex for name in kind.origins for vertex in named.get(name, ()))
        led = np.zeros(len(origins), bool)
        led[graph.target[origins[graph.source]]] = True
        for entry, vertices in named.items():
            prefix = next((each for each in kind.prefixes if entry.startswith(each)), None)
            if prefix is None:
                continue
            chosen = (
                [v for v in vertices if led[v]]
                if origins.any()
                else _defined(functions.image, entry, vertices)
            )
            if chosen:
                found[entry] = (entry.removeprefix(prefix), kind.bits, chosen[0])
    return found


def _defined(image: Image, entry: str, vertices: list[int]) -> list[int]:
    row = image.globals_.get(entry)
    unit = int(image.symbol_unit[row]) if row is not None else -1
    return [unit] if unit in vertices else []


def measure_calls(
    kernels: Mapping[str, Kernel], answering: Mapping[str, Collection[str]],
    entries: Mapping[str, tuple[str, int, int]],
) -> tuple[tuple[SystemCall, ...], dict[str, Whole]]:  # fmt: skip
    """Every system call that answers in the base, and the sums of each kernel.

    Args:
        kernels: of ``base`` and ``pruned``, with the same vertices.
        answering: the entries that answer in each, by the kernel's own symbols.
        entries: of :func:`find_entries`.
    """
    reached: dict[str, dict[str, Reached]] = {}
    sums: dict[str, Whole] = {}
    for side, kernel in kernels.items():
        mine = [
            entry for entry, (_, _, at) in entries.items() if entry in answering[side] and kernel.there[at]
        ]
        reached[side], sums[side] = _behind(kernel, {entry: entries[entry][2] for entry in mine})
    calls = [
        SystemCall(name, bits, entry, reached["base"].get(entry), reached["pruned"].get(entry))
        for entry, (name, bits, _) in entries.items()
        if any(entry in reached[side] for side in kernels)
    ]
    return tuple(sorted(calls, key=lambda call: (-call.bits, call.name, call.entry))), sums


def _behind(kernel: Kernel, entries: Mapping[str, int]) -> tuple[dict[str, Reached], Whole]:
    """What is behind each entry, and behind all of them."""
    starts = list(entries.values())
    graph, size, counted = kernel.functions.graph, kernel.bytes, kernel.counted
    each, unions = [], []
    for kinds in (DIRECT, None):
        bits = reach_each(graph, len(counted), starts, kernel.edges(kinds))
        each.append(amounts(bits, len(starts), counted, size))
        unions.append(amount(counted & bits.any(axis=1), size))
    found = {entry: Reached(*pair) for entry, pair in zip(entries, zip(*each, strict=True), strict=True)}
    start = kernel.functions.mask(starts)
    start[graph.target[kernel.edges(HELD)]] = True
    pointers = graph.reach(start & kernel.there, kernel.edges(DIRECT))
    direct, referred = unions
    return found, Whole(amount(counted, size), direct, referred, amount(counted & pointers, size))
