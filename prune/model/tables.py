"""Kernel tables: how large their entries are in this kernel, and whom each entry belongs to.

An entry of ``__ex_table`` or ``.altinstructions`` speaks about a place in code; the unit that holds the
place owns the entry. When the owner is dropped the entry must go, because the kernel would patch or
search at an address that no longer exists. Entry sizes depend on the configuration, so they are probed:
the size must divide the table of every object and put a relocation at the owner's field of every entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from prune.model.elf import SHF_EXECINSTR, SHF_WRITE, Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge, Table
from tracer.host import UserError

#: Owners that are no units: the entry speaks of nothing; it speaks of code that was taken out of its unit.
NOBODY, GONE = -1, -2


PART = np.dtype(
    [
        ("unit", "<i4"), ("table", "<i4"), ("entry", "<i8"), ("first", "<i8"), ("entries", "<i8"),
        ("pair", "<i4"), ("pair_entry", "<i8"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class TableUnit:
    """One object's part of a kernel table. ``owners[i]``: unit that owns entry ``i``, or one of the above."""

    table: Table
    unit: int
    entry: int
    owners: Rows
    pair: int | None
    pair_entry: int


@dataclass(frozen=True)
class Tables:
    """All parts of tables, an object's share of one each.

    ``rows``: ``PART`` rows; ``table`` is an index into ``known``, a part's entries are those from ``first``
    on among the ``owners``, ``pair`` is the unit that has a row for each entry, or -1. ``owner`` maps each
    relocation of the image to the unit it speaks for.
    """

    known: tuple[Table, ...]
    rows: Rows
    owners: Rows
    owner: Rows

    @cached_property
    def parts(self) -> dict[int, TableUnit]:
        """Unit -> its part."""
        return {int(row["unit"]): self._part(row) for row in self.rows}

    def _part(self, row: Any) -> TableUnit:
        first = int(row["first"])
        pair = int(row["pair"])
        return TableUnit(
            self.known[int(row["table"])], int(row["unit"]), int(row["entry"]),
            self.owners[first : first + int(row["entries"])], pair if pair >= 0 else None,
            int(row["pair_entry"]),
        )  # fmt: skip


def find_tables(image: Image, knowledge: Knowledge) -> Tables:
    """Probe every table of the image.

    Raises:
        UserError: no known entry size fits, so kprune does not know this kernel's layout.
    """
    owner = image.relocations["unit"].copy()
    kind: dict[str, Table | None] = {name: knowledge.table_of(name) for name in set(image.names)}
    rows: list[Rows] = [np.empty(0, PART)]
    owners: list[Rows] = [np.empty(0, np.int64)]
    for number, table in enumerate(knowledge.tables):
        units = np.array([u for u, name in enumerate(image.names) if kind[name] is table], np.int64)
        if len(units):
            part, owns = _probe(image, table, units, owner)
            part["table"] = number
            part["first"] += sum(map(len, owners))
            rows.append(part)
            owners.append(owns)
    found = Tables(knowledge.tables, np.concatenate(rows), np.concatenate(owners), owner)
    _refuse_unknown(image, found.rows, knowledge)
    return found


def _refuse_unknown(image: Image, parts: Rows, knowledge: Knowledge) -> None:
    """A section that says, relative to itself, where instructions within functions are is a table of places:
    the kernel would patch them although their function is gone.

    Raises:
        UserError: there is such a section, and it is no table that is described.
    """
    rows, units = image.relocations, image.units
    known = np.zeros(len(units), bool)
    known[parts["unit"]] = True
    known[parts["pair"][parts["pair"] >= 0]] = True
    fixed = ~known & ~units["data"] & (units["flags"] & SHF_EXECINSTR == 0)
    defined = (rows["target"] >= 0) & fixed[rows["unit"]] & np.isin(rows["type"], knowledge.kinds("pc32"))
    some = rows[defined]
    offset = image.symbol_value[image.definition[some["symbol"]]] + some["addend"]
    inside = units["function"][some["target"]] & (offset > 0) & (offset < units["size"][some["target"]])
    if inside.any():
        label = image.unit_label(int(some["unit"][inside][0]))
        raise UserError(
            f"reading the kernel's tables: {label} lists places in code, and is no table that kprune knows",
            "describe it in linkerscripts/",
        )


