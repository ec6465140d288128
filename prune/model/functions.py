"""The call graph by function: code that shares a section is taken apart at its symbols.

A unit is what a linker can drop, and all ``__init`` code of an object is one. To say what early boot runs,
its functions must be told apart. Vertices below ``units`` are units (a function with a section of its own,
data); behind them is one for each function in a section with others. The assembler resolves calls within a
section, so these leave no relocation: they are decoded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prune.model.callgraph import CALL, CallGraph, edges
from prune.model.elf import SHF_EXECINSTR, Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.tables import Tables

_SHIFT = 32


@dataclass(frozen=True)
class Functions:
    """``keys[i]``: unit << 32 | offset of vertex ``units + i``, ascending; ``names[i]``: its symbols;
    ``times[i]``: how many references edge ``i`` of the graph stands for."""

    image: Image
    keys: Rows
    names: tuple[tuple[str, ...], ...]
    graph: CallGraph
    times: Rows

    @property
    def units(self) -> int:
        return len(self.image.units)

    @cached_property
    def of_unit(self) -> Rows:
        """Vertex -> the unit that it is, or that it lies in."""
        return np.concatenate([np.arange(self.units), self.keys >> _SHIFT])

    @cached_property
    def is_code(self) -> Rows:
        """Mask of the vertices that are code."""
        executable: Rows = self.image.units["flags"][self.of_unit] & SHF_EXECINSTR != 0
        return executable

    @cached_property
    def symbols(self) -> dict[int, list[str]]:
        """Vertex -> the names of the function that it is."""
        found: dict[int, list[str]] = defaultdict(list)
        found.update({self.units + i: list(names) for i, names in enumerate(self.names)})
        for unit, _, _, name in self.image.functions:
            if self.image.units["function"][unit]:
                found[unit].append(name)
        return dict(found)

    @cached_property
    def named(self) -> dict[str, list[int]]:
        """Symbol -> vertices; of data too, where the section is that symbol's own."""
        found: dict[str, list[int]] = defaultdict(list)
        for vertex, names in self.symbols.items():
            for name in names:
                found[name].append(vertex)
        for name, row in self.image.globals_.items():
            unit = int(self.image.symbol_unit[row])
            if unit >= 0 and not self.is_code[unit]:
                found[name].append(unit)
        return dict(found)

    @cached_property
    def _alone(self) -> list[bool]:
        alone: list[bool] = self.image.units["function"].tolist()
        return alone

    def find(self, object: str, section: str, symbol: str) -> list[int]:
        """The vertices of a function as a profile names it."""
        unit = self.image.unit_at(object, section)
        if unit < 0:
            return []
        if self._alone[unit]:
            return [unit]
        first, last = np.searchsorted(self.keys, [unit << _SHIFT, unit + 1 << _SHIFT]).tolist()
        return [self.units + i for i in range(first, last) if symbol in self.names[i]]

    def mask(self, vertices: Iterable[int]) -> Rows:
        made = np.zeros(len(self.of_unit), bool)
        made[list(vertices)] = True
        return made


def make_functions(image: Image, tables: Tables, knowledge: Knowledge) -> Functions:
    """Take an image apart."""
    shared = (image.units["flags"] & SHF_EXECINSTR != 0) & ~image.units["function"]
    symbols: dict[int, list[str]] = defaultdict(list)
    for unit, offset, _, name in image.functions:
        if shared[unit]:
            symbols[unit << _SHIFT | offset].append(name)
    keys = np.array(sorted(symbols), np.int64)
    names = tuple(tuple(symbols[key]) for key in keys.tolist())
    rows, source, target, kind = edges(image, tables, knowledge, within=True)
    # Lists that booting goes through call what they name; the others only speak of their owners.
    lists = tables.rows["unit"][[tables.known[number].calls for number in tables.rows["table"]]]
    called = np.isin(image.relocations["unit"][rows], lists)
    source = np.where(called, image.relocations["unit"][rows], source)
    plain = called | ~np.isin(image.relocations["unit"][rows], tables.rows["unit"])
    rows, source, target, kind = rows[plain], source[plain], target[plain], kind[plain]
    source = _vertex(keys, len(image.units), source, image.relocations["offset"][rows].astype(np.int64))
    inside = np.flatnonzero(shared[target])
    target[inside] = _vertex(
        keys, len(image.units), target[inside], _target_offsets(image, rows[inside], knowledge)
    )
    calls = np.array(list(_calls_within(image, shared, knowledge)), np.int64).reshape(-1, 3)
    source = np.concatenate([source, _vertex(keys, len(image.units), calls[:, 0], calls[:, 1])])
    target = np.concatenate([target, _vertex(keys, len(image.units), calls[:, 0], calls[:, 2])])
    kind = np.concatenate([kind, np.full(len(calls), CALL, kind.dtype)])
    other = source != target
    each = np.stack([source[other], target[other], kind[other].astype(np.int64)])
    unique, times = np.unique(each, axis=1, return_counts=True)
    graph = CallGraph(len(image.units) + len(keys), unique[0], unique[1], unique[2])
    return Functions(image, keys, names, graph, times)


def _vertex(keys: Rows, units: int, unit: Rows, offset: Rows) -> Rows:
    """The vertex at an offset of each unit: a function in it, else the unit itself."""
    if not len(keys):
        return unit.astype(np.int64)
    at = np.searchsorted(keys, unit.astype(np.int64) << _SHIFT | np.maximum(offset, 0), side="right") - 1
    inside = (at >= 0) & (keys[at] >> _SHIFT == unit)
    return np.where(inside, units + at, unit).astype(np.int64)


def _target_offsets(image: Image, rows: Rows, knowledge: Knowledge) -> Rows:
    """Where in its target's unit each relocation points."""
    relocations = image.relocations[rows]
    value = image.symbol_value[image.definition[relocations["symbol"]]]
    # psABI: a PC-relative field counts from itself, an instruction from its end.
    from_code = image.units["flags"][relocations["unit"]] & SHF_EXECINSTR != 0
    after = np.where(from_code & np.isin(relocations["type"], knowledge.kinds("pc32")), 4, 0)
    offsets: Rows = value + relocations["addend"] + after
    return offsets


def _calls_within(image: Image, shared: Rows, knowledge: Knowledge) -> Iterator[tuple[int, int, int]]:
    """(unit, from, to) of the calls and jumps that the assembler has resolved."""
    import capstone

    known = knowledge.disassembler
    decoder = capstone.Cs(getattr(capstone, known["arch"]), getattr(capstone, known["mode"]))
    decoder.skipdata = True
    branches = tuple(known["branches"])
    relocations = image.relocations
    by_unit: dict[int, set[int]] = defaultdict(set)
    for row in np.flatnonzero(shared[relocations["unit"]]).tolist():
        by_unit[int(relocations["unit"][row])].add(int(relocations["offset"][row]))
    for unit in np.flatnonzero(shared).tolist():
        row = image.units[unit]
        code = bytes(image.files[int(row["object"])].content(int(row["section"])))
        fields = by_unit[unit]
        for address, size, mnemonic, operand in decoder.disasm_lite(code, 0):
            if mnemonic.startswith(branches) and operand[:1].isdigit():
                target = int(operand, 0)
                if target < len(code) and address + size - 4 not in fields:
                    yield unit, address, target
