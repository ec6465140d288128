"""The ELF files that verify reads, through LIEF: the linked kernel, and objects as the compiler made them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lief

from tracer.host import UserError

WRITABLE, ALLOC, EXECUTABLE, MERGE, STRINGS = 1, 2, 4, 16, 32
UNDEFINED, ABSOLUTE, RESERVED = 0, 0xFFF1, 0xFF00
# Symbol.section of what no section of the object holds.
NOWHERE, CONSTANT, COMMON = 0, -1, -2
_LOCAL, _WEAK = lief.ELF.Symbol.BINDING.LOCAL, lief.ELF.Symbol.BINDING.WEAK
_UNIQUE = lief.ELF.Symbol.BINDING.GNU_UNIQUE
_SECTION, _FUNCTION = lief.ELF.Symbol.TYPE.SECTION, lief.ELF.Symbol.TYPE.FUNC
_FILE, _OBJECT = lief.ELF.Symbol.TYPE.FILE, lief.ELF.Symbol.TYPE.OBJECT


@dataclass(frozen=True, slots=True)
class Symbol:
    """``section`` is the index of the object's section that defines it, or one of the names above."""

    name: str
    value: int
    section: int
    local: bool
    weak: bool
    is_section: bool
    is_function: bool = False


@dataclass(frozen=True, slots=True)
class Field:
    """One relocation: the field at ``offset`` of its section, against a symbol of its object. The ``addend``
    is signed, whether the relocation had it (RELA) or the field itself (REL)."""

    offset: int
    type: int
    addend: int
    symbol: Symbol


@dataclass(frozen=True, slots=True)
class Section:
    """One loaded, non-empty section of an object; ``content`` of a NOBITS section is empty; ``address``: 0,
    unless ld gave one to a section of a module."""

    name: str
    flags: int
    size: int
    entry_size: int
    content: bytes
    fields: tuple[Field, ...]
    address: int = 0

    @property
    def is_code(self) -> bool:
        return bool(self.flags & EXECUTABLE)

    @property
    def is_merged(self) -> bool:
        """What ld may merge: it leaves a section with relocations alone."""
        return bool(self.flags & MERGE) and not self.fields


@dataclass(frozen=True)
class Object:
    """Loaded sections by index, the names of ``empty`` ones, and all that it defines; ``undefined``: the
    names that it does not."""

    path: str
    sections: dict[int, Section]
    empty: dict[int, str]
    symbols: tuple[Symbol, ...]
    undefined: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Output:
    """One loaded section of the linked kernel."""

    address: int
    size: int
    flags: int
    content: bytes


@dataclass(frozen=True)
class Linked:
    """The linked kernel: bytes of a ``word``, its loaded sections, global name -> address, and every name ->
    (address, letter that nm has for it) of each symbol that has it."""

    word: int
    outputs: dict[str, Output]
    symbols: dict[str, int]
    named: dict[str, list[tuple[int, str]]]

    def output_at(self, address: int) -> Output | None:
        for output in self.outputs.values():
            if output.address <= address < output.address + output.size:
                return output
        return None

    def read(self, address: int, size: int) -> bytes:
        """What lies there; less where the output ends, nothing where there is none."""
        output = self.output_at(address)
        if output is None:
            return b""
        start = address - output.address
        return output.content[start : start + size]


def read_linked(path: Path) -> Linked:
    """Read vmlinux.

    Raises:
        UserError: not ELF, truncated, or stripped.
    """
    binary = _parse(path, "link again: kprune link")
    outputs = {
        str(section.name): Output(
            int(section.virtual_address), int(section.size), int(section.flags), _content(section)
        )
        for section in binary.sections
        if int(section.flags) & ALLOC
    }
    letters = [_letter(section) for section in binary.sections]
    symbols: dict[str, int] = {}
    named: dict[str, list[tuple[int, str]]] = {}
    for symbol in binary.symtab_symbols:
        name, value, binding = str(symbol.name), int(symbol.value), symbol.binding
        # Of the script's names, PROVIDE_HIDDEN makes local ones.
        if binding != _LOCAL or symbol.visibility == lief.ELF.Symbol.VISIBILITY.HIDDEN:
            symbols[name] = value
        index = int(symbol.shndx)
        kind = letters[index] if index < len(letters) else "a"
        if binding in (_WEAK, _UNIQUE):
            kind = "u" if binding == _UNIQUE else "v" if symbol.type == _OBJECT else "w"
        named.setdefault(name, []).append((value, kind if binding in (_LOCAL, _UNIQUE) else kind.upper()))
    if not symbols or not outputs:
        raise UserError(
            f"verifying {path}: it has no symbols",
            "verify the vmlinux that kprune linked, not a stripped one",
        )
    return Linked(_word(binary), outputs, symbols, named)


