"""A writer of relocatable objects, for fixtures: exact, small, and no blobs in the repository."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from typing import NamedTuple

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, REL, SYMTAB_SHNDX = 1, 2, 3, 4, 8, 9, 18
ALLOC, WRITE, EXEC, MERGE, STRINGS = 2, 1, 4, 16, 32
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNC, SECTION = 0, 1, 2, 3
#: On i386 the same numbers are R_386_32, R_386_PC32 and R_386_PLT32.
R_64, R_PC32, R_PLT32 = 1, 2, 4
LORESERVE, XINDEX = 0xFF00, 0xFFFF
ABSOLUTE, COMMON = "*ABS*", "*COM*"
_RESERVED = {"": 0, ABSOLUTE: 0xFFF1, COMMON: 0xFFF2}


class Section(NamedTuple):
    name: str
    data: bytes = b"\xc3"
    flags: int = ALLOC | EXEC
    type: int = PROGBITS
    align: int = 1


class Symbol(NamedTuple):
    """``section`` is a name, "" for an undefined symbol, or ``ABSOLUTE`` or ``COMMON``."""

    name: str
    section: str = ""
    value: int = 0
    size: int = 0
    bind: int = GLOBAL
    type: int = FUNC
    visibility: int = 0


class Rela(NamedTuple):
    """A relocation of ``section`` against a symbol's name; ``kind`` is the psABI type."""

    section: str
    offset: int
    symbol: str
    kind: int = R_PLT32
    addend: int = -4


class Form(NamedTuple):
    """How a file of a class is written: machine, size of the header, alignment of tables, formats."""

    machine: int
    header: int
    align: int
    ehdr: str
    section: str


_FORMS = {
    64: Form(62, 64, 8, "<HHIQQQIHHHHHH", "<IIQQQQIIQQ"),
    32: Form(3, 52, 4, "<HHIIIIIHHHHHH", "<IIIIIIIIII"),
}


def _symbol(bits: int, name: int, info: int, other: int, shndx: int, value: int, size: int) -> bytes:
    if bits == 64:
        return struct.pack("<IBBHQQ", name, info, other, shndx, value, size)
    return struct.pack("<IIIBBH", name, value, size, info, other, shndx)


def _with_addends(section: Section, relocations: list[Rela]) -> Section:
    """The section with the addends of its relocations in their fields: REL."""
    data = bytearray(section.data)
    for each in relocations:
        if each.section == section.name and each.offset + 4 <= len(data):
            struct.pack_into("<i", data, each.offset, each.addend)
    return section._replace(data=bytes(data))


class Strings:
    """A string table that grows."""

    def __init__(self) -> None:
        self.data = bytearray(1)

    def add(self, text: str) -> int:
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


