"""Objects with room to be edited: whatever a plan asks for, no byte has to move.

An edit writes into all objects at once (:mod:`prune.linking.edit`), at places that are known before there is
a plan:

* A unit's section gets a name that is the end of a longer one, ``.dropped.init.text.text.foo``. Where the
  name begins says what becomes of the unit: it is dropped, it is freed after boot, or it stays what it is.
* Tombstones are global names. Every function that its own object refers to by a local or section symbol has a
  *stand-in*: the name is in the object's string table, and behind its symbols there is room for a row.
* The objects lie one behind the other as the members of one archive (ar(5), the GNU variant with long names
  in ``//``), so that ld opens a single file; those that the command line names itself lie behind it.

A bit of each of this would be a few thousand small writes to a thousand files for every plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prune.model.elf import (
    SHF_EXECINSTR,
    SHT_SYMTAB_SHNDX,
    ObjectFile,
    Rows,
    add_name,
    section_names_at,
)
from prune.model.image import OBJECT, Image
from prune.model.layout import like, put_column

DROPPED = ".dropped"
#: Where code and data go that the kernel frees after boot: the section's own name follows.
FREED_GROUPS = (".init.text", ".init.data")
#: From the beginning of a unit's long name to that for what is freed, and to its own.
FREED_AT, KEPT_AT = len(DROPPED), len(DROPPED) + len(FREED_GROUPS[0])
MAGIC = b"!<arch>\n"
_HEADER = 60


@dataclass(frozen=True)
class Wanted:
    """What one object needs: ``sections`` are those of its units, ``names`` those of its stand-ins."""

    sections: Sequence[int]
    names: Sequence[str]


@dataclass(frozen=True)
class Roomy:
    """One object with room: ``labels``: by section, where its long name begins; ``names``: of each stand-in,
    where it is in the string table; ``part``: an ``OBJECT`` row with positions in ``data``."""

    data: bytes
    labels: Mapping[int, int]
    names: Sequence[int]
    part: tuple[int, ...]


def freed_name(section: str, *, executable: bool) -> str:
    """What a section is called where the kernel frees it: ``.text.foo`` -> ``.init.text.text.foo``."""
    return FREED_GROUPS[0 if executable else 1] + section


def make_room(file: ObjectFile, wanted: Wanted) -> Roomy:
    """The object with its tables at its end, longer."""
    data = bytearray(file.data)
    sections = np.array(file.sections)
    at, strings_at = section_names_at(file), int(sections["link"][file.symtab])
    # clang has one table of strings for both.
    tables = {index: bytearray(file.content(index)) for index in {at, strings_at}}
    labels = {}
    for index in wanted.sections:
        group = FREED_GROUPS[0 if int(sections["flags"][index]) & SHF_EXECINSTR else 1]
        labels[index] = add_name(tables[at], f"{DROPPED}{group}{file.section_names[index]}")
        sections["name"][index] = labels[index] + KEPT_AT
    names = [add_name(tables[strings_at], name) for name in wanted.names]

    def append(index: int, content: bytes, room: int = 0) -> int:
        data.extend(bytes(-len(data) % 8))
        where = len(data)
        sections["offset"][index], sections["size"][index] = where, len(content)
        data.extend(content + bytes(room))
        return where

    for index, table in sorted(tables.items()):
        append(index, bytes(table))
    layout = file.machine.layout
    symbols = like(file.symbols, layout.symbol)
    symtab_at = append(file.symtab, symbols.tobytes(), layout.symbol.itemsize * len(names))
    wide = np.flatnonzero(sections["type"] == SHT_SYMTAB_SHNDX).tolist()
    shndx_at = append(wide[0], file.content(wide[0]), 4 * len(names)) if wide else -1
    headers = like(sections, layout.section).tobytes()
    data[file.shoff : file.shoff + len(headers)] = headers
    part = (
        0, len(data), file.shoff, symtab_at, shndx_at, file.symtab, len(file.symbols),
        wide[0] if wide else -1, 0,
    )  # fmt: skip
    return Roomy(bytes(data), labels, names, part)


def lay_out(
    objects: Sequence[str], roomy: Sequence[Roomy], members: frozenset[str]
) -> tuple[Rows, int, Rows]:
    """(the bytes of all objects, how many of them are the archive, ``OBJECT`` rows)."""
    listed = b"".join(f"{name}/\n".encode("utf-8", "surrogateescape") for name in objects if name in members)
    listed += b"\n" * (-len(listed) % 8)
    whole = bytearray(MAGIC + _header("//", len(listed)) + listed)
    parts = np.zeros(len(objects), OBJECT)
    named = 0
    in_archive = [(number, name) for number, name in enumerate(objects) if name in members]
    for number, name in in_archive:
        # Members are read where they lie: each begins at a multiple of eight, its header 60 bytes before.
        content = roomy[number].data
        padding = -(len(content) + _HEADER) % 8
        whole += _header(f"/{named}", len(content) + padding)
        _place(parts, number, roomy[number], len(whole))
        whole += content + bytes(padding)
        named += len(f"{name}/\n".encode("utf-8", "surrogateescape"))
    archive = len(whole)
    for number, name in enumerate(objects):
        if name not in members:
            whole += bytes(-len(whole) % 8)
            _place(parts, number, roomy[number], len(whole))
            whole += roomy[number].data
    parts["member"] = [name in members for name in objects]
    return np.frombuffer(bytes(whole), np.uint8), archive, parts


def _place(parts: Rows, number: int, made: Roomy, at: int) -> None:
    parts[number] = made.part
    for column in ("at", "headers", "symtab_at", "shndx_at"):
        if column != "shndx_at" or made.part[4] >= 0:
            parts[column][number] += at


def _header(name: str, size: int) -> bytes:
    return f"{name:<16}{0:<12}{0:<6}{0:<6}{644:<8}{size:<10}`\n".encode()


def put_addends(data: Rows, image: Image, rows: Rows, addends: Rows) -> None:
    """Give these ``RELOCATION`` rows other addends, where the machine has them."""
    image.machine.put_addends(data, rows["at"], image.fields_at(rows), rows["type"], addends)


def put_headers(data: Rows, image: Image, at: Rows, column: str, values: Rows) -> None:
    """Write a column of the section headers that lie at these places."""
    put_column(data, at, image.machine.layout.section, column, values)