def _probe(image: Image, table: Table, units: Rows, owner: Rows) -> tuple[Rows, Rows]:
    """(``PART`` rows of one table, the owners of their entries); ``owner`` learns whom the table's
    relocations speak for."""
    position = np.full(len(image.units), -1, np.int64)
    position[units] = np.arange(len(units))
    rows = np.flatnonzero(position[image.relocations["unit"]] >= 0)
    which = position[image.relocations["unit"][rows]]
    offsets = image.relocations["offset"][rows]
    sizes = image.units["size"][units]
    entry = _entry_size(image, table, units, rows, which)
    first = np.concatenate([[0], np.cumsum(sizes // entry)])
    owners = np.full(int(first[-1]), -1, np.int64)
    for field in reversed(table.owner):
        owns = offsets % entry == field
        owners[first[which[owns]] + offsets[owns] // entry] = image.relocations["target"][rows[owns]]
    if table.through:
        owners = _through(image, owners)
    found = owners[first[which] + offsets // entry]
    owner[rows] = np.where(found >= 0, found, owner[rows])
    parts = np.zeros(len(units), PART)
    parts["unit"], parts["entry"], parts["first"], parts["entries"] = units, entry, first[:-1], sizes // entry
    for part in parts:
        part["pair"], part["pair_entry"] = _pair(image, table, int(part["unit"]), int(part["entries"]))
    return parts, owners


def _entry_size(image: Image, table: Table, units: Rows, rows: Rows, which: Rows) -> int:
    """The first of the sizes that fit of which the fewest owners are outside code: every half of an entry of
    16 bytes may have a relocation where one of 8 has its owner's.

    Args:
        units: the table's. rows: the relocations in them, ``which`` of the units each is in.
    """
    sizes, offsets = image.units["size"][units], image.relocations["offset"][rows]
    targets = image.relocations["target"][rows]
    is_code = (targets >= 0) & (image.units["flags"][targets] & SHF_EXECINSTR != 0)
    fitting: list[tuple[int, int]] = []
    for entry in table.entry:
        if np.any(sizes % entry):
            continue
        owns = np.isin(offsets % entry, table.owner)
        owned = np.unique(np.stack([which, offsets // entry])[:, owns], axis=1)
        if np.array_equal(np.bincount(owned[0], minlength=len(sizes)), sizes // entry):
            fitting.append((int(np.count_nonzero(owns & ~is_code)), entry))
    if not fitting:
        raise UserError(
            f"reading kernel table {table.section}: no entry size of {list(table.entry)} fits this kernel",
            "describe the table in linkerscripts/",
        )
    return min(fitting, key=lambda found: found[0])[1]


def _through(image: Image, owners: Rows) -> Rows:
    """Where an owner is a constant that only describes a variable (struct kparam_array), the variable."""
    rows = image.relocations
    writable = image.units["flags"] & SHF_WRITE != 0
    stands_for = np.arange(len(image.units))
    refers = (rows["target"] >= 0) & writable[rows["target"]] & ~writable[rows["unit"]]
    refers &= image.units["data"][rows["unit"]]
    stands_for[rows["unit"][refers]] = rows["target"][refers]
    return np.where(owners >= 0, stands_for[owners], -1)


def _pair(image: Image, table: Table, unit: int, entries: int) -> tuple[int, int]:
    """(the unit that has a row for each entry, -1 for none, the size of such a row)"""
    if table.pair is None:
        return -1, 0
    label = image.objects[int(image.units["object"][unit])]
    pair = image.unit_of.get((label, table.pair))
    size = int(image.units["size"][pair]) if pair is not None else 0
    if pair is None or size not in [entries * entry for entry in table.pair_entry]:
        raise UserError(
            f"reading kernel table {table.section} of {label}: {table.pair} does not match it row by row",
            "describe the table in linkerscripts/",
        )
    return pair, size // entries
