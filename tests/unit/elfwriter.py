"""A writer of relocatable ELF64 objects, for fixtures: exact, small, and no blobs in the repository."""

from __future__ import annotations

import struct
from typing import NamedTuple

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, SYMTAB_SHNDX = 1, 2, 3, 4, 8, 18
ALLOC, WRITE, EXEC, MERGE, STRINGS = 2, 1, 4, 16, 32
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNC, SECTION = 0, 1, 2, 3
R_64, R_PC32, R_PLT32 = 1, 2, 4
XINDEX = 0xFFFF


class Section(NamedTuple):
    name: str
    data: bytes = b"\xc3"
    flags: int = ALLOC | EXEC
    type: int = PROGBITS


class Symbol(NamedTuple):
    """``section`` is a name, "" for an undefined symbol."""

    name: str
    section: str = ""
    value: int = 0
    size: int = 0
    bind: int = GLOBAL
    type: int = FUNC


class Rela(NamedTuple):
    """A relocation of ``section`` against a symbol's name; ``kind`` is the psABI type."""

    section: str
    offset: int
    symbol: str
    kind: int = R_PLT32
    addend: int = -4


class Strings:
    def __init__(self) -> None:
        self.data = b"\0"

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


def write_elf(
    sections: list[Section], symbols: list[Symbol], relocations: list[Rela] | None = None, *,
    machine: int = 62, wide: bool = False, elf_type: int = 1,
) -> bytes:  # fmt: skip
    """An object of these parts. Section symbols are made for every section, named as it.

    ``wide``: every section index goes through SHN_XINDEX and SHT_SYMTAB_SHNDX, as with 65,280 sections.
    """
    relocations = relocations or []
    index = {section.name: number for number, section in enumerate(sections, 1)}
    made = [Symbol(s.name, s.name, bind=LOCAL, type=SECTION) for s in sections]
    ordered = sorted([*made, *symbols], key=lambda symbol: symbol.bind != LOCAL)
    number = {symbol.name: at for at, symbol in enumerate(ordered, 1)}
    strings, names = Strings(), Strings()
    table, indices = bytes(24), struct.pack("<I", 0)
    for symbol in ordered:
        where = index[symbol.section] if symbol.section else 0
        name = 0 if symbol.type == SECTION else strings.add(symbol.name)
        info = symbol.bind << 4 | symbol.type
        shndx = XINDEX if wide and where else where
        table += struct.pack("<IBBHQQ", name, info, 0, shndx, symbol.value, symbol.size)
        indices += struct.pack("<I", where)
    locals_ = 1 + sum(symbol.bind == LOCAL for symbol in ordered)
    first = len(sections) + 1
    groups = list(dict.fromkeys(relocation.section for relocation in relocations))
    symtab = first + len(groups)
    rows = [(s.name, s.type, s.flags, s.data, 0, 0, 0) for s in sections]
    for group in groups:
        data = b"".join(
            struct.pack("<QQq", r.offset, number[r.symbol] << 32 | r.kind, r.addend)
            for r in relocations
            if r.section == group
        )
        rows.append((f".rela{group}", RELA, 0x40, data, symtab, index[group], 24))
    rows.append((".symtab", SYMTAB, 0, table, symtab + 1, locals_, 24))
    rows.append((".strtab", STRTAB, 0, strings.data, 0, 0, 0))
    if wide:
        rows.append((".symtab_shndx", SYMTAB_SHNDX, 0, indices, symtab, 0, 4))
    return _file(rows, names, machine, elf_type)


def _file(
    rows: list[tuple[str, int, int, bytes, int, int, int]], names: Strings, machine: int, elf_type: int
) -> bytes:
    body, headers = b"", bytes(64)
    shstrtab = names.add(".shstrtab")
    offsets = []
    for name, kind, flags, data, link, info, entry in rows:
        body += bytes(-len(body) % 16)
        offsets.append(64 + len(body))
        headers += struct.pack(
            "<IIQQQQIIQQ", names.add(name), kind, flags, 0, 64 + len(body), len(data), link, info, 1, entry
        )
        body += b"" if kind == NOBITS else data
    headers += struct.pack("<IIQQQQIIQQ", shstrtab, STRTAB, 0, 0, 64 + len(body), len(names.data), 0, 0, 1, 0)
    body += names.data
    body += bytes(-len(body) % 16)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = ident + struct.pack(
        "<HHIQQQIHHHHHH",
        elf_type,
        machine,
        1,
        0,
        0,
        64 + len(body),
        0,
        64,
        0,
        0,
        64,
        len(rows) + 2,
        len(rows) + 1,
    )
    return header + body + headers
