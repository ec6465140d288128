"""Kernel tables lose the entries whose owner was dropped; relocations, symbols and references follow.

An entry that stays moves down by those before it that went. Code may name an entry: in 7.x ``WARN()`` hands
the address of its own on (``lea``, arch/x86/include/asm/bug.h).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune.linking.entry_names import move_names
from prune.model.elf import STT_SECTION, Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.layout import put
from prune.model.places import skew
from prune.model.room import put_addends, put_headers
from prune.model.strings import spread
from prune.model.tables import NOBODY, Tables
from tracer.host import UserError


@dataclass(frozen=True)
class Cut:
    """The tables that lose entries, a row each: the ``unit``, bytes of an ``entry``, where its ``entries``
    begin (``first``) in ``stays``, which says of every entry of all tables whether it stays; ``gone``: how
    many before each do not."""

    unit: Rows
    entry: Rows
    first: Rows
    entries: Rows
    stays: Rows
    gone: Rows


def find_cut(tables: Tables, keep: Rows) -> Cut:
    """Which entries go: those that speak of what does."""
    stays = (tables.owners == NOBODY) | (tables.owners >= 0) & keep[tables.owners]
    rows = tables.rows
    gone = np.concatenate([[0], np.cumsum(~stays)])
    lost = gone[rows["first"] + rows["entries"]] - gone[rows["first"]]
    rows = rows[lost > 0]
    pairs = rows[rows["pair"] >= 0]
    return Cut(
        np.concatenate([rows["unit"], pairs["pair"]]).astype(np.int64),
        np.concatenate([rows["entry"], pairs["pair_entry"]]),
        np.concatenate([rows["first"], pairs["first"]]),
        np.concatenate([rows["entries"], pairs["entries"]]),
        stays,
        gone,
    )


def follow_entries(
    data: Rows, image: Image, tables: Tables, keep: Rows, cut: Cut, knowledge: Knowledge
) -> None:
    """References to places in these tables follow what lies there. Before any code moves, since addends may
    be a part of it.

    Raises:
        UserError: the entry is gone, and who refers to it is not.
    """
    table = np.full(len(image.units) + 1, -1, np.int64)  # symbols of no unit have -1
    table[cut.unit] = np.arange(len(cut.unit))
    all_ = image.relocations
    into = (all_["target"] >= 0) & (table[all_["target"]] >= 0) & keep[all_["unit"]] & keep[tables.owner]
    rows, into = all_[into], table[all_["target"][into]]
    symbol = image.definition[rows["symbol"]]
    value = image.symbol_value[symbol]
    place = value + rows["addend"] + skew(image, rows, knowledge)
    number = np.clip(place // cut.entry[into], 0, cut.entries[into])
    _check_there(image, rows, cut, into, number)
    # By name the symbol moves, and the addend with the distance between the two.
    named = image.symbols["info"][symbol] & 15 != STT_SECTION
    by_symbol = np.clip(value // cut.entry[into], 0, cut.entries[into])
    base = cut.gone[cut.first[into]]
    moved = cut.gone[cut.first[into] + number] - base
    moved -= np.where(named, cut.gone[cut.first[into] + by_symbol] - base, 0)
    put_addends(data, image, rows, rows["addend"] - moved * cut.entry[into])


def _check_there(image: Image, rows: Rows, cut: Cut, into: Rows, number: Rows) -> None:
    """What is referred to stays."""
    inside = np.flatnonzero(number < cut.entries[into])
    lost = inside[~cut.stays[cut.first[into[inside]] + number[inside]]]
    if len(lost):
        row = rows[lost[0]]
        raise UserError(
            f"editing objects: {image.unit_label(int(row['unit']))} refers to an entry of "
            f"{image.unit_label(int(row['target']))} about something that was dropped",
            "this kernel's table is used in a way that kprune does not support",
        )


def close_tables(data: Rows, image: Image, keep: Rows, cut: Cut) -> None:
    """Close the gaps; relocations and symbols of the tables, edited by now, follow."""
    unit, entry, first, entries = cut.unit, cut.entry, cut.first, cut.entries
    left = entries - (cut.gone[first + entries] - cut.gone[first])
    # Bytes: those of the entries that stay, to the beginning of their section.
    number = spread(first, entries)
    stays = cut.stays[number]
    size = np.repeat(entry, entries)[stays]
    within = (number - np.repeat(first, entries)) * np.repeat(entry, entries)
    begins = np.repeat(image.units["at"][unit], entries) + within
    source = spread(begins[stays], size)
    data[spread(image.units["at"][unit], left * entry)] = data[source]
    put_headers(data, image, image.headers[unit], "size", left * entry)
    _cut_relocations(data, image, cut)
    move_names(data, image, keep, unit, entry, first, entries, cut.stays)


def _cut_relocations(data: Rows, image: Image, cut: Cut) -> None:
    """Relocations go with the entries that they are in, and move with those that stay."""
    unit, entry, first, stays, gone = cut.unit, cut.entry, cut.first, cut.stays, cut.gone
    position = np.full(len(image.units), -1, np.int64)
    position[unit] = np.arange(len(unit))
    rows = image.relocations
    mine = np.flatnonzero(position[rows["unit"]] >= 0)
    mine = mine[np.lexsort((rows["at"][mine], position[rows["unit"][mine]]))]
    which = position[rows["unit"][mine]]
    number = first[which] + rows["offset"][mine] // entry[which]
    left = stays[number]
    chosen, of, number = mine[left], which[left], number[left]
    kind = image.machine.relocation
    relocations = data[rows["at"][chosen][:, None] + np.arange(kind.itemsize)].view(kind).reshape(-1)
    before = gone[number] - gone[first[of]]
    relocations["offset"] = rows["offset"][chosen] - before * entry[of]
    # They go where the first ones of the section are.
    starts = np.searchsorted(of, np.arange(len(unit)))
    nth = np.arange(len(of)) - starts[of]
    base = np.zeros(len(unit), np.int64)
    has = np.flatnonzero(image.units["rela"][unit] != -1)
    base[has] = _first_field(image, unit[has])
    put(data, base[of] + kind.itemsize * nth, relocations)
    headers = image.parts["headers"][image.units["object"][unit[has]]]
    headers = headers + image.machine.layout.section.itemsize * image.units["rela"][unit[has]]
    count = np.bincount(of, minlength=len(unit))[has]
    put_headers(data, image, headers, "size", count * kind.itemsize)


def _first_field(image: Image, units: Rows) -> Rows:
    """Where the relocations of these units begin in the image's data.

    Raises:
        UserError: they are in several sections.
    """
    if np.any(image.units["rela"][units] < 0):
        label = image.unit_label(int(units[image.units["rela"][units] < 0][0]))
        raise UserError(
            f"editing objects: the relocations of {label} are in several sections",
            "build with the kernel's own kbuild",
        )
    found: Rows = image.units["rela_at"][units]
    return found
