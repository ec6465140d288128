"""drcov, version 2: the basic blocks that DynamoRIO or QEMU's drcov plugin saw run.

    DRCOV VERSION: 2
    DRCOV FLAVOR: drcov-64
    Module Table: version 4, count 2
    Columns: id, containing_id, start, end, entry, offset, path
    0, 0, 0xffffffff81000000, 0xffffffff82000000, 0x0, 0x0, /boot/vmlinux
    ...
    BB Table: 1234 bbs
    (entries of 8 bytes, little endian: u32 start, u16 size, u16 module)

A block's address is its start plus its module's (drcovlib.h of DynamoRIO). QEMU emulating a system
knows no modules: it writes one that begins at 0, and the low 32 bits of every address, the programs' as
well as the kernel's (contrib/plugins/drcov.c).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from tracer.host import UserError
from tracer.readers.common import COUNT, MAX_LINE, MAX_SIGHTINGS, need_app
from tracer.readers.sightings import ForeignTrace, Sighting

MAGIC = b"DRCOV VERSION:"
DOING = "reading the drcov file"
_START = {2: "base", 3: "start", 4: "start"}
_BLOCK = np.dtype([("start", "<u4"), ("size", "<u2"), ("module", "<u2")])
#: Blocks outside all modules, such as generated code.
_NO_MODULE = 0xFFFF


@dataclass(frozen=True)
class Module:
    """One row of the module table. ``start``: a virtual address."""

    start: int
    path: str


class _Lines:
    """The lines of the file's head, and where it ends.

    Raises:
        UserError: the file ends before, or has no lines.
    """

    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def match(self, pattern: str, what: str) -> re.Match[str]:
        end = self._data.find(b"\n", self.at, self.at + MAX_LINE)
        line = self._data[self.at : end].decode(errors="replace").rstrip("\r") if end >= 0 else ""
        found = re.fullmatch(pattern, line)
        if not found:
            raise UserError(f"{DOING}: no {what} where it should be, but {line[:60]!r}")
        self.at = end + 1
        return found


def read_drcov(data: bytes, app: str) -> ForeignTrace:
    """Every block of the kernel, once, in order of address.

    The kernel is the modules whose name ends in ``vmlinux`` or is ``[kernel]``, or the only module there is.

    Raises:
        UserError: malformed, of another version, or without a block of the kernel.
    """
    need_app(app, DOING)
    lines = _Lines(data)
    version = lines.match(rf"DRCOV VERSION: ({COUNT})", "version")[1]
    if version != "2":
        raise UserError(f"{DOING}: version {version}", "only version 2 can be read")
    lines.match(r"DRCOV FLAVOR: .*", "flavor")
    modules = _read_modules(lines)
    number = int(lines.match(rf"BB Table: ({COUNT}) bbs", "table of blocks")[1])
    if data.startswith(b"module id, start, size:", lines.at):
        raise UserError(f"{DOING}: its blocks are text", "make it without -dump_text")
    if len(data) - lines.at != number * _BLOCK.itemsize:
        raise UserError(f"{DOING}: {len(data) - lines.at} bytes are not its {number} blocks; it is damaged")
    blocks = np.frombuffer(data, _BLOCK, offset=lines.at)
    if bool(np.any((blocks["module"] >= len(modules)) & (blocks["module"] != _NO_MODULE))):
        raise UserError(f"{DOING}: a block is in a module that the table does not have; it is damaged")
    addresses: set[int] = set()
    for i, module in enumerate(modules):
        if len(modules) == 1 or module.path.endswith("vmlinux") or module.path == "[kernel]":
            starts = np.unique(blocks["start"][blocks["module"] == i])
            if len(addresses) + len(starts) > MAX_SIGHTINGS:
                raise UserError(f"{DOING}: more than {MAX_SIGHTINGS} blocks; no kernel has so many")
            addresses.update(module.start + start for start in starts.tolist())
    if not addresses:
        raise UserError(f"{DOING}: no block of a module whose name ends in vmlinux")
    sightings = (Sighting(app, None, address=address) for address in sorted(addresses))
    return ForeignTrace("drcov", (app,), tuple(sightings))


def _read_modules(lines: _Lines) -> list[Module]:
    """The module table; its columns differ between versions and systems."""
    table = lines.match(rf"Module Table: version ({COUNT}), count ({COUNT})", "module table")
    version, count = int(table[1]), int(table[2])
    if version not in _START or count >= _NO_MODULE:
        raise UserError(f"{DOING}: a module table of version {version} with {count} modules")
    columns = lines.match(r"Columns: (.*)", "columns")[1].split(", ")
    if columns[-1] != "path" or _START[version] not in columns:
        raise UserError(f"{DOING}: a module table with the columns {', '.join(columns)[:80]!r}")
    modules = []
    for number in range(count):
        # The path comes last and can have commas.
        row = [word.strip() for word in lines.match(r".+", "module")[0].split(",", len(columns) - 1)]
        start = row[columns.index(_START[version])] if len(row) == len(columns) else ""
        if not re.fullmatch(r"(0x)?[0-9a-fA-F]{1,16}", start) or row[0] != str(number):
            raise UserError(f"{DOING}: module {number} of the table is malformed")
        modules.append(Module(int(start, 16), row[-1]))
    return modules
