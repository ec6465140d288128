"""One relocatable object as numpy rows.

pyelftools judges the header and says where the tables are; the rows of the section, symbol and
relocation tables are then read with structured arrays, because a kernel has a hundred thousand of each
(gABI chapters 4 and 5): viewed in place when they are of ELF64 with RELA, else widened to that
(:mod:`prune.model.layout`).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prune.model.layout import SHT_REL, SHT_RELA, SYMBOL_SHIFT, Machine, layout_of
from prune.model.layout import Rows as Rows
from tracer.host import UserError

# To read an object; what was read and stored is used without it.
if TYPE_CHECKING:
    from elftools.construct.lib.container import Container
    from elftools.elf.structs import ELFStructs

SHT_STRTAB = 3
SHT_PROGBITS, SHT_SYMTAB, SHT_NOTE, SHT_NOBITS, SHT_SYMTAB_SHNDX = 1, 2, 7, 8, 18
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR, SHF_MERGE = 1, 2, 4, 16
SHF_STRINGS, SHF_LINK_ORDER, SHF_GROUP = 0x20, 0x80, 0x200
SHN_UNDEF, SHN_LORESERVE, SHN_ABS, SHN_COMMON, SHN_XINDEX = 0, 0xFF00, 0xFFF1, 0xFFF2, 0xFFFF
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_NOTYPE, STT_OBJECT, STT_FUNC, STT_SECTION, STT_FILE = 0, 1, 2, 3, 4

_ADDRESS_SPACE = 1 << 47  # Half of what 4-level paging maps, all that a kernel's own half can hold.


def distinct(rows: Rows) -> Rows:
    """Each of some numbers, none negative, once, in order. (np.unique imports what handles masked arrays.)"""
    seen = np.zeros(int(rows.max()) + 1 if len(rows) else 0, bool)
    seen[rows] = True
    return np.flatnonzero(seen)


@dataclass(frozen=True)
class ObjectFile:
    """The tables of one object; ``sections[i]`` is section header ``i``.

    ``shndx`` widens every symbol's section index to 32 bits (``SHN_XINDEX`` resolved), with the
    reserved values left as they are in ``symbols["shndx"]`` when they are not ``SHN_XINDEX``.
    """

    path: Path
    machine: Machine
    data: bytes
    sections: Rows
    section_names: tuple[str, ...]
    symtab: int
    symbols: Rows
    shndx: Rows
    shoff: int

    @cached_property
    def strtab(self) -> bytes:
        return self.content(int(self.sections[self.symtab]["link"]))

    def content(self, index: int) -> bytes:
        """The bytes of a section in the file (empty for ``SHT_NOBITS``)."""
        header = self.sections[index]
        if header["type"] == SHT_NOBITS:
            return b""
        start = int(header["offset"])
        return self.data[start : start + int(header["size"])]

    def symbol_name(self, index: int) -> str:
        start = int(self.symbols[index]["name"])
        return _text(self.strtab, start)

    def relocation_sections(self) -> list[int]:
        """The sections that hold relocations."""
        found: list[int] = np.flatnonzero(self.sections["type"] == self.machine.table).tolist()
        return found

    def relocations(self, index: int) -> Rows:
        """Relocation section ``index`` as ``RELA`` rows, wherever the addends are."""
        header = self.sections[index]
        start, count = int(header["offset"]), int(header["size"]) // self.machine.relocation.itemsize
        return self.machine.relocations(
            self.data, count, start, int(self.sections["offset"][int(header["info"])])
        )

    def relocated(self, section: int) -> Rows:
        """Where in a section its relocations are, in the order of the file."""
        of_it = [index for index in self.relocation_sections() if self.sections["info"][index] == section]
        found = [self.relocations(index)["offset"].astype(np.int64) for index in of_it]
        return np.concatenate(found) if found else np.empty(0, np.int64)


def _text(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode("ascii", "surrogateescape")


def is_bitcode(path: Path) -> bool:
    """Whether a compiler left the work to the linker (llvm/BitstreamReader: magic numbers)."""
    try:
        with path.open("rb") as stream:
            return stream.read(4) in (b"BC\xc0\xde", b"\xde\xc0\x17\x0b")
    except OSError:
        return False  # whoever reads it will say so


def read_object(path: Path, machine: Machine) -> ObjectFile:
    """Read one relocatable object.

    Raises:
        UserError: not a little-endian ELF file, truncated, or of another machine or class.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"reading object {path}: {error.strerror}", "build the kernel again") from error
    return parse_object(path, data, machine)


