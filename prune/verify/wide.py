"""Objects for verify that have more sections than 16 bits count (gABI, extended section numbering): LIEF does
not read them, pyelftools does, and is slower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section as Header
from elftools.elf.sections import SymbolTableIndexSection, SymbolTableSection

from prune.verify.elf import (
    ALLOC,
    COMMON,
    CONSTANT,
    NOWHERE,
    Field,
    Object,
    Section,
    Symbol,
    read_original,
)  # fmt: skip
from tracer.host import MISSHAPEN, UserError

# By name or by number, as pyelftools knows it.
_WIDE = ("SHN_XINDEX", 0xFFFF)
_KNOWN = {"SHN_UNDEF": NOWHERE, "SHN_ABS": CONSTANT, "SHN_COMMON": COMMON}


def read_object(root: Path, name: str, widths: Mapping[int, int]) -> Object:
    """:func:`prune.verify.elf.read_original`, for objects of any number of sections.

    Raises:
        UserError: it is gone or damaged.
    """
    try:
        with (root / name).open("rb") as stream:
            elf = ELFFile(stream)
            # Then the number of sections is in section 0.
            if elf.header["e_shnum"] == 0 and elf.header["e_shoff"]:
                return _read(elf, name, widths)
    except (OSError, ELFError, StopIteration, MemoryError, *MISSHAPEN) as error:
        raise UserError(f"verifying {root / name}: {error}", "build the kernel again") from error
    return read_original(root, name, widths)


def _read(elf: Any, name: str, widths: Mapping[int, int]) -> Object:
    headers: list[Header] = list(elf.iter_sections())
    loaded = {index: each for index, each in enumerate(headers) if each["sh_flags"] & ALLOC}
    contents = {
        index: b"" if each["sh_type"] == "SHT_NOBITS" else each.data() for index, each in loaded.items()
    }
    table = next(each for each in headers if isinstance(each, SymbolTableSection))
    wide = next(each for each in headers if isinstance(each, SymbolTableIndexSection))
    rows = list(table.iter_symbols())
    symbols = [_symbol(row, wide, number, headers) for number, row in enumerate(rows)]
    fields: dict[int, tuple[Field, ...]] = {}
    for each in headers:
        owner = each["sh_info"]
        if isinstance(each, RelocationSection) and owner in loaded:
            fields[owner] = tuple(
                _field(row, contents[owner], symbols, widths) for row in each.iter_relocations()
            )
    sections = {
        index: Section(
            each.name, each["sh_flags"], each["sh_size"], each["sh_entsize"], contents[index],
            fields.get(index, ()),
        )
        for index, each in loaded.items()
        if each["sh_size"]
    }  # fmt: skip
    defined = tuple(
        symbol
        for symbol, row in zip(symbols, rows, strict=True)
        if symbol.section != NOWHERE and row["st_info"]["type"] not in ("STT_SECTION", "STT_FILE")
    )
    empty = {index: each.name for index, each in loaded.items() if not each["sh_size"]}
    undefined = frozenset(symbol.name for symbol in symbols if symbol.section == NOWHERE and symbol.name)
    return Object(name, sections, empty, defined, undefined)


def _field(row: Any, content: bytes, symbols: list[Symbol], widths: Mapping[int, int]) -> Field:
    at, kind = row["r_offset"], row["r_info_type"]
    if row.is_RELA():
        addend = row["r_addend"]
    else:
        addend = int.from_bytes(content[at : at + widths.get(kind, 0)], "little", signed=True)
    return Field(at, kind, addend, symbols[row["r_info_sym"]])


def _symbol(row: Any, wide: Any, number: int, headers: list[Header]) -> Symbol:
    index = row["st_shndx"]
    index = wide.get_section_index(number) if index in _WIDE else _KNOWN.get(index, index)
    binding, kind = row["st_info"]["bind"], row["st_info"]["type"]
    return Symbol(
        row.name, row["st_value"], index,
        binding == "STB_LOCAL", binding == "STB_WEAK", kind == "STT_SECTION", kind == "STT_FUNC",
    )  # fmt: skip
