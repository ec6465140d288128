"""The immutable model of one link: objects, units, symbols, relocations, as arrays.

The link map says what is in the image and where; the objects say what refers to what. A unit is one
loaded input section. Every symbol name has one definition that the link chose (strong before weak,
then the first), and every relocation one target unit, so later passes never resolve a name again.

:mod:`prune.model.assemble` makes it of objects, :mod:`prune.model.store` keeps it beside them. All objects
lie in one array of bytes, each with room for what an edit may need (:mod:`prune.model.room`): a pass that
changes a hundred thousand places asks no object where they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import cache, cached_property
from pathlib import Path

import numpy as np

from prune.model.apart import Piece
from prune.model.elf import ObjectFile, Rows, distinct, parse_object
from prune.model.later import Later
from prune.model.layout import Machine

OBJECT = np.dtype(
    [
        ("at", "<i8"), ("size", "<i8"), ("headers", "<i8"), ("symtab_at", "<i8"), ("shndx_at", "<i8"),
        ("symtab", "<i4"), ("symbols", "<i4"), ("shndx", "<i4"), ("member", "?"),
    ]
)  # fmt: skip
UNIT = np.dtype(
    [
        ("object", "<i4"), ("section", "<i4"), ("size", "<i8"), ("address", "<u8"), ("placed", "<i8"),
        ("flags", "<i8"), ("at", "<i8"), ("align", "<i8"), ("rela_at", "<i8"),
        ("label", "<u4"), ("rela", "<i4"), ("stand_in", "<i4"), ("first", "<i4"),
        ("function", "?"), ("data", "?"), ("init", "?"), ("movable", "?"), ("alone", "?"),
        ("barred", "?"), ("answered", "?"),
    ]
)  # fmt: skip
RELOCATION = np.dtype(
    [
        ("unit", "<i4"), ("target", "<i4"), ("symbol", "<i4"), ("type", "<i4"), ("string", "<i4"),
        ("offset", "<i8"), ("addend", "<i8"), ("at", "<i8"), ("before", "<u2"), ("reads", "?"), ("odd", "?"),
    ]
)  # fmt: skip
FUNCTION = np.dtype([("unit", "<i4"), ("offset", "<i8"), ("size", "<i8")])
STAND_IN = np.dtype([("unit", "<i4"), ("name", "<u4"), ("row", "<i4")])
STRING = np.dtype([("unit", "<i4"), ("start", "<i8"), ("end", "<i8")])
STRING_SYMBOL = np.dtype([("symbol", "<i4"), ("string", "<i4"), ("offset", "<i8")])


@dataclass(frozen=True)
class Names:
    """Texts that go with rows. ``units``: section name of each unit; ``globals``: of each row of
    ``Image.global_rows``; ``functions``, ``stand_ins``: of each row of those."""

    units: tuple[str, ...]
    globals: tuple[str, ...]
    functions: tuple[str, ...]
    stand_ins: tuple[str, ...]


@dataclass(frozen=True)
class Image:
    """Arrays of one link.

    ``digests``: of the objects' files. ``pieces``: (object, section) -> what it was taken apart into.
    ``starts``: the units that each root of ``roots.toml`` begins with, those that answer for others, those in
    lists of types by number.

    ``data``: the objects' bytes, shared code taken apart (:mod:`prune.model.refine`); those that came out of
    archives first, as one archive of ``archive`` bytes.
    ``parts``: ``OBJECT`` rows: where in ``data`` an object, its section headers, its symbols and their wide
    section indices lie (-1: none), the indices of these sections, how many symbols; ``member``: of an
    archive.

    ``units``: ``UNIT`` rows. ``placed`` is the size in the image (merging may shrink a section); ``at``
    where in ``data`` its bytes are, ``align`` at least 1; ``label`` and ``stand_in``: see
    :mod:`prune.model.room`; ``rela``: the section that relocates it (-1: none, -2: several), ``rela_at``
    where in ``data`` that is; ``first``: row of its first function; ``function``/``data``: the section holds
    one function or variable and may be dropped; ``init``: freed after boot or discarded; ``movable``: code
    that may be placed there; ``alone``: no section that many variables or constants share; ``barred``: a
    barrier of ``roots.toml``; ``answered``: something answers for it when it is gone.

    ``symbols_at[i]``: row of object ``i``'s symbol 0 in the flat symbol arrays ``symbols`` (``SYMBOL``) and
    ``symbol_unit`` (-1: none); ``definition``: the row that each resolves to, -1 for none. ``global_rows``:
    ascending, flat rows of the definitions that the link chose.

    ``relocations``: ``RELOCATION`` rows of loaded units; ``symbol`` is a flat row, ``target`` the unit that
    the symbol resolves to or -1, ``at`` the row's position in ``data``, ``before`` the two bytes before the
    field (opcode); ``reads``: the field is the address of a memory operand that goes nowhere else;
    ``string`` and ``odd``: see :mod:`prune.model.strings`, like ``strings`` and ``string_symbols``.
    """

    root: Path
    machine: Machine
    objects: tuple[str, ...]
    digests: tuple[str, ...]
    pieces: Mapping[tuple[str, str], tuple[Piece, ...]]
    starts: tuple[tuple[int, ...], ...]
    text: Names
    data: Rows
    archive: int
    parts: Rows
    units: Rows
    symbols_at: Rows
    symbols: Rows
    symbol_unit: Rows
    definition: Rows
    global_rows: Rows
    relocations: Rows
    function_rows: Rows
    stand_ins: Rows
    strings: Rows
    string_symbols: Rows

    @property
    def names(self) -> tuple[str, ...]:
        return self.text.units

    @cached_property
    def symbol_value(self) -> Rows:
        values: Rows = self.symbols["value"].astype(np.int64)
        return values

    @cached_property
    def files(self) -> Sequence[ObjectFile]:
        """The objects, each parsed when it is first asked for."""
        return _Files(self)

    @cached_property
    def globals_(self) -> dict[str, int]:
        """Name -> flat row of the definition that the link chose."""
        return dict(zip(self.text.globals, self.global_rows.tolist(), strict=True))

    def defining(self, names: Iterable[str]) -> Rows:
        """The units of these global symbols, as far as there are such, in ascending order."""
        rows = [self.globals_[name] for name in names if name in self.globals_]
        units = self.symbol_unit[np.array(rows, np.int64)]
        return distinct(units[units >= 0])

    @cached_property
    def rows(self) -> Sequence[tuple[str, str, int]]:
        """(object, section, size) of each unit."""

        def make() -> list[tuple[str, str, int]]:
            objects = [self.objects[number] for number in self.units["object"].tolist()]
            return list(zip(objects, self.names, self.units["size"].tolist(), strict=True))

        return Later(len(self.units), make)

    @cached_property
    def unit_of(self) -> dict[tuple[str, str], int]:
        """(object, section) -> unit."""
        objects = [self.objects[number] for number in self.units["object"].tolist()]
        return dict(zip(zip(objects, self.names, strict=True), range(len(objects)), strict=True))

    @cached_property
    def units_of(self) -> dict[str, dict[str, int]]:
        """Object -> section -> unit: the same, for those who ask for many; made in a third of the time."""
        bounds = np.searchsorted(self.units["object"], np.arange(len(self.objects) + 1)).tolist()
        return {
            name: dict(zip(self.names[first:last], range(first, last), strict=True))
            for name, first, last in zip(self.objects, bounds, bounds[1:], strict=False)
        }

    def unit_at(self, object: str, section: str) -> int:
        """The unit at a place; -1: this image has none there."""
        return self.units_of.get(object, {}).get(section, -1)

    @cached_property
    def was_shared(self) -> Rows:
        """Mask of the units that shared a section with others of their object before it was taken apart."""
        mask = np.zeros(len(self.units), bool)
        shared = self.pieces.items()
        parts = [self.unit_at(name, part.name) for (name, _), pieces in shared for part in pieces]
        mask[[unit for unit in parts if unit >= 0]] = True
        return mask

    @cached_property
    def functions(self) -> tuple[tuple[int, int, int, str], ...]:
        """(unit, offset, size, name) of every function and assembly label in executable units."""
        rows = self.function_rows
        columns = (rows["unit"].tolist(), rows["offset"].tolist(), rows["size"].tolist(), self.text.functions)
        return tuple(zip(*columns, strict=True))

    @cached_property
    def headers(self) -> Rows:
        """Where in ``data`` each unit's section header is."""
        size = self.machine.layout.section.itemsize
        at: Rows = self.parts["headers"][self.units["object"]] + size * self.units["section"]
        return at

    def symbol_at(self, rows: Rows) -> Rows:
        """Where in ``data`` these flat symbol rows are."""
        obj = np.searchsorted(self.symbols_at, rows, "right") - 1
        size = self.machine.layout.symbol.itemsize
        at: Rows = self.parts["symtab_at"][obj] + size * (rows - self.symbols_at[obj])
        return at

    def fields_at(self, rows: Rows) -> Rows:
        """Where in ``data`` what these rows of ``relocations`` fill begins."""
        at: Rows = self.units["at"][rows["unit"]] + rows["offset"]
        return at

    def unit_label(self, unit: int) -> str:
        """``object:section``, the name of a unit in every text."""
        return f"{self.objects[self.units['object'][unit]]}:{self.names[unit]}"

    def locate_symbol(self, row: int) -> tuple[int, int]:
        """Flat symbol row -> (object, index in its symbol table)."""
        obj = int(np.searchsorted(self.symbols_at, row, "right")) - 1
        return obj, row - int(self.symbols_at[obj])

    def symbol_name(self, row: int) -> str:
        obj, index = self.locate_symbol(row)
        return self.files[obj].symbol_name(index)

    def content(self, unit: int) -> bytes:
        """The bytes of a unit that has some in the file."""
        row = self.units[unit]
        return bytes(self.data[row["at"] : row["at"] + row["size"]].tobytes())

    def labels(self, units: Iterable[int]) -> dict[int, str]:
        """The first function name of each of the given units."""
        wanted = np.fromiter(units, np.int64)
        first = self.units["first"][wanted].tolist()
        names = self.text.functions
        return {u: names[row] for u, row in zip(wanted.tolist(), first, strict=True) if row >= 0}


class _Files(Sequence[ObjectFile]):
    """The objects of an image."""

    def __init__(self, image: Image) -> None:
        self._image = image
        self._parsed: dict[int, ObjectFile] = {}

    def __len__(self) -> int:
        return len(self._image.objects)

    def __iter__(self) -> Iterator[ObjectFile]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> ObjectFile:  # type: ignore[override]
        if number not in self._parsed:
            image, part = self._image, self._image.parts[number]
            data = image.data[part["at"] : part["at"] + part["size"]].tobytes()
            self._parsed[number] = parse_object(Path(image.objects[number]), data, image.machine)
        return self._parsed[number]


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a glob of the list matches."""
    return expression(tuple(patterns)).match(name) is not None


@cache
def expression(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """One for all of them: a kernel has a hundred thousand names."""
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")
