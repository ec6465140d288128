"""The link map (``ld -Map``; lld's: :mod:`prune.model.lldmap`): which section of which object lies where.

It is the only witness of identity that needs no guessing from names: every placed input section with
its address, its size in the image, and its object. Thin archives, which kbuild makes, print the path
of the member.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prune.model.apart import Piece
from prune.model.knowledge import stripped_outputs
from tracer.host import UserError

# A member of the archive of edited objects, which kprune-ld gives a pruned link, by the path of its object.
_EDITED_MEMBER = re.compile(r"^(\.kprune/plan-[0-9a-f]+/objects/)archive\.a\((.+)\)$")
_MEMBERS = "Archive member included to satisfy reference by file (symbol)\n\n"
_LOADED = re.compile(r"^LOAD (\S+)$", re.M)
_BEGIN = "\nLinker script and memory map\n"
# No section is larger than eleven digits say, and no address than sixteen.
# An input section is indented by one space; a name of 15 characters or more has its line to itself.
# Fill has a star; a statement that lays down bytes has neither section nor object.
_PLACED = re.compile(
    r"^ (?P<section>[^\s*][^\s]*)\s+0x(?P<address>[0-9a-f]{1,16})\s+0x(?P<size>[0-9a-f]{1,11}) "
    r"(?P<object>\S.*)$"
    r"|^ (?P<fill>\*fill\*) +0x(?P<fill_address>[0-9a-f]{1,16}) +0x(?P<fill_size>[0-9a-f]{1,11})"
    r"|^ +0x(?P<statement_address>[0-9a-f]{1,16}) +0x(?P<statement_size>[0-9a-f]{1,11}) "
    r"(?P<statement>BYTE|SHORT|LONG|SQUAD|QUAD) ",
    re.M,
)
_OUTPUT = re.compile(
    r"^(?P<name>[._a-zA-Z]\S*)\s+0x(?P<address>[0-9a-f]{1,16})\s+0x(?P<size>[0-9a-f]{1,11})", re.M
)


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


def read_link_map(path: Path) -> LinkMap:
    """Read a link map, of GNU ld or of lld.

    Raises:
        UserError: no such file, or not a link map.
    """
    try:
        text = path.read_text(errors="surrogateescape")
    except OSError as error:
        raise UserError(f"reading link map {path}: {error.strerror}", "build the kernel again") from error
    return parse_link_map(text, str(path))


def _members(text: str) -> list[str]:
    begin = text.find(_MEMBERS)
    listed = text[begin + len(_MEMBERS) : text.find("\n\n", begin + len(_MEMBERS))] if begin >= 0 else ""
    return [_path(line.split()[0]) for line in listed.splitlines() if line and not line[0].isspace()]


def _path(name: str) -> str:
    return _EDITED_MEMBER.sub(r"\1\2", name)


def _inputs(text: str, members: list[str]) -> list[str]:
    """Objects in the order of the link, which is the order of initcalls.

    The order in which sections are placed is another: a script may name sections of a later object first.
    All members of archives stand where the first archive stood.
    """
    found: list[str] = []
    for file in _LOADED.findall(text):
        if file.endswith(".a"):
            found += members
            members = []
        else:
            found.append(file)
    return found


def parse_link_map(text: str, name: str = "map") -> LinkMap:
    """As :func:`read_link_map`, from text."""
    from prune.model.lldmap import HEADING, parse_lld_map

    return _finished(parse_lld_map(text, name) if HEADING.match(text) else _parse_ld_map(text, name))


def _finished(link_map: LinkMap) -> LinkMap:
    """Without what the finished vmlinux does not have any more."""
    gone = stripped_outputs()
    if not any(output.name in gone for output in link_map.outputs):
        return link_map
    return replace(
        link_map,
        placed=tuple(row for row in link_map.placed if row.output not in gone),
        merged=tuple(row for row in link_map.merged if row.output not in gone),
        fills=tuple(fill for fill in link_map.fills if fill.output not in gone),
        outputs=tuple(output for output in link_map.outputs if output.name not in gone),
    )


def _parse_ld_map(text: str, name: str) -> LinkMap:
    """The map that GNU ld writes."""
    begin = text.find(_BEGIN)
    if begin < 0 or "\nOUTPUT(" not in text:
        raise UserError(f"reading link map {name}: this is not a whole GNU ld map", "build the kernel again")
    found_outputs = list(_OUTPUT.finditer(text, begin))
    outputs = [(m.start(), m["name"]) for m in found_outputs]
    if not outputs:
        raise UserError(f"reading link map {name}: it has no section of the image", "build the kernel again")
    placed: list[Placed] = []
    fills: list[Fill] = []
    members = _members(text)
    objects = dict.fromkeys(_inputs(text, members))
    current = 0
    for found in _PLACED.finditer(text, begin):
        while current + 1 < len(outputs) and outputs[current + 1][0] < found.start():
            current += 1
        if found["fill"] or found["statement"]:
            address = found["fill_address"] or found["statement_address"]
            size = int(found["fill_size"] or found["statement_size"], 16)
            fills.append(Fill(outputs[current][1], int(address, 16), size, bool(found["statement"])))
            continue
        path = _path(found["object"])
        objects.setdefault(path)
        placed.append(
            Placed(
                path,
                found["section"],
                int(found["address"], 16),
                int(found["size"], 16),
                outputs[current][1],
            )
        )
    if not placed:
        raise UserError(f"reading link map {name}: it places no section", "build the kernel again")
    return LinkMap(
        tuple(placed),
        tuple(objects),
        frozenset(members),
        tuple(Output(m["name"], int(m["address"], 16), int(m["size"], 16)) for m in found_outputs),
        tuple(fills),
        (_assigned(text, "__init_begin"), _assigned(text, "__init_end")),
    )


def _assigned(text: str, symbol: str) -> int:
    """The value that the script gives a symbol, 0 if none."""
    found = re.search(rf"^ +0x([0-9a-f]+) +{symbol} = ", text, re.M)
    return int(found[1], 16) if found else 0