def parse_object(path: Path, data: bytes, machine: Machine) -> ObjectFile:
    """As :func:`read_object`, from bytes."""
    header = _header(path, data, machine)
    if header["e_type"] != "ET_REL":
        raise UserError(f"reading object {path}: {header['e_type']} is not a relocatable object")
    try:
        return _tables(path, data, header, machine)
    except (ValueError, IndexError, OverflowError) as error:
        raise _damaged(path, str(error)) from error


@cache
def _structs(bits: int) -> ELFStructs:
    """pyelftools' description of little-endian ELF, made once: it costs more than the parse."""
    from elftools.elf.structs import ELFStructs

    structs = ELFStructs(little_endian=True, elfclass=bits)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    return structs


def _header(path: Path, data: bytes, machine: Machine) -> Container:
    from elftools.common.exceptions import ELFError, ELFParseError
    from elftools.common.utils import struct_parse

    layout = layout_of(data)
    if data[:4] != b"\x7fELF" or (layout and len(data) < layout.header.itemsize):
        raise _damaged(path, "no ELF header")
    if layout is None:
        raise UserError(f"reading object {path}: only little-endian ELF files are supported")
    try:
        header: Container = struct_parse(_structs(layout.bits).Elf_Ehdr, io.BytesIO(data))
    except (ELFError, ELFParseError) as error:
        raise _damaged(path, str(error)) from error
    if header["e_machine"] != machine.name or layout is not machine.layout:
        raise UserError(
            f"reading object {path}: it is {header['e_machine']}, ELF{layout.bits}; "
            f"this kernel is {machine.name}, ELF{machine.layout.bits}"
        )
    return header


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"reading object {path}: not a whole ELF file ({why})", "build the kernel again")


def _tables(path: Path, data: bytes, header: Container, machine: Machine) -> ObjectFile:
    layout = machine.layout
    shoff, count, names_at = header["e_shoff"], header["e_shnum"], header["e_shstrndx"]
    first = layout.sections(data, 1, shoff)[0]
    # gABI: with 0xff00 sections or more, the numbers move into section header 0.
    count = count or int(first["size"])
    names_at = int(first["link"]) if names_at == SHN_XINDEX else names_at
    sections = layout.sections(data, count, shoff)
    in_file = sections["type"] != SHT_NOBITS
    # Each on its own first: the sum of two 64-bit fields wraps.
    ends = np.where(sections["size"] > len(data), sections["size"], sections["offset"] + sections["size"])
    if np.any(np.maximum(ends, sections["offset"])[in_file] > len(data)):
        raise ValueError("a section lies beyond the end of the file")
    if np.any(sections["size"] > _ADDRESS_SPACE):
        raise ValueError("a section is larger than memory")
    if max(int(sections[column].max()) for column in ("align", "entsize", "offset")) > _ADDRESS_SPACE:
        raise ValueError("a section header has a value that no file can have")
    if np.any(sections["type"] == SHT_REL + SHT_RELA - machine.table):
        kind = "RELA" if machine.widths else "REL"
        raise UserError(f"reading object {path}: {kind} relocations are not supported on {machine.name}")
    if sections["type"][names_at] != SHT_STRTAB:
        raise ValueError("the sections' names are in no string table")
    names = _names(data, sections[names_at], sections["name"])
    symtabs = np.flatnonzero(sections["type"] == SHT_SYMTAB)
    if len(symtabs) != 1:
        raise ValueError(f"{len(symtabs)} symbol tables")
    symtab = int(symtabs[0])
    count = int(sections[symtab]["size"]) // layout.symbol.itemsize
    symbols = layout.symbols(data, count, int(sections[symtab]["offset"]))
    found = ObjectFile(
        path, machine, data, sections, names, symtab, symbols, _wide_indices(data, sections, symbols), shoff
    )
    _check_references(found)
    return found


