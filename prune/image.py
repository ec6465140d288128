"""The immutable model of one link: objects, units, symbols, relocations, as arrays.

The link map says what is in the image and where; the objects say what refers to what. A unit is one
loaded input section. Every symbol name has one definition that the link chose (strong before weak,
then the first), and every relocation one target unit, so later passes never resolve a name again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from prune.apart import Piece
from prune.elf import (
    RELA,
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_MERGE,
    SHN_COMMON,
    SHN_LORESERVE,
    SHN_UNDEF,
    SHT_RELA,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_NOTYPE,
    ObjectFile,
    Rows,
    is_bitcode,
    read_object,
)
from prune.knowledge import Knowledge
from prune.linkmap import LinkMap, take_apart
from prune.refine import refine
from tracer.host import UserError

UNIT = np.dtype(
    [
        ("object", "<i4"), ("section", "<i4"), ("size", "<i8"), ("address", "<u8"), ("placed", "<i8"),
        ("flags", "<i8"), ("function", "?"), ("data", "?"),
    ]
)  # fmt: skip
RELOCATION = np.dtype(
    [
        ("unit", "<i4"), ("target", "<i4"), ("symbol", "<i4"), ("type", "<i4"),
        ("offset", "<i8"), ("addend", "<i8"), ("at", "<i8"), ("before", "<u2"),
    ]
)  # fmt: skip


@dataclass(frozen=True)
class Image:
    """Arrays of one link.

    ``files``: the objects with shared code taken apart (:mod:`prune.refine`); ``pieces``: (object, section)
    -> what it was taken apart into.
    ``units``: ``UNIT`` rows; ``placed`` is the size in the image (merging may shrink a section),
    ``function``/``data`` say that the section holds one function or variable and may be dropped.
    ``names``: section name of each unit.
    ``symbols_at[i]``: row of object ``i``'s symbol 0 in the flat symbol arrays ``symbol_unit``
    (-1: none) and ``symbol_value``; ``definition``: the row that each resolves to, -1 for none.
    ``globals_``: name -> flat row of the definition that the link chose.
    ``relocations``: ``RELOCATION`` rows of loaded units; ``symbol`` is a flat row, ``target`` the
    unit that the symbol resolves to or -1, ``at`` the row's position in the object's file,
    ``before`` the two bytes before the field (opcode).
    """

    root: Path
    objects: tuple[str, ...]
    files: tuple[ObjectFile, ...]
    pieces: Mapping[tuple[str, str], tuple[Piece, ...]]
    units: Rows
    names: tuple[str, ...]
    outputs: tuple[str, ...]
    symbols_at: Rows
    symbol_unit: Rows
    symbol_value: Rows
    definition: Rows
    globals_: dict[str, int]
    global_names: frozenset[str]
    relocations: Rows

    def unit_label(self, unit: int) -> str:
        """``object:section``, the name of a unit in every text."""
        return f"{self.objects[self.units['object'][unit]]}:{self.names[unit]}"

    @cached_property
    def unit_of(self) -> dict[tuple[str, str], int]:
        """(object, section) -> unit."""
        return {
            (self.objects[obj], name): unit
            for unit, (obj, name) in enumerate(zip(self.units["object"].tolist(), self.names, strict=True))
        }

    @cached_property
    def was_shared(self) -> Rows:
        """Mask of the units that shared a section with others of their object before it was taken apart."""
        mask = np.zeros(len(self.units), bool)
        parts = [(place[0], part.name) for place, pieces in self.pieces.items() for part in pieces]
        mask[[self.unit_of[part] for part in parts if part in self.unit_of]] = True
        return mask

    def locate_symbol(self, row: int) -> tuple[int, int]:
        """Flat symbol row -> (object, index in its symbol table)."""
        obj = int(np.searchsorted(self.symbols_at, row, "right")) - 1
        return obj, row - int(self.symbols_at[obj])

    def symbol_name(self, row: int) -> str:
        obj, index = self.locate_symbol(row)
        return self.files[obj].symbol_name(index)

    @cached_property
    def functions(self) -> tuple[tuple[int, int, int, str], ...]:
        """(unit, offset, size, name) of every function and assembly label in executable units."""
        found: list[tuple[int, int, int, str]] = []
        for obj, file in enumerate(self.files):
            base = int(self.symbols_at[obj])
            units = self.symbol_unit[base : base + len(file.symbols)]
            kinds = file.symbols["info"] & 15
            executable = (units >= 0) & (self.units["flags"][units] & SHF_EXECINSTR != 0)
            wanted = np.flatnonzero(executable & ((kinds == STT_FUNC) | (kinds == STT_NOTYPE)))
            for index in wanted.tolist():
                name = file.symbol_name(index)
                if name and not name.startswith(".L"):
                    row = file.symbols[index]
                    found.append((int(units[index]), int(row["value"]), int(row["size"]), name))
        return tuple(found)

    def labels(self, units: Iterable[int]) -> dict[int, str]:
        """The first function name of each of the given units."""
        wanted = set(units)
        named: dict[int, str] = {}
        for unit, offset, _, name in self.functions:
            if unit in wanted and (offset == 0 or unit not in named):
                named.setdefault(unit, name)
        return named


def read_image(root: Path, link_map: LinkMap, knowledge: Knowledge) -> Image:
    """Read every object of a link.

    Args:
        root: the object tree that the map's paths are relative to.

    Raises:
        UserError: a bad object, an object that the map knows otherwise, or no function sections.
    """
    listed = tuple(name for name in link_map.objects if not knowledge.is_generated(name))
    objects = tuple(name for name in listed if "(" in name or not is_bitcode(root / name))
    archived = [name for name in objects if "(" in name]
    if archived:
        raise UserError(
            f"reading the link of {root}: {archived[0]} is in an archive that is not thin",
            "build with the kernel's own kbuild",
        )
    refined = [refine(read_object(root / name, knowledge.machine), knowledge) for name in objects]
    pieces = {
        (name, split.name): split.pieces
        for name, (_, splits) in zip(objects, refined, strict=True)
        for split in splits
    }
    files = tuple(file for file, _ in refined)
    return _assemble(root, objects, files, pieces, link_map, knowledge)


def _assemble(
    root: Path,
    objects: tuple[str, ...],
    files: tuple[ObjectFile, ...],
    pieces: Mapping[tuple[str, str], tuple[Piece, ...]],
    link_map: LinkMap,
    knowledge: Knowledge,
) -> Image:
    units, names, outputs, unit_at = _units(objects, files, take_apart(link_map, pieces), knowledge)
    symbols_at = np.concatenate([[0], np.cumsum([len(file.symbols) for file in files])])[:-1]
    symbol_unit, symbol_value = _symbols(files, unit_at)
    chosen, everyone = _resolve(files, symbols_at)
    definition = _definitions(files, symbols_at, len(symbol_unit), chosen)
    target = np.where(definition >= 0, symbol_unit[definition], -1)
    relocations = _relocations(files, unit_at, symbols_at, target)
    taken_apart = {(name, piece.name) for (name, _), parts in pieces.items() for piece in parts}
    functions = np.flatnonzero(units["function"]).tolist()
    if all((objects[units["object"][unit]], names[unit]) in taken_apart for unit in functions):
        raise UserError(
            f"reading the link of {root}: no function has a section of its own",
            "build with KCFLAGS='-ffunction-sections -fdata-sections' and LD=kprune-ld",
        )
    return Image(
        root, objects, files, pieces, units, names, outputs, symbols_at, symbol_unit, symbol_value,
        definition, chosen, everyone, relocations,
    )  # fmt: skip


def _units(
    objects: Sequence[str], files: Sequence[ObjectFile], link_map: LinkMap, knowledge: Knowledge
) -> tuple[Rows, tuple[str, ...], tuple[str, ...], list[Rows]]:
    """One unit for each loaded section of the map; also, per object, section index -> unit or -1."""
    placed: dict[str, dict[str, list[tuple[int, int, str]]]] = {name: {} for name in objects}
    for item in link_map.placed:
        if item.object in placed:
            placed[item.object].setdefault(item.section, []).append((item.address, item.size, item.output))
    merged = [(row.address, 0, row.output) for row in link_map.merged[:1]]
    rows: list[tuple[int, int, int, int, int, int, bool, bool]] = []
    names: list[str] = []
    outputs: list[str] = []
    unit_at: list[Rows] = []
    for number, (name, file) in enumerate(zip(objects, files, strict=True)):
        at = np.full(len(file.sections), -1, np.int32)
        loaded = np.flatnonzero((file.sections["flags"] & SHF_ALLOC != 0) & (file.sections["size"] > 0))
        sizes, flags = file.sections["size"].tolist(), (file.sections["flags"] & 0xFFFFFFFF).tolist()
        count: dict[str, int] = {}
        same = Counter(file.section_names[index] for index in loaded.tolist())
        for index in loaded.tolist():
            section = file.section_names[index]
            where, nth = placed[name].get(section, []), 0
            if len(where) < same[section] and merged and flags[index] & SHF_MERGE:
                where = merged
            else:
                nth = count[section] = count.get(section, -1) + 1
            if nth >= len(where):
                continue
            alone = same[section] == 1 if where is merged else len(where) == 1
            at[index] = len(rows)
            function, data = knowledge.unit_kind(section)
            executable = bool(flags[index] & SHF_EXECINSTR)
            rows.append(
                (
                    number, index, sizes[index], where[nth][0], where[nth][1], flags[index],
                    alone and function and executable, alone and data and not executable,
                )
            )  # fmt: skip
            names.append(section)
            outputs.append(where[nth][2])
        unit_at.append(at)
    return np.array(rows, UNIT), tuple(names), tuple(outputs), unit_at


def _symbols(files: Sequence[ObjectFile], unit_at: Sequence[Rows]) -> tuple[Rows, Rows]:
    units, values = [], []
    for file, at in zip(files, unit_at, strict=True):
        plain = (file.shndx != SHN_UNDEF) & (
            (file.symbols["shndx"] < SHN_LORESERVE) | (file.shndx != file.symbols["shndx"])
        )
        units.append(np.where(plain, at[np.where(plain, file.shndx, 0)], -1))
        values.append(file.symbols["value"].astype(np.int64))
    return np.concatenate(units), np.concatenate(values)


def _resolve(files: Sequence[ObjectFile], symbols_at: Rows) -> tuple[dict[str, int], frozenset[str]]:
    """Names -> the definition that the link chooses: strong before common before weak, then the first."""
    strong: dict[str, int] = {}
    common: dict[str, int] = {}
    weak: dict[str, int] = {}
    everyone: set[str] = set()
    for file, base in zip(files, symbols_at.tolist(), strict=True):
        bind = file.symbols["info"] >> 4
        for index in np.flatnonzero(bind != STB_LOCAL).tolist():
            name = file.symbol_name(index)
            everyone.add(name)
            if file.symbols["shndx"][index] == SHN_COMMON:
                common.setdefault(name, base + index)
            elif file.shndx[index] != SHN_UNDEF:
                (weak if bind[index] == STB_WEAK else strong).setdefault(name, base + index)
    return {**weak, **common, **strong}, frozenset(everyone)


def _definitions(files: Sequence[ObjectFile], symbols_at: Rows, symbols: int, chosen: dict[str, int]) -> Rows:
    """Flat symbol row -> the flat row that it resolves to (itself for a local), -1 for none."""
    rows = np.arange(symbols, dtype=np.int64)
    for file, base in zip(files, symbols_at.tolist(), strict=True):
        for index in np.flatnonzero(file.symbols["info"] >> 4 != STB_LOCAL).tolist():
            rows[base + index] = chosen.get(file.symbol_name(index), -1)
    return rows


def _relocations(
    files: Sequence[ObjectFile], unit_at: Sequence[Rows], symbols_at: Rows, target: Rows
) -> Rows:
    parts = []
    for file, at, base in zip(files, unit_at, symbols_at.tolist(), strict=True):
        data = np.frombuffer(file.data, np.uint8)
        for index in np.flatnonzero(file.sections["type"] == SHT_RELA).tolist():
            section = int(file.sections[index]["info"])
            if at[section] < 0:
                continue
            rows = file.relocations(index)
            part = np.empty(len(rows), RELOCATION)
            part["unit"] = at[section]
            part["symbol"] = (rows["info"] >> 32).astype(np.int64) + base
            part["type"] = rows["info"] & 0xFFFFFFFF
            part["offset"] = rows["offset"]
            part["addend"] = rows["addend"]
            part["at"] = int(file.sections[index]["offset"]) + RELA.itemsize * np.arange(len(rows))
            start = int(file.sections[section]["offset"]) + part["offset"]
            part["before"] = data[start - 2].astype(np.uint16) << 8 | data[start - 1]
            parts.append(part)
    whole = np.concatenate(parts) if parts else np.empty(0, RELOCATION)
    whole["target"] = target[whole["symbol"]]
    return whole


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a glob of the list matches."""
    return _expression(tuple(patterns)).match(name) is not None


@cache
def _expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One for all of them: a kernel has a hundred thousand names."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")
