"""From objects and link map to an image: every object read once, every name resolved once."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from prune.model.apart import Piece
from prune.model.digests import digests_of
from prune.model.elf import (
    SHF_ALLOC,
    SHF_EXECINSTR,
    SHF_MERGE,
    SHN_COMMON,
    SHN_LORESERVE,
    SHN_UNDEF,
    STB_LOCAL,
    STB_WEAK,
    STT_FUNC,
    STT_NOTYPE,
    ObjectFile,
    Rows,
    is_bitcode,
    read_object,
)
from prune.model.image import FUNCTION, RELOCATION, UNIT, Image, Names, expression, matches
from prune.model.kinds import Kinds, relocated_by
from prune.model.knowledge import Knowledge
from prune.model.layout import SYMBOL_SHIFT, kinds_of
from prune.model.linkmap import LinkMap, take_apart
from prune.model.operands import reads
from prune.model.refine import refine
from prune.model.room import Wanted, lay_out, make_room
from prune.model.standins import find_stand_ins
from prune.model.strings import find_strings
from tracer.host import UserError


def read_image(root: Path, link_map: LinkMap, knowledge: Knowledge) -> Image:
    """Read every object of a link.

    Args:
        root: the object tree that the map's paths are relative to.

    Raises:
        UserError: a bad object, an object that the map knows otherwise, or no function sections.
    """
    objects = objects_of(root, link_map, knowledge)
    refined = [refine(read_object(root / name, knowledge.machine), knowledge) for name in objects]
    pieces = {
        (name, split.name): split.pieces
        for name, (_, splits) in zip(objects, refined, strict=True)
        for split in splits
    }
    files = tuple(file for file, _ in refined)
    digests = digests_of([root / name for name in objects])
    return _Assembly(root, objects, files, pieces, link_map, knowledge).image(digests)


def objects_of(root: Path, link_map: LinkMap, knowledge: Knowledge) -> tuple[str, ...]:
    """The objects of a link that can be pruned, in their order.

    Raises:
        UserError: one is in an archive that holds its content, or outside the tree.
            (Its edited copy would be outside as well.)
    """
    listed = tuple(name for name in link_map.objects if not knowledge.is_generated(name))
    outside = next((name for name in listed if not _is_below(name)), None)
    if outside is not None:
        raise UserError(
            f"reading the link of {root}: {outside!r} is not in the object tree", "build the kernel again"
        )
    objects = tuple(name for name in listed if "(" in name or not is_bitcode(root / name))
    archived = [name for name in objects if "(" in name]
    if archived:
        raise UserError(
            f"reading the link of {root}: {archived[0]} is in an archive that is not thin",
            "build with the kernel's own kbuild",
        )
    return objects


def _is_below(name: str) -> bool:
    """Whether a path stays below the folder that it is relative to."""
    plain = posixpath.normpath(name)
    return "\0" not in name and not plain.startswith(("/", "../")) and plain not in ("..", ".")


class _Assembly:
    """The passes, each on the arrays of those before it."""

    def __init__(
        self, root: Path, objects: tuple[str, ...], files: tuple[ObjectFile, ...],
        pieces: Mapping[tuple[str, str], tuple[Piece, ...]], link_map: LinkMap, knowledge: Knowledge,
    ) -> None:  # fmt: skip
        self.root, self.objects, self.files, self.pieces = root, objects, files, pieces
        self.link_map, self.knowledge = link_map, knowledge
        self.symbols_at = np.concatenate([[0], np.cumsum([len(file.symbols) for file in files])])[:-1]

    def image(self, digests: tuple[str, ...]) -> Image:
        units, names, unit_at = self._units()
        self._check_sections(units, names)
        symbols = np.concatenate([file.symbols for file in self.files])
        symbol_unit = self._symbol_units(unit_at)
        chosen, everyone = self._resolve()
        definition = self._definitions(len(symbols), chosen)
        target = np.where(definition >= 0, symbol_unit[definition], -1)
        relocations = self._relocations(unit_at, target)
        functions, function_names = self._functions(units, symbol_unit)
        first = np.unique(functions["unit"], return_index=True)
        units["first"] = -1
        units["first"][first[0]] = first[1]
        starts = self._named(units, names, functions, function_names)
        starts += (self._numbered(names, symbol_unit, functions, function_names),)
        by_row = sorted((row, name) for name, row in chosen.items())
        stand_ins, stand_in_names = find_stand_ins(
            units, names, relocations, symbols,
            [*zip(functions["unit"].tolist(), function_names, strict=True)], symbol_unit, by_row, everyone,
            [each.pattern for each in self.knowledge.redirects],
        )  # fmt: skip
        data, archive, parts = self._lay_out(units, stand_ins, stand_in_names)
        for column in ("at", "rela_at"):
            units[column] += parts["at"][units["object"]]
        owner = units["object"][relocations["unit"]]
        relocations["at"] += parts["at"][owner]
        relocations["reads"] = reads(units, relocations, data, self.knowledge)
        strings, string_symbols = find_strings(
            data, units, relocations, symbols, symbol_unit, definition, self._entsizes(units), self.knowledge
        )
        text = Names(names, tuple(name for _, name in by_row), function_names, stand_in_names)
        return Image(
            self.root, self.knowledge.machine, self.objects, digests, self.pieces, starts, text, data,
            archive, parts,
            units, self.symbols_at, symbols, symbol_unit, definition,
            np.array([row for row, _ in by_row], np.int64), relocations, functions, stand_ins, strings,
            string_symbols,
        )  # fmt: skip

    def _units(self) -> tuple[Rows, tuple[str, ...], list[Rows]]:
        """One unit for each loaded section of the map; also, per object, section index -> unit or -1."""
        link_map = take_apart(self.link_map, self.pieces)
        placed: dict[str, dict[str, list[tuple[int, int]]]] = {name: {} for name in self.objects}
        for item in link_map.placed:
            if item.object in placed:
                placed[item.object].setdefault(item.section, []).append((item.address, item.size))
        merged = [(row.address, 0) for row in link_map.merged[:1]]
        kinds = Kinds(self.knowledge, {})
        rows: list[tuple[int | bool, ...]] = []
        names: list[str] = []
        unit_at: list[Rows] = []
        for number, (name, file) in enumerate(zip(self.objects, self.files, strict=True)):
            at = np.full(len(file.sections), -1, np.int32)
            loaded = np.flatnonzero((file.sections["flags"] & SHF_ALLOC != 0) & (file.sections["size"] > 0))
            relocations = relocated_by(file)
            count: dict[str, int] = {}
            same = Counter(file.section_names[index] for index in loaded.tolist())
            for index in loaded.tolist():
                section, header = file.section_names[index], file.sections[index]
                size, flags = int(header["size"]), int(header["flags"]) & 0xFFFFFFFF
                where, nth = placed[name].get(section, []), 0
                if len(where) < same[section] and merged and flags & SHF_MERGE:
                    where = merged
                else:
                    nth = count[section] = count.get(section, -1) + 1
                if nth >= len(where):
                    continue
                lone = same[section] == 1 if where is merged else len(where) == 1
                at[index] = len(rows)
                function, data, init, movable, alone = kinds.of(section)
                executable = bool(flags & SHF_EXECINSTR)
                rows.append(
                    (
                        number, index, size, where[nth][0], where[nth][1], flags, int(header["offset"]),
                        max(int(header["align"]), 1), relocations.get(index, (-1, 0))[1], 0,
                        relocations.get(index, (-1, 0))[0], -1, -1,
                        lone and function and executable, lone and data and not executable, init, movable,
                        alone,
                        False, False,
                    )
                )  # fmt: skip
                names.append(section)
            unit_at.append(at)
        return np.array(rows, UNIT), tuple(names), unit_at

    def _check_sections(self, units: Rows, names: Sequence[str]) -> None:
        taken_apart = {(name, piece.name) for (name, _), parts in self.pieces.items() for piece in parts}
        functions = np.flatnonzero(units["function"]).tolist()
        if all((self.objects[units["object"][unit]], names[unit]) in taken_apart for unit in functions):
            raise UserError(
                f"reading the link of {self.root}: no function has a section of its own",
                "build with KCFLAGS='-ffunction-sections -fdata-sections' and LD=kprune-ld",
            )

    def _symbol_units(self, unit_at: Sequence[Rows]) -> Rows:
        found = []
        for file, at in zip(self.files, unit_at, strict=True):
            plain = (file.shndx != SHN_UNDEF) & (
                (file.symbols["shndx"] < SHN_LORESERVE) | (file.shndx != file.symbols["shndx"])
            )
            found.append(np.where(plain, at[np.where(plain, file.shndx, 0)], -1))
        return np.concatenate(found)

    def _resolve(self) -> tuple[dict[str, int], frozenset[str]]:
        """Names -> the definition that the link chooses: strong before common before weak, then the first."""
        strong: dict[str, int] = {}
        common: dict[str, int] = {}
        weak: dict[str, int] = {}
        everyone: set[str] = set()
        for file, base in zip(self.files, self.symbols_at.tolist(), strict=True):
            bind = file.symbols["info"] >> 4
            for index in np.flatnonzero(bind != STB_LOCAL).tolist():
                name = file.symbol_name(index)
                everyone.add(name)
                if file.symbols["shndx"][index] == SHN_COMMON:
                    common.setdefault(name, base + index)
                elif file.shndx[index] != SHN_UNDEF:
                    (weak if bind[index] == STB_WEAK else strong).setdefault(name, base + index)
        return {**weak, **common, **strong}, frozenset(everyone)

    def _definitions(self, symbols: int, chosen: Mapping[str, int]) -> Rows:
        """Flat symbol row -> the flat row that it resolves to (itself for a local), -1 for none."""
        rows = np.arange(symbols, dtype=np.int64)
        for file, base in zip(self.files, self.symbols_at.tolist(), strict=True):
            for index in np.flatnonzero(file.symbols["info"] >> 4 != STB_LOCAL).tolist():
                rows[base + index] = chosen.get(file.symbol_name(index), -1)
        return rows

    def _relocations(self, unit_at: Sequence[Rows], target: Rows) -> Rows:
        parts, size = [], self.knowledge.machine.relocation.itemsize
        for file, at, base in zip(self.files, unit_at, self.symbols_at.tolist(), strict=True):
            data = np.frombuffer(file.data, np.uint8)
            for index in file.relocation_sections():
                section = int(file.sections[index]["info"])
                if at[section] < 0:
                    continue
                rows = file.relocations(index)
                part = np.zeros(len(rows), RELOCATION)
                part["unit"] = at[section]
                part["symbol"] = (rows["info"] >> SYMBOL_SHIFT).astype(np.int64) + base
                part["type"] = kinds_of(rows)
                part["offset"] = rows["offset"]
                part["addend"] = rows["addend"]
                part["at"] = int(file.sections[index]["offset"]) + size * np.arange(len(rows))
                start = int(file.sections[section]["offset"]) + part["offset"]
                part["before"] = data[start - 2].astype(np.uint16) << 8 | data[start - 1]
                parts.append(part)
        whole = np.concatenate(parts) if parts else np.empty(0, RELOCATION)
        whole["target"] = target[whole["symbol"]]
        whole["string"] = -1
        return whole

    def _functions(self, units: Rows, symbol_unit: Rows) -> tuple[Rows, tuple[str, ...]]:
        found: list[tuple[int, int, int]] = []
        names: list[str] = []
        before = expression(self.knowledge.prefixes)
        for file, base in zip(self.files, self.symbols_at.tolist(), strict=True):
            of_unit = symbol_unit[base : base + len(file.symbols)]
            kinds = file.symbols["info"] & 15
            values, sizes = (file.symbols[column].astype(np.int64) for column in ("value", "size"))
            executable = (of_unit >= 0) & (units["flags"][of_unit] & SHF_EXECINSTR != 0)
            wanted = np.flatnonzero(executable & ((kinds == STT_FUNC) | (kinds == STT_NOTYPE)))
            for index in wanted.tolist():
                name = file.symbol_name(index)
                if name and not name.startswith(".L") and not before.match(name):
                    found.append((int(of_unit[index]), int(values[index]), int(sizes[index])))
                    names.append(name)
        return np.array(found, FUNCTION), tuple(names)

    def _named(
        self, units: Rows, sections: Sequence[str], functions: Rows, names: Sequence[str]
    ) -> tuple[tuple[int, ...], ...]:
        """What ``roots.toml`` and the redirects name; ``units`` learn which are barriers, which answered."""
        units_of: dict[str, list[int]] = {}
        for unit, name in zip(functions["unit"].tolist(), names, strict=True):
            units_of.setdefault(name, []).append(unit)
        known = self.knowledge
        for column, patterns in (
            ("barred", known.roots["barriers"]["symbols"]),
            ("answered", [each.pattern for each in known.redirects]),
        ):
            units[column][
                [u for name, found in units_of.items() if matches(name, patterns) for u in found]
            ] = True
        lists = [*(row["start"] for row in known.roots["root"]), [row.to for row in known.redirects]]
        for glob in {name for wanted in lists for name in wanted if name.startswith(".")}:
            units_of[glob] = [unit for unit, section in enumerate(sections) if matches(section, [glob])]
        return tuple(tuple(u for name in wanted for u in units_of.get(name, ())) for wanted in lists)

    def _numbered(
        self, sections: Sequence[str], symbol_unit: Rows, functions: Rows, names: Sequence[str]
    ) -> tuple[int, ...]:
        """The functions of which the kernel keeps lists by the numbers of their types."""
        known, wanted = self.knowledge.numbered, set[str]()
        for file, base in zip(self.files, self.symbols_at.tolist(), strict=True):
            if known["section"] not in file.section_names:
                continue
            of_unit = symbol_unit[base : base + len(file.symbols)]
            for index in np.flatnonzero(of_unit >= 0).tolist():
                if sections[of_unit[index]] == known["section"]:
                    found = re.fullmatch(known["symbol"], file.symbol_name(index))
                    wanted |= {found[1]} if found else set()
        rows = zip(functions["unit"].tolist(), names, strict=True)
        return tuple(sorted({unit for unit, name in rows if name in wanted}))

    def _lay_out(self, units: Rows, stand_ins: Rows, names: Sequence[str]) -> tuple[Rows, int, Rows]:
        """Give the objects room; ``units`` and ``stand_ins`` learn where it is."""
        objects = np.arange(len(self.objects) + 1)
        units_of = np.searchsorted(units["object"], objects).tolist()
        stand_ins_of = np.searchsorted(units["object"][stand_ins["unit"]], objects).tolist()
        made = []
        for number, file in enumerate(self.files):
            mine = slice(units_of[number], units_of[number + 1])
            here = slice(stand_ins_of[number], stand_ins_of[number + 1])
            sections = units["section"][mine].tolist()
            roomy = make_room(file, Wanted(sections, names[here]))
            units["label"][mine] = [roomy.labels[index] for index in sections]
            stand_ins["name"][here] = roomy.names
            made.append(roomy)
        units["stand_in"][stand_ins["unit"]] = np.arange(len(stand_ins))
        return lay_out(self.objects, made, self.link_map.members)

    def _entsizes(self, units: Rows) -> Rows:
        """Entry size of each unit's section."""
        pairs = zip(units["object"].tolist(), units["section"].tolist(), strict=True)
        return np.array(
            [int(self.files[obj].sections["entsize"][section]) for obj, section in pairs], np.int64
        )