def read_original(root: Path, name: str, widths: Mapping[int, int]) -> Object:
    """Read an object as the compiler made it.

    Args:
        widths: relocation type -> bytes of the field.

    Raises:
        UserError: it is gone or damaged.
    """
    binary = _parse(root / name, "build the kernel again")
    loaded = {
        index: section
        for index, section in enumerate(binary.sections)
        if int(section.flags) & ALLOC and section.size
    }
    # LIEF tells a relocation's section without its index; the header's offset tells two of one name apart.
    index_of = {int(section.offset): index for index, section in loaded.items() if not _is_bss(section)}
    contents = {index: _content(section) for index, section in loaded.items()}
    fields: dict[int, list[Field]] = {}
    symbols: dict[int, Symbol] = {}
    for relocation in binary.object_relocations:
        index = index_of.get(int(relocation.section.offset)) if relocation.section is not None else None
        if index is None or not int(relocation.section.flags) & ALLOC:
            continue
        number = int(relocation.info)
        if number not in symbols:
            symbols[number] = _symbol(relocation.symbol)
        kind = int(relocation.type) & 0xFFFF  # LIEF keeps the machine above
        at, addend = int(relocation.address), int(relocation.addend)
        if relocation.is_rel:
            held = contents[index][at : at + widths.get(kind, 0)]
            addend = int.from_bytes(held, "little", signed=True)
        fields.setdefault(index, []).append(Field(at, kind, addend, symbols[number]))
    sections = {
        index: Section(
            str(section.name), int(section.flags), int(section.size), int(section.entry_size),
            contents[index], tuple(fields.get(index, ())), int(section.virtual_address),
        )
        for index, section in loaded.items()
    }  # fmt: skip
    defined = tuple(
        _symbol(symbol)
        for symbol in binary.symtab_symbols
        if symbol.shndx != UNDEFINED and symbol.type not in (_SECTION, _FILE)
    )
    empty = {
        index: str(section.name)
        for index, section in enumerate(binary.sections)
        if int(section.flags) & ALLOC and not section.size
    }
    undefined = frozenset(
        str(symbol.name) for symbol in binary.symtab_symbols if symbol.shndx == UNDEFINED and symbol.name
    )
    return Object(name, sections, empty, defined, undefined)


def _symbol(symbol: Any) -> Symbol:
    if symbol is None:
        return Symbol("", 0, CONSTANT, True, False, False)
    index = int(symbol.shndx)
    if index >= RESERVED:
        index = CONSTANT if index == ABSOLUTE else COMMON
    binding, kind = symbol.binding, symbol.type
    return Symbol(
        str(symbol.name), int(symbol.value), index,
        binding == _LOCAL, binding == _WEAK, kind == _SECTION, kind == _FUNCTION,
    )  # fmt: skip


def _letter(section: Any) -> str:
    """nm's letter for a local symbol there (binutils, bfd/syms.c: decode_section_type())."""
    flags = int(section.flags)
    if not flags & ALLOC:  # what ld makes of one that stayed empty
        return "?" if flags & WRITABLE else "n"
    if flags & EXECUTABLE:
        return "t"
    return "b" if _is_bss(section) else "d" if flags & WRITABLE else "r"


def _word(binary: Any) -> int:
    return 8 if binary.header.identity_class == lief.ELF.Header.CLASS.ELF64 else 4


def _is_bss(section: Any) -> bool:
    return bool(section.type == lief.ELF.Section.TYPE.NOBITS)


def _content(section: Any) -> bytes:
    return b"" if _is_bss(section) else bytes(section.content)


def _parse(path: Path, remedy: str) -> Any:
    if not path.is_file():
        raise UserError(f"verifying: {path} does not exist", remedy)
    lief.logging.disable()
    config = lief.ELF.ParserConfig()
    config.parse_dyn_symbols = config.parse_notes = config.parse_overlay = False
    binary = lief.ELF.parse(str(path), config)
    if binary is None or not _is_whole(binary, path.stat().st_size):
        raise UserError(f"verifying {path}: not a whole ELF file", remedy)
    return binary


def _is_whole(binary: Any, size: int) -> bool:
    """LIEF reads what it can of a damaged file: header table and sections must lie in it."""
    header = binary.header
    table = header.section_header_offset + header.numberof_sections * header.section_header_size
    return bool(
        header.section_header_offset > 0
        and table <= size
        and len(binary.sections) >= header.numberof_sections > 0
        and all(_is_bss(section) or section.offset + section.size <= size for section in binary.sections)
    )
