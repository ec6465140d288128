"""Who refers to the inside of which unit, and which entries of kernel tables speak of which place in code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune.model.elf import SHF_EXECINSTR, Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.tables import Tables, TableUnit

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Entries:
    """Entries of kernel tables, one row each: its table's ``part`` (a unit), its ``number`` there, the
    ``unit`` and the ``place`` in it that it speaks of; it covers ``length`` bytes from there. ``ranges``: it
    holds from its place to that of the next."""

    part: Rows
    number: Rows
    unit: Rows
    place: Rows
    length: Rows
    ranges: Rows


@dataclass(frozen=True)
class Places:
    """``offset``: for every relocation of the image, the place in its target that it means; ``entry``: the
    row in ``entries`` of the table entry that it lies in, or -1."""

    offset: Rows
    entry: Rows
    entries: Entries
    _into: Rows
    _into_at: Rows
    _within: Rows
    _within_at: Rows
    _speaks: Rows
    _speaks_at: Rows

    def into(self, unit: int) -> Rows:
        """Rows of ``image.relocations`` that refer to a unit."""
        return self._into[self._into_at[unit] : self._into_at[unit + 1]]

    def within(self, unit: int) -> Rows:
        """Rows of ``image.relocations`` whose field lies in a unit, by offset."""
        return self._within[self._within_at[unit] : self._within_at[unit + 1]]

    def about(self, unit: int) -> Rows:
        """Rows of ``entries`` that speak of a unit, by place."""
        return self._speaks[self._speaks_at[unit] : self._speaks_at[unit + 1]]


def find_places(image: Image, tables: Tables, knowledge: Knowledge) -> Places:
    """The places that relocations and table entries mean."""
    rows, units = image.relocations, image.units
    value = image.symbol_value[image.definition[rows["symbol"]]]
    offset = np.where(rows["target"] >= 0, value + rows["addend"] + skew(image, rows, knowledge), -1)
    entry = np.full(len(rows), -1, np.int64)
    within, within_at = _grouped(rows["unit"], len(units), rows["offset"])
    parts: list[tuple[TableUnit, Rows, Rows, int]] = []
    before = 0
    for part in tables.parts.values():
        mine = within[within_at[part.unit] : within_at[part.unit + 1]]
        number = rows["offset"][mine] // part.entry
        entry[mine] = before + number
        parts.append((part, mine, number, before))
        before += len(part.owners)
    none = np.full(before, -1, np.int64)
    entries = Entries(
        none, none.copy(), none.copy(), none.copy(), np.ones(before, np.int64), np.zeros(before, bool)
    )
    for part, mine, number, first in parts:
        _fill(entries, image, part, first, mine, number, offset)
    into, into_at = _grouped(rows["target"], len(units), offset)
    speaks, speaks_at = _grouped(entries.unit, len(units), entries.place)
    return Places(offset, entry, entries, into, into_at, within, within_at, speaks, speaks_at)


def skew(image: Image, rows: Rows, knowledge: Knowledge) -> Rows:
    """What must be added to the addend of each relocation so that it counts from its target: the operand of
    an instruction counts from the instruction's end."""
    in_code = image.units["flags"][rows["unit"]] & SHF_EXECINSTR != 0
    found: Rows = np.where(in_code & np.isin(rows["type"], knowledge.kinds("pc32")), 4, 0)
    return found


def _fill(
    entries: Entries, image: Image, part: TableUnit, first: int, mine: Rows, number: Rows, offset: Rows
) -> None:
    """The rows of one object's part of a table."""
    here = slice(first, first + len(part.owners))
    entries.part[here], entries.number[here] = part.unit, np.arange(len(part.owners))
    rows = image.relocations
    for field in reversed(part.table.owner):
        names = (rows["offset"][mine] % part.entry == field) & (rows["target"][mine] == part.owners[number])
        entries.unit[first + number[names]] = rows["target"][mine[names]]
        entries.place[first + number[names]] = offset[mine[names]]
    entries.ranges[here] = part.table.ranges
    at = (part.table.length or {}).get(part.entry)
    if at is not None:
        row = image.units[part.unit]
        content = image.files[int(row["object"])].content(int(row["section"]))
        entries.length[here] = np.frombuffer(content, np.uint8).reshape(-1, part.entry)[:, at]


def _grouped(key: Rows, groups: int, then: Rows) -> tuple[Rows, Rows]:
    """(rows sorted by key, where each group begins among them); rows with a negative key are left out."""
    order = np.lexsort((then, key))
    order = order[np.searchsorted(key[order], 0) :]
    return order, np.searchsorted(key[order], np.arange(groups + 1))
