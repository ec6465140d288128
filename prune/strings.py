"""Dead strings go from the string sections that stay.

All strings of an object share a section (``.rodata.str1.1``); it stays when anything kept refers to one of
them. Here it is squeezed: the strings that kept code, data and table entries refer to close up, the others
go. What refers by a symbol moves with the symbol, what refers by the section and an offset gets a new offset
(gas keeps the symbol where an operand counts from its own place).

A section that is not understood to the last reference stays whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prune.elf import SHF_EXECINSTR, SHF_MERGE, SHF_STRINGS, STT_SECTION, Rows
from prune.image import Image
from prune.knowledge import Knowledge
from prune.tables import Tables


@dataclass(frozen=True)
class Squeeze:
    """Section ``section`` gets ``content``; relocation rows at file positions get addends, symbols values."""

    section: int
    content: bytes
    addends: tuple[tuple[int, int], ...]
    values: tuple[tuple[int, int], ...]


def squeeze_strings(
    image: Image, tables: Tables, keep: Rows, knowledge: Knowledge
) -> dict[int, tuple[Squeeze, ...]]:
    """Object -> its string sections that get smaller."""
    units, rows = image.units, image.relocations
    wanted = SHF_MERGE | SHF_STRINGS
    strings = (
        keep & units["data"] & (units["flags"] & wanted == wanted) & (units["flags"] & SHF_EXECINSTR == 0)
    )
    strings[rows["unit"]] = False  # what has references itself is no plain text
    into = np.flatnonzero((rows["target"] >= 0) & strings[rows["target"]])
    into = into[np.argsort(rows["target"][into], kind="stable")]
    bounds = np.searchsorted(rows["target"][into], np.flatnonzero(strings))
    is_section = np.concatenate([file.symbols["info"] & 15 == STT_SECTION for file in image.files])
    found: dict[int, list[Squeeze]] = {}
    for unit, mine in zip(np.flatnonzero(strings).tolist(), np.split(into, bounds)[1:], strict=True):
        live = mine[keep[rows["unit"][mine]] & keep[tables.owner[mine]]]
        made = _squeeze(image, unit, live, is_section, knowledge)
        if made is not None:
            found.setdefault(int(units["object"][unit]), []).append(made)
    return {obj: tuple(made) for obj, made in found.items()}


def _squeeze(image: Image, unit: int, live: Rows, is_section: Rows, knowledge: Knowledge) -> Squeeze | None:
    row = image.units[unit]
    obj, section = int(row["object"]), int(row["section"])
    file = image.files[obj]
    header, content = file.sections[section], file.content(section)
    if int(header["entsize"]) != 1 or not content or content[-1]:
        return None
    relocations = image.relocations[live]
    by_section = is_section[relocations["symbol"]]
    # A distance in data counts from the field; in an instruction, from where that ends.
    in_code = image.units["flags"][relocations["unit"]] & SHF_EXECINSTR != 0
    plain = np.isin(relocations["type"], _absolute(knowledge))
    plain |= np.isin(relocations["type"], knowledge.kinds("pc32")) & ~in_code
    if np.any(by_section & ~plain):
        return None
    definition = image.definition[relocations["symbol"]]
    offsets = image.symbol_value[definition] + np.where(by_section, relocations["addend"], 0)
    if np.any((offsets < 0) | (offsets >= len(content))):
        return None
    kept = list(_intervals(content, np.unique(offsets), max(int(header["align"]), 1)))
    if any(start < 0 for start, _, _ in kept):
        return None
    size = kept[-1][2] + kept[-1][1] - kept[-1][0] if kept else 0
    if not kept or size >= len(content):
        return None
    new = bytearray(size)
    for start, end, at in kept:
        new[at : at + end - start] = content[start:end]
    starts = np.array([start for start, _, _ in kept])
    ends, places = np.array([end for _, end, _ in kept]), np.array([at for _, _, at in kept])

    def moved(old: Rows) -> Rows:
        which = np.maximum(np.searchsorted(starts, old, "right") - 1, 0)
        return np.where((old >= starts[which]) & (old < ends[which]), old - starts[which] + places[which], 0)

    own = np.flatnonzero(file.shndx == section)
    own = own[(file.symbols["info"][own] & 15) != STT_SECTION]
    values = moved(file.symbols["value"][own].astype(np.int64))
    addends = moved(offsets[by_section])
    return Squeeze(
        section,
        bytes(new),
        tuple(zip(relocations["at"][by_section].tolist(), addends.tolist(), strict=True)),
        tuple(zip(own.tolist(), values.tolist(), strict=True)),
    )


def _absolute(knowledge: Knowledge) -> list[int]:
    return [*knowledge.kinds("abs64"), *knowledge.kinds("abs32")]


def _intervals(content: bytes, offsets: Rows, align: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, new place) of each string that something refers to, in order; start -1: it is not aligned
    as strings of this section are, so nobody knows where it begins."""
    at, done = 0, 0
    for offset in offsets.tolist():
        if offset < done:
            continue  # the end of one that is there already
        start = content.rfind(b"\0", 0, offset) + 1
        end = content.index(b"\0", offset) + 1
        if start % align:
            if offset % align or content[start:offset].strip(b"\0"):
                yield -1, 0, 0
                return
            start = offset
        at += -at % align
        yield start, end, at
        at += end - start
        done = end
