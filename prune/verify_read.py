"""What verify reads, with readers of its own: nothing here is shared with the code that wrote the files.

The linked kernel and the objects come through LIEF, the map through a line reader, the plan and the
tombstones as JSON. Kernel knowledge is the data in ``linkerscripts/``.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lief

from tracer.host import UserError, read_json

_KNOWLEDGE = Path(__file__).resolve().parent.parent / "linkerscripts"
_EDITED = re.compile(r"^\.kprune/plan-[0-9a-f]+/objects/")
ALLOC, EXECUTABLE, MERGE, STRINGS = 2, 4, 16, 32
NOBITS = 8
UNDEFINED, ABSOLUTE, RESERVED = 0, 0xFFF1, 0xFF00
WEAK, LOCAL = 2, 0
SECTION_SYMBOL = 3

Place = tuple[str, str]


@dataclass(frozen=True)
class Piece:
    """One input section where the map says that it lies: ``output`` is the section of the image."""

    object: str
    section: str
    output: str
    address: int
    size: int


@dataclass(frozen=True)
class Field:
    """One relocation: the field at ``offset`` of its section, against a symbol of its object."""

    offset: int
    type: int
    addend: int
    symbol: Symbol


@dataclass(frozen=True)
class Symbol:
    """``section`` is the name of the object's section that defines it, "" when none does."""

    name: str
    value: int
    section: str
    local: bool
    weak: bool
    is_section: bool


@dataclass(frozen=True)
class Section:
    """One loaded section of an object."""

    name: str
    flags: int
    type: int
    size: int
    entry_size: int
    content: bytes
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Object:
    """Loaded sections by name (a name that two sections share is left out) and global definitions."""

    path: str
    sections: dict[str, Section]
    shared: frozenset[str]
    definitions: tuple[Symbol, ...]


@dataclass(frozen=True)
class Linked:
    """The linked kernel: output section -> (address, flags, bytes), global name -> address."""

    sections: dict[str, tuple[int, int, bytes]]
    symbols: dict[str, int]


def read_linked(path: Path) -> Linked:
    """Read vmlinux.

    Raises:
        UserError: not ELF, truncated, or stripped.
    """
    binary = _parse(path)
    sections = {}
    for section in binary.sections:
        if int(section.flags) & ALLOC:
            content = b"" if section.type == lief.ELF.Section.TYPE.NOBITS else bytes(section.content)
            sections[str(section.name)] = (int(section.virtual_address), int(section.flags), content)
    symbols = {
        str(s.name): int(s.value) for s in binary.symtab_symbols if s.binding != lief.ELF.Symbol.BINDING.LOCAL
    }
    if not symbols or not sections:
        raise UserError(
            f"verifying {path}: it has no symbols",
            "verify the vmlinux that kprune linked, not a stripped one",
        )
    return Linked(sections, symbols)


def read_original(root: Path, name: str) -> Object:
    """Read an object as the compiler made it.

    Raises:
        UserError: it is gone or damaged.
    """
    binary = _parse(root / name)
    names = [str(section.name) for section in binary.sections]
    fields: dict[str, list[Field]] = {}
    for relocation in binary.object_relocations:
        target, symbol = relocation.section, relocation.symbol
        if target is None or symbol is None or not int(target.flags) & ALLOC:
            continue
        found = _symbol(symbol, names)
        fields.setdefault(str(target.name), []).append(
            Field(int(relocation.address), int(relocation.type) & 0xFFFF, int(relocation.addend), found)
        )
    sections: dict[str, Section] = {}
    shared: set[str] = set()
    for section in binary.sections:
        if not int(section.flags) & ALLOC or not section.size:
            continue
        label = str(section.name)
        if label in sections:
            shared.add(label)
        is_bss = section.type == lief.ELF.Section.TYPE.NOBITS
        sections[label] = Section(
            label, int(section.flags), NOBITS if is_bss else 1, int(section.size), int(section.entry_size),
            b"" if is_bss else bytes(section.content), tuple(fields.get(label, ())),
        )  # fmt: skip
    globals_ = tuple(
        _symbol(symbol, names)
        for symbol in binary.symtab_symbols
        if symbol.binding != lief.ELF.Symbol.BINDING.LOCAL and symbol.shndx != UNDEFINED
    )
    return Object(name, sections, frozenset(shared), globals_)