def _names(data: bytes, table: Any, offsets: Rows) -> tuple[str, ...]:
    start = int(table["offset"])
    strings = data[start : start + int(table["size"])]
    return tuple(_text(strings, int(offset)) for offset in offsets)


def section_names_at(file: ObjectFile) -> int:
    """Index of the section that holds the sections' names (gABI: in header 0 when it does not fit)."""
    found = int(file.machine.layout.header_of(file.data)["shstrndx"])
    return int(file.sections["link"][0]) if found == SHN_XINDEX else found


def add_name(names: bytearray, name: str) -> int:
    """Append a name to a string table; where it begins."""
    at = len(names)
    names += name.encode("ascii", "surrogateescape") + b"\0"
    return at


def _wide_indices(data: bytes, sections: Rows, symbols: Rows) -> Rows:
    wide = symbols["shndx"].astype(np.uint32)
    extended = np.flatnonzero(sections["type"] == SHT_SYMTAB_SHNDX)
    if len(extended):
        if int(sections[extended[0]]["size"]) < 4 * len(symbols):
            raise ValueError("the wide section indices are cut short")
        table = np.frombuffer(data, "<u4", len(symbols), int(sections[extended[0]]["offset"]))
        wide = np.where(symbols["shndx"] == SHN_XINDEX, table, wide)
    elif np.any(symbols["shndx"] == SHN_XINDEX):
        raise ValueError("SHN_XINDEX without SHT_SYMTAB_SHNDX")
    return wide


def _check_references(found: ObjectFile) -> None:
    """Every index that later passes follow without looking must be in range."""
    if len(found.symbols) and int(found.symbols["size"].max()) > _ADDRESS_SPACE:
        raise ValueError("a symbol is larger than memory")
    table = found.sections[found.symtab]
    if int(table["link"]) >= len(found.sections):
        raise ValueError("the symbol table names no string table")
    if found.sections["type"][int(table["link"])] != SHT_STRTAB:
        raise ValueError("the symbols' names are in no string table")
    if len(found.symbols) and int(found.symbols["name"].max()) >= max(len(found.strtab), 1):
        raise ValueError("a symbol's name lies outside the string table")
    if found.strtab[-1:] != b"\0":
        raise ValueError("the string table does not end")
    if int(table["info"]) > len(found.symbols):  # gABI: one more than the last local symbol
        raise ValueError("global symbols begin behind the last symbol")
    narrow = found.symbols["shndx"]
    plain = found.shndx[(narrow < SHN_LORESERVE) | (narrow == SHN_XINDEX)]
    if len(plain) and int(plain.max()) >= len(found.sections):
        raise ValueError("a symbol lies in no section")
    for index in found.relocation_sections():
        _check_relocations(found, index)


def _check_relocations(found: ObjectFile, index: int) -> None:
    header = found.sections[index]
    if int(header["info"]) >= len(found.sections) or int(header["link"]) != found.symtab:
        raise ValueError(f"relocation section {index} applies to nothing")
    applies = found.sections[int(header["info"])]
    if not int(header["size"]) // found.machine.relocation.itemsize:
        return
    if applies["type"] == SHT_NOBITS:
        raise ValueError(f"relocation section {index} applies to a section without bytes")
    try:
        rows = found.relocations(index)
    except KeyError as error:
        raise UserError(
            f"reading object {found.path}: relocation type {error} is not known on {found.machine.name}",
            "describe it in linkerscripts/",
        ) from error
    if int((rows["info"] >> SYMBOL_SHIFT).max()) >= len(found.symbols):
        raise ValueError(f"relocation section {index} names a symbol that is not there")
    if found.machine.reach(rows) > max(int(applies["size"]), 1):
        raise ValueError(f"relocation section {index} points outside its section")
