"""A link map: which section of which object lies where (:mod:`prune.model.mapfile` reads it).

It is the only witness of identity that needs no guessing from names: every placed input section with
its address, its size in the image, and its object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from prune.model.apart import Piece


@dataclass(frozen=True)
class Placed:
    """One input section in the image: ``output`` is the section of the image that holds it."""

    object: str
    section: str
    address: int
    size: int
    output: str


@dataclass(frozen=True)
class Output:
    """One section of the image; address 0 is a section that is not loaded."""

    name: str
    address: int
    size: int


@dataclass(frozen=True)
class Fill:
    """Bytes that are of no input section: ``script`` says whether a statement of the script lays them down,
    such as BYTE, else they are alignment."""

    output: str
    address: int
    size: int
    script: bool


@dataclass(frozen=True)
class LinkMap:
    """``placed`` in the order of the map, empty sections too; ``objects`` in link order.

    ``fills``: what lies between them; ``init``: where the memory begins and ends that the kernel frees after
    boot (include/asm-generic/sections.h), (0, 0) for none.

    ``members``: the objects that came out of archives; the others were named on the command line.
    ``merged``: rows of the linker's own for constants that it merged (lld has none of the objects').
    """

    placed: tuple[Placed, ...]
    objects: tuple[str, ...]
    members: frozenset[str]
    outputs: tuple[Output, ...]
    fills: tuple[Fill, ...] = ()
    init: tuple[int, int] = (0, 0)
    merged: tuple[Placed, ...] = ()


def take_apart(link_map: LinkMap, pieces: Mapping[tuple[str, str], Sequence[Piece]]) -> LinkMap:
    """The map as it were if the sections of ``pieces``, (object, section), had been several."""
    placed: list[Placed] = []
    for row in link_map.placed:
        parts = pieces.get((row.object, row.section), ())
        if not parts or not row.size:
            placed.append(row)
        placed += [replace(row, section=p.name, address=row.address + p.start, size=p.size) for p in parts]
    return replace(link_map, placed=tuple(placed))
