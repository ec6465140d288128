"""The link map that GNU ld writes (``ld -Map``).

Thin archives, which kbuild makes, print the path of the member.
"""

from __future__ import annotations

import re

from prune.model.linkmap import Fill, LinkMap, Output, Placed
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


def parse_ld_map(text: str, name: str) -> LinkMap:
    """Read a map of ld's.

    Raises:
        UserError: it is not a whole one, or places nothing.
    """
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