def _symbol(symbol: Any, names: list[str]) -> Symbol:
    index = int(symbol.shndx)
    section = names[index] if 0 < index < min(len(names), RESERVED) else ""
    return Symbol(
        str(symbol.name),
        int(symbol.value),
        section,
        symbol.binding == lief.ELF.Symbol.BINDING.LOCAL,
        symbol.binding == lief.ELF.Symbol.BINDING.WEAK,
        symbol.type == lief.ELF.Symbol.TYPE.SECTION,
    )


def _parse(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"verifying: {path} does not exist", "link first: kprune link")
    lief.logging.disable()
    binary = lief.ELF.parse(str(path))
    # LIEF reads what it can of a damaged file; a section beyond the end is the sign of one.
    if (
        binary is None
        or any(
            section.type != lief.ELF.Section.TYPE.NOBITS
            and section.offset + section.size > path.stat().st_size
            for section in binary.sections
        )
        or not len(binary.sections)
    ):
        raise UserError(f"verifying {path}: not a whole ELF file", "link again: kprune link")
    return binary


def read_pieces(path: Path) -> tuple[Piece, ...]:
    """Every placed input section of a link map, in order.

    Raises:
        UserError: not a map.
    """
    if not path.is_file():
        raise UserError(f"verifying: {path} does not exist", "link first: kprune link")
    text = path.read_text(errors="surrogateescape")
    pieces = tuple(_pieces(text.splitlines()))
    # ld names its output behind all sections of the script: without that line the map was cut.
    if not pieces or "\nOUTPUT(" not in text:
        raise UserError(f"verifying: {path} is not a link map", "link again: kprune link")
    return pieces


def _pieces(lines: list[str]) -> Iterator[Piece]:
    output, pending, inside = "", "", False
    for line in lines:
        if line == "Linker script and memory map":
            inside = True
        if not inside:
            continue
        words = line.split(None, 3)
        if line[:1] not in ("", " ") and words:
            output, pending = words[0], ""
            continue
        if len(words) == 1 and line[:1] == " " and line[1:2] not in ("", " ", "*"):
            pending = words[0]
            continue
        if pending and line.startswith("                0x"):
            words = [pending, *line.split(None, 2)]
        elif line[:1] != " " or line[1:2] in ("", " ", "*"):
            pending = ""
            continue
        pending = ""
        if len(words) == 4 and words[1].startswith("0x") and words[2].startswith("0x"):
            yield Piece(_EDITED.sub("", words[3]), words[0], output, int(words[1], 16), int(words[2], 16))


def read_fates(path: Path) -> dict[Place, bool]:
    """(object, section) -> kept, from plan.json."""
    value = read_json(path, "plan", 1)
    try:
        return {(row[0], row[1]): row[3] == "keep" for row in value["units"]}
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"verifying: {path}: {error!r}", "make the plan again") from error


def read_stones(path: Path) -> list[tuple[Place, int, tuple[str, ...]]]:
    """((object, section), address, names) of every tombstone, from tombstones.json."""
    value = read_json(path, "tombstones", 1)
    try:
        return [
            ((row["object"], row["section"]), int(row["address"]), tuple(row["names"]))
            for row in value["tombstones"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"verifying: {path}: {error!r}", "link again: kprune link") from error


def read_facts(arch: str) -> dict[str, Any]:
    """The architecture's description with the common tables joined in."""
    try:
        common = tomllib.loads((_KNOWLEDGE / "common.toml").read_text())
        own = tomllib.loads((_KNOWLEDGE / f"{arch}.toml").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"verifying: architecture {arch}: {error}") from error
    return {**own, "table": [*common["table"], *own.get("table", [])], "patched": common["patched"]}
