"""The link map that lld writes (``ld.lld -Map``), read as :mod:`prune.model.ldmap` reads that of GNU ld.

lld names an archive's member by the archive, lists no inputs, shows no alignment, and has one row for all
constants of a kind that it merged. The order of inputs is what :mod:`prune.linking.ld` appends
(:data:`INPUTS`, from ``--trace``); alignment is what lies between two rows; the merged constants of an object
lie where the row of their kind is.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from prune.model.linkmap import Fill, LinkMap, Output, Placed
from tracer.host import UserError

HEADING = re.compile(r"\s+VMA\s+LMA\s+Size Align Out\s+In\s+Symbol\n")
#: What stands in the map before the inputs of the link, one a line.
INPUTS = "\nInputs of the link:\n"
#: What lld calls the object of sections that it made, and what it compiled of bitcode that only the last link
#: has (init/version-timestamp.o of a kernel with LTO). Later ones name the latter after what they write and
#: what it was (ltoObjName in lld/ELF/LTO.cpp): here it is called as it was before.
INTERNAL, COMPILED = "<internal>", "lto.tmp"
_COMPILED = re.compile(r"(?:.*/)?[^/]+\.lto(?:\.[^/]+)?\.o$")
_ROW = re.compile(r"^ *([0-9a-f]{1,16}) +[0-9a-f]+ +([0-9a-f]{1,11}) +\d+ ( *)(\S.*)$", re.M)
_SECTION = re.compile(r"(?P<object>.+):\((?P<section>[^()]+)\)$")
_MEMBER = re.compile(r"(?P<archive>.+)\((?P<member>.+)\)$")
_STATEMENT = re.compile(r"(BYTE|SHORT|LONG|QUAD) ?\(")
_IN = 8  # columns by which what lies in an output section is indented


def parse_lld_map(text: str, name: str) -> LinkMap:
    """Read a map of lld's with the inputs appended.

    Raises:
        UserError: it places nothing, or has no inputs.
    """
    body, found, listed = text.partition(INPUTS)
    if not found:
        raise UserError(f"reading link map {name}: it does not list the inputs", "build the kernel again")
    inputs = [_path(line) for line in listed.splitlines() if line]
    given = {path for path, _ in inputs}
    outputs: list[Output] = []
    placed: list[Placed] = []
    fills: list[Fill] = []
    symbols: dict[str, int] = {}
    for address, size, depth, what in _rows(body):
        if depth == 0 and "=" not in what:
            outputs.append(Output(what, address, size))
        elif depth == _IN and not outputs:
            raise UserError(f"reading link map {name}: {what[:60]!r} is in no section of the image")
        elif depth == _IN and (section := _SECTION.match(what)):
            path, _ = _path(section["object"])
            if _COMPILED.match(path) and path not in given:
                path = COMPILED
            placed.append(Placed(path, section["section"], address, size, outputs[-1].name))
        elif depth == _IN and _STATEMENT.match(what) and size:
            fills.append(Fill(outputs[-1].name, address, size, script=True))
        elif depth <= _IN and what.endswith(" = ."):
            symbols[what.removesuffix(" = .").strip('"')] = address
    if not placed:
        raise UserError(f"reading link map {name}: it places no section", "build the kernel again")
    objects = tuple(dict.fromkeys(path for path, _ in inputs if not path.endswith(".a")))
    members = frozenset(path for path, member in inputs if member)
    fills += _gaps(outputs, placed, fills)
    init = (symbols.get("__init_begin", 0), symbols.get("__init_end", 0))
    merged = tuple(row for row in placed if row.object == INTERNAL and row.size and row.address)
    return LinkMap(tuple(placed), objects, members, tuple(outputs), tuple(fills), init, merged)


def _rows(text: str) -> Iterator[tuple[int, int, int, str]]:
    """(address, size, indentation, what) of each line."""
    for row in _ROW.finditer(text):
        yield int(row[1], 16), int(row[2], 16), len(row[3]), row[4]


def _path(name: str) -> tuple[str, bool]:
    """(path of an object, whether it came out of an archive): a thin archive's member lies beside it."""
    found = _MEMBER.match(name)
    if found is None:
        return name.removeprefix("./"), False
    return posixpath.normpath(posixpath.join(posixpath.dirname(found["archive"]), found["member"])), True


def _gaps(outputs: list[Output], rows: list[Placed], statements: list[Fill]) -> list[Fill]:
    """What lies in an output section and is covered by nothing."""
    by_output: dict[str, list[tuple[int, int]]] = {output.name: [] for output in outputs}
    everything: list[Placed | Fill] = [*rows, *statements]
    for row in everything:
        by_output[row.output].append((row.address, row.address + row.size))
    found = []
    for output in outputs:
        at = output.address
        for begin, end in [*sorted(by_output[output.name]), (output.address + output.size,) * 2]:
            if begin > at:
                found.append(Fill(output.name, at, begin - at, script=False))
            at = max(at, end)
    return found
