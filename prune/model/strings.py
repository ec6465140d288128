"""Dead strings go from the string sections that stay.

All strings of an object share a section (``.rodata.str1.1``); it stays when anything kept refers to one of
them. Here it is squeezed: the strings that kept code, data and table entries refer to close up, the others
go. What refers by a symbol moves with the symbol, what refers by the section and an offset gets a new offset
(gas keeps the symbol where an operand counts from its own place).

Which string a reference means is found once (:func:`find_strings`), what is left of them for every plan
(:func:`squeeze`). A section that is not understood to the last reference that is alive stays whole.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune.model.elf import SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, STT_SECTION, Rows
from prune.model.image import STRING, STRING_SYMBOL, Image
from prune.model.knowledge import Knowledge
from prune.model.tables import Tables


def find_strings(
    data: Rows,
    units: Rows,
    relocations: Rows,
    symbols: Rows,
    symbol_unit: Rows,
    definition: Rows,
    entsize: Rows,
    knowledge: Knowledge,
) -> tuple[Rows, Rows]:
    """(``STRING`` rows: the strings that something refers to, by unit and place; ``STRING_SYMBOL`` rows: the
    symbols in string sections, with the string that each lies in, -1 for none, and where in it).

    ``relocations`` learn their ``string``, and whether they are ``odd``: nobody knows which string is meant,
    or how to make it mean another place.

    Args:
        entsize: of each unit's section.
    """
    wanted = SHF_MERGE | SHF_STRINGS
    section = units["data"] & (units["flags"] & (wanted | SHF_EXECINSTR) == wanted) & (entsize == 1)
    section[relocations["unit"]] = False  # what has references itself is no plain text
    into = np.flatnonzero((relocations["target"] >= 0) & section[relocations["target"]])
    into = into[np.argsort(relocations["target"][into], kind="stable")]
    rows = relocations[into]
    by_section = symbols["info"][rows["symbol"]] & 15 == STT_SECTION
    # A distance in data counts from the field; in an instruction, from where that ends.
    in_code = units["flags"][rows["unit"]] & SHF_EXECINSTR != 0
    plain = np.isin(rows["type"], [*knowledge.kinds("abs64"), *knowledge.kinds("abs32")])
    plain |= np.isin(rows["type"], knowledge.kinds("pc32")) & ~in_code
    offsets = symbols["value"][definition[rows["symbol"]]].astype(np.int64)
    offsets += np.where(by_section, rows["addend"], 0)
    relocations["odd"][into] = by_section & ~plain
    own = np.flatnonzero((symbols["info"] & 15 != STT_SECTION) & (symbol_unit >= 0) & section[symbol_unit])
    found: list[tuple[int, int, int]] = []
    places: list[tuple[int, int, int]] = []
    targets, begins = np.unique(rows["target"], return_index=True)
    bounds = [*begins.tolist(), len(into)]
    for unit, first, last in zip(targets.tolist(), bounds, bounds[1:], strict=False):
        mine, there = into[first:last], offsets[first:last]
        at, size = int(units["at"][unit]), int(units["size"][unit])
        content = data[at : at + size].tobytes()
        spans = [_span(content, offset, int(units["align"][unit])) for offset in there.tolist()]
        relocations["odd"][mine] |= [span is None for span in spans]
        ends: dict[int, int] = {}
        for span in spans:
            if span:
                ends[span[1]] = min(span[0], ends.get(span[1], span[0]))
        number = {end: len(found) + i for i, end in enumerate(sorted(ends))}
        found += [(unit, ends[end], end) for end in sorted(ends)]
        relocations["string"][mine] = [number[span[1]] if span else -1 for span in spans]
    strings = np.array(found, STRING)
    for row, value in zip(own.tolist(), symbols["value"][own].astype(np.int64).tolist(), strict=True):
        unit = int(symbol_unit[row])
        places.append((row, *_holder(strings, unit, value)))
    return strings, np.array(places, STRING_SYMBOL)


def _span(content: bytes, offset: int, align: int) -> tuple[int, int] | None:
    """(start, end) of the string at an offset; None: it is not aligned as strings of this section are, so
    nobody knows where it begins."""
    if not 0 <= offset < len(content) or content[-1]:
        return None
    start = content.rfind(b"\0", 0, offset) + 1
    end = content.index(b"\0", offset) + 1
    if start % align:
        if offset % align or content[start:offset].strip(b"\0"):
            return None
        start = offset
    return start, end


def _holder(strings: Rows, unit: int, value: int) -> tuple[int, int]:
    """(the string that a place lies in, where in it); (-1, 0) for none."""
    first, last = np.searchsorted(strings["unit"], [unit, unit + 1]).tolist()
    at = first + int(np.searchsorted(strings["end"][first:last], value, "right"))
    if at < last and strings["start"][at] <= value:
        return at, value - int(strings["start"][at])
    return -1, 0


@dataclass(frozen=True)
class Squeeze:
    """What changes, as rows: the ``sizes`` of the sections of ``units`` and their bytes (zeros at the places
    ``clear`` of the image's data, then ``content`` at the places ``at``); the ``addends`` of the relocations
    ``rows``; the ``values`` of the flat symbol rows ``symbols``."""

    units: Rows
    sizes: Rows
    clear: Rows
    at: Rows
    content: Rows
    rows: Rows
    addends: Rows
    symbols: Rows
    values: Rows


def squeeze_strings(image: Image, tables: Tables, keep: Rows) -> Squeeze:
    """What is left of the strings, and where it is now."""
    rows, strings, units = image.relocations, image.strings, image.units
    alive = keep[rows["unit"]] & keep[tables.owner] & (rows["string"] >= 0)
    live = np.zeros(len(strings), bool)
    live[rows["string"][alive]] = True
    whole = ~keep
    odd = rows["odd"] & keep[rows["unit"]] & keep[tables.owner]
    whole[rows["target"][odd]] = True
    live &= ~whole[strings["unit"]]
    chosen = np.flatnonzero(live)
    of, start, length = (
        strings["unit"][chosen],
        strings["start"][chosen],
        strings["end"][chosen] - strings["start"][chosen],
    )
    step = units["align"][of]
    taken = (length + step - 1) // step * step
    before = np.cumsum(taken) - taken
    sections, first, count = np.unique(of, return_index=True, return_counts=True)
    place = before - np.repeat(before[first], count)
    last = first + count - 1
    sizes = place[last] + length[last] if len(last) else np.empty(0, np.int64)
    smaller = sizes < units["size"][sections]
    stays = np.repeat(smaller, count)
    chosen, of, start, length, place = (each[stays] for each in (chosen, of, start, length, place))
    sections, sizes = sections[smaller], sizes[smaller]
    moved = np.full(len(strings), -1, np.int64)
    moved[chosen] = place
    at, content = spread(units["at"][of] + place, length), image.data[spread(units["at"][of] + start, length)]
    # Between two strings lies what alignment needs.
    clear = spread(units["at"][sections], sizes)
    by_section = image.symbols["info"][rows["symbol"]] & 15 == STT_SECTION
    changed = np.flatnonzero(alive & by_section)
    changed = changed[moved[rows["string"][changed]] >= 0]
    which = rows["string"][changed]
    inside = rows["addend"][changed] - strings["start"][which]
    inside += image.symbol_value[image.definition[rows["symbol"][changed]]]
    symbols = image.string_symbols
    known = np.zeros(len(units), bool)
    known[sections] = True
    mine = symbols[known[image.symbol_unit[symbols["symbol"]]]]
    new = np.where(mine["string"] >= 0, moved[mine["string"]], -1)
    return Squeeze(
        sections,
        sizes,
        clear,
        at,
        content,
        changed,
        moved[which] + inside,
        mine["symbol"].astype(np.int64),
        np.where(new >= 0, new + mine["offset"], 0),
    )


def spread(starts: Rows, lengths: Rows) -> Rows:
    """Every place of these ranges, one range after the other."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    found: Rows = np.arange(total) + np.repeat(starts - (ends - lengths), lengths)
    return found
