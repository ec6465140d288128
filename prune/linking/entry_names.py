"""Symbols of entries of kernel tables (``__param_debug``) move with these, and go with those that go.

With KALLSYMS_ALL the kernel has their names, too; one that was left would name the entry behind it.
"""

from __future__ import annotations

import numpy as np

from prune.model.elf import SHN_LORESERVE, SHN_XINDEX, STT_SECTION, Rows
from prune.model.image import Image
from prune.model.layout import put, put_column


def move_names(
    data: Rows, image: Image, keep: Rows, unit: Rows, entry: Rows, first: Rows, entries: Rows, stays: Rows
) -> None:
    """Edit the symbols that lie in tables which lose entries.

    Args:
        unit, entry, first, entries: of each such table the unit, bytes of an entry, where its entries begin
            in ``stays``, and how many it has.
    """
    position = np.full(len(image.units) + 1, -1, np.int64)  # symbols of no unit have -1
    position[unit] = np.arange(len(unit))
    table = position[image.symbol_unit]
    rows = np.flatnonzero((table >= 0) & (image.symbols["info"] & 15 != STT_SECTION))
    if not len(rows):
        return
    table = table[rows]
    value = image.symbol_value[rows]
    number = np.minimum(value // entry[table], entries[table])
    gone = np.concatenate([[0], np.cumsum(~stays)])
    moved = value - (gone[first[table] + number] - gone[first[table]]) * entry[table]
    put_column(data, image.symbol_at(rows), image.machine.layout.symbol, "value", moved)
    inside = number < entries[table]
    lost = np.flatnonzero(inside)[~stays[first[table[inside]] + number[inside]]]
    _discard(data, image, keep, rows[lost])


def _discard(data: Rows, image: Image, keep: Rows, rows: Rows) -> None:
    """Put symbols into a section of their object that the script discards, as it does then with them."""
    obj = np.searchsorted(image.symbols_at, rows, "right") - 1
    dropped = np.flatnonzero(~keep)
    owners, at = np.unique(image.units["object"][dropped], return_index=True)
    place = np.clip(np.searchsorted(owners, obj), 0, max(len(owners) - 1, 0))
    has = owners[place] == obj if len(owners) else np.zeros(len(rows), bool)
    rows, obj = rows[has], obj[has]
    section = image.units["section"][dropped[at[place[has]]]].astype(np.int64)
    wide = section >= SHN_LORESERVE
    layout = image.machine.layout.symbol
    put_column(data, image.symbol_at(rows), layout, "shndx", np.where(wide, SHN_XINDEX, section))
    tables = image.parts["shndx_at"][obj]
    listed = tables >= 0
    index = rows[listed] - image.symbols_at[obj[listed]]
    put(data, tables[listed] + 4 * index, np.where(wide, section, 0)[listed].astype("<u4"))