def write_elf(
    sections: list[Section], symbols: list[Symbol], relocations: list[Rela] | None = None, *,
    bits: int = 64, machine: int = 0, wide: bool = False, elf_type: int = 1, one_table: bool = False,
) -> bytes:  # fmt: skip
    """An object of these parts. Section symbols are made for every section, named as it.

    ``bits``: 64 for x86_64 with RELA, 32 for i386 with REL. ``machine``: another one.
    ``wide``: every section index goes through SHN_XINDEX and SHT_SYMTAB_SHNDX, as with 65,280 sections;
    with that many sections it is not a choice, and the header's numbers move into section header 0.
    ``one_table``: the names of sections and symbols are in one string table, as clang has it.
    """
    form = _FORMS[bits]
    wide = wide or len(sections) >= LORESERVE
    relocations = relocations or []
    if bits == 32:
        sections = [_with_addends(section, relocations) for section in sections]
    index = {section.name: number for number, section in enumerate(sections, 1)}
    made = [Symbol(s.name, s.name, bind=LOCAL, type=SECTION) for s in sections]
    ordered = sorted([*made, *symbols], key=lambda symbol: symbol.bind != LOCAL)
    number = {symbol.name: at for at, symbol in enumerate(ordered, 1)}
    names = Strings()
    strings = names if one_table else Strings()
    table, indices = bytearray(_symbol(bits, 0, 0, 0, 0, 0, 0)), bytearray(4)
    row = len(table)
    for symbol in ordered:
        reserved = symbol.section in _RESERVED
        where = _RESERVED[symbol.section] if reserved else index[symbol.section]
        name = 0 if symbol.type == SECTION else strings.add(symbol.name)
        info = symbol.bind << 4 | symbol.type
        shndx = XINDEX if wide and not reserved else where
        table += _symbol(bits, name, info, symbol.visibility, shndx, symbol.value, symbol.size)
        indices += struct.pack("<I", 0 if reserved else where)
    locals_ = 1 + sum(symbol.bind == LOCAL for symbol in ordered)
    first = len(sections) + 1
    groups = list(dict.fromkeys(relocation.section for relocation in relocations))
    symtab = first + len(groups)
    strings_at = symtab + (1 + wide if one_table else 1)
    rows = [(s.name, s.type, s.flags, s.data, 0, 0, 0, s.align) for s in sections]
    for group in groups:
        own = [(each, number[each.symbol]) for each in relocations if each.section == group]
        if bits == 64:
            data = b"".join(struct.pack("<QQq", r.offset, to << 32 | r.kind, r.addend) for r, to in own)
            rows.append((f".rela{group}", RELA, 0x40, data, symtab, index[group], 24, 8))
        else:
            data = b"".join(struct.pack("<II", r.offset, to << 8 | r.kind) for r, to in own)
            rows.append((f".rel{group}", REL, 0x40, data, symtab, index[group], 8, 4))
    rows.append((".symtab", SYMTAB, 0, bytes(table), strings_at, locals_, row, form.align))
    if not one_table:
        rows.append((".strtab", STRTAB, 0, bytes(strings.data), 0, 0, 0, 1))
    if wide:
        rows.append((".symtab_shndx", SYMTAB_SHNDX, 0, bytes(indices), symtab, 0, 4, 4))
    rows.append((_names_called(one_table), STRTAB, 0, b"", 0, 0, 0, 1))
    return _file(rows, names, form._replace(machine=machine or form.machine), elf_type)


def _names_called(one_table: bool) -> str:
    return ".strtab" if one_table else ".shstrtab"


def _file(
    rows: list[tuple[str, int, int, bytes, int, int, int, int]], names: Strings, form: Form, elf_type: int
) -> bytes:
    body, headers = bytearray(), bytearray()
    names_at, count, size = len(rows), len(rows) + 1, struct.calcsize(form.section)
    begin = -(-form.header // 16) * 16
    offsets = [names.add(row[0]) for row in rows]
    for at, (_, kind, flags, data, link, info, entry, align) in zip(offsets, rows, strict=True):
        data = bytes(names.data) if len(headers) == size * (len(rows) - 1) else data
        entry = entry or int(bool(flags & STRINGS))
        body += bytes(-len(body) % 16)
        headers += struct.pack(
            form.section, at, kind, flags, 0, begin + len(body), len(data), link, info, align, entry
        )
        body += b"" if kind == NOBITS else data
    body += bytes(-len(body) % 16)
    # gABI chapter 4: numbers that do not fit into the header are in section header 0.
    many = count >= LORESERVE
    zero = struct.pack(form.section, 0, 0, 0, 0, 0, count if many else 0, names_at if many else 0, 0, 0, 0)
    header = b"\x7fELF" + bytes([2 if form.header == 64 else 1, 1, 1]) + bytes(9)
    header += struct.pack(
        form.ehdr, elf_type, form.machine, 1, 0, 0, begin + len(body), 0, form.header, 0, 0, size,
        0 if many else count, XINDEX if many else names_at,
    )  # fmt: skip
    return header + bytes(begin - len(header)) + bytes(body) + zero + bytes(headers)


def write_map(objects: Mapping[str, list[tuple[str, int]]], members: Collection[str] = ()) -> str:
    """The link map of a link that places every (section, size) of the objects, in order, 16 bytes apart.

    ``members``: the objects that came out of an archive; all stand where its first one does.
    """
    lines = [""]
    if members:
        lines = ["Archive member included to satisfy reference by file (symbol)", ""]
        lines += [f"{name} (--whole-archive)" for name in objects if name in members]
    lines += ["", "Linker script and memory map", ""]
    first = next((name for name in objects if name in members), "")
    lines += [
        f"LOAD {'built-in.a' if name == first else name}"
        for name in objects
        if members and (name == first or name not in members)
    ]
    lines.append(".text           0x1000   0x9000")
    address = 0x1000
    for name, sections in objects.items():
        for section, size in sections:
            lines.append(f" {section}\n                0x{address:016x} {size:#x} {name}")
            address += 16 + size
    return "\n".join([*lines, "OUTPUT(vmlinux elf64-x86-64)", ""])
