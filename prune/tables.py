"""Kernel tables: how large their entries are in this kernel, and whom each entry belongs to.

An entry of ``__ex_table`` or ``.altinstructions`` speaks about a place in code; the unit that holds the
place owns the entry. When the owner is dropped the entry must go, because the kernel would patch or
search at an address that no longer exists. Entry sizes depend on the configuration, so they are probed:
the size must divide the table of every object and put a relocation at the owner's field of every entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prune.elf import SHF_EXECINSTR, SHF_WRITE, Rows
from prune.image import Image
from prune.knowledge import Knowledge, Table
from tracer.host import UserError

#: Owners that are no units: the entry speaks of nothing; it speaks of code that was taken out of its unit.
NOBODY, GONE = -1, -2


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
    """All table parts, by unit; ``owner`` maps each relocation of the image to the unit it speaks for."""

    parts: dict[int, TableUnit]
    owner: Rows


def find_tables(image: Image, knowledge: Knowledge) -> Tables:
    """Probe every table of the image.

    Raises:
        UserError: no known entry size fits, so kprune does not know this kernel's layout.
    """
    owner = image.relocations["unit"].copy()
    parts: dict[int, TableUnit] = {}
    kind: dict[str, Table | None] = {name: knowledge.table_of(name) for name in set(image.names)}
    for table in knowledge.tables:
        units = np.array([u for u, name in enumerate(image.names) if kind[name] is table], np.int64)
        if len(units):
            for part in _probe(image, table, units, owner):
                parts[part.unit] = part
    _refuse_unknown(image, parts, knowledge)
    return Tables(parts, owner)


def _refuse_unknown(image: Image, parts: Mapping[int, TableUnit], knowledge: Knowledge) -> None:
    """A section that says, relative to itself, where instructions within functions are is a table of places:
    the kernel would patch them although their function is gone.

    Raises:
        UserError: there is such a section, and it is no table that is described.
    """
    rows, units = image.relocations, image.units
    known = np.zeros(len(units), bool)
    known[[*parts, *(part.pair for part in parts.values() if part.pair is not None)]] = True
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


def _probe(image: Image, table: Table, units: Rows, owner: Rows) -> list[TableUnit]:
    position = np.full(len(image.units), -1, np.int64)
    position[units] = np.arange(len(units))
    rows = np.flatnonzero(position[image.relocations["unit"]] >= 0)
    which = position[image.relocations["unit"][rows]]
    offsets = image.relocations["offset"][rows]
    sizes = image.units["size"][units]
    entry = _entry_size(table, sizes, which, offsets)
    first = np.concatenate([[0], np.cumsum(sizes // entry)])
    owners = np.full(int(first[-1]), -1, np.int64)
    for field in reversed(table.owner):
        owns = offsets % entry == field
        owners[first[which[owns]] + offsets[owns] // entry] = image.relocations["target"][rows[owns]]
    if table.through:
        owners = _through(image, owners)
    found = owners[first[which] + offsets // entry]
    owner[rows] = np.where(found >= 0, found, owner[rows])
    pairs = [
        _pair(image, table, int(unit), int(size) // entry) for unit, size in zip(units, sizes, strict=True)
    ]
    return [
        TableUnit(table, int(unit), entry, owners[first[i] : first[i + 1]], *pairs[i])
        for i, unit in enumerate(units)
    ]


def _entry_size(table: Table, sizes: Rows, which: Rows, offsets: Rows) -> int:
    for entry in table.entry:
        if np.any(sizes % entry):
            continue
        owned = np.unique(
            np.stack([which, offsets // entry])[:, np.isin(offsets % entry, table.owner)], axis=1
        )
        if np.array_equal(np.bincount(owned[0], minlength=len(sizes)), sizes // entry):
            return entry
    raise UserError(
        f"reading kernel table {table.section}: no entry size of {list(table.entry)} fits this kernel",
        "describe the table in linkerscripts/",
    )


def _through(image: Image, owners: Rows) -> Rows:
    """Where an owner is a constant that only describes a variable (struct kparam_array), the variable."""
    rows = image.relocations
    writable = image.units["flags"] & SHF_WRITE != 0
    stands_for = np.arange(len(image.units))
    refers = (rows["target"] >= 0) & writable[rows["target"]] & ~writable[rows["unit"]]
    refers &= image.units["data"][rows["unit"]]
    stands_for[rows["unit"][refers]] = rows["target"][refers]
    return np.where(owners >= 0, stands_for[owners], -1)


def _pair(image: Image, table: Table, unit: int, entries: int) -> tuple[int | None, int]:
    if table.pair is None:
        return None, 0
    label = image.objects[int(image.units["object"][unit])]
    pair = image.unit_of.get((label, table.pair))
    size = int(image.units["size"][pair]) if pair is not None else 0
    if pair is None or size not in [entries * entry for entry in table.pair_entry]:
        raise UserError(
            f"reading kernel table {table.section} of {label}: {table.pair} does not match it row by row",
            "describe the table in linkerscripts/",
        )
    return pair, size // entries
