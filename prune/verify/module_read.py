"""A pruned module, and the objects that it was linked from, as they are checked against each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prune.verify.answers import STOP, read_planned
from prune.verify.elf import EXECUTABLE, NOWHERE, Object, Section, Symbol, read_original
from prune.verify.entries import owner_fields
from prune.verify.read import Fates, Name, read_fates, relocation_widths
from tracer.host import MISSHAPEN, UserError, read_json

#: What the names of export rows begin with.
EXPORT = "__ksymtab_"
_AGAIN = "link again: kprune link"
_EDITED = re.compile(r"^.*\.kprune/pruned-modules/.*?\.ko/objects/")
_OUTPUT = re.compile(r"^([^\s*]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+)", re.M)
_PIECE = re.compile(r"^ ([^\s*]\S*)\s+0x([0-9a-f]+)\s+0x([0-9a-f]+) (\S.*)$", re.M)


@dataclass(frozen=True)
class Lies:
    """Where a unit is in the module."""

    output: str
    address: int
    size: int


@dataclass(frozen=True)
class Entries:
    """What a table's entries are like: their ``size``, and where in each its owner may stand, in order."""

    size: int
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Read:
    """One module: its objects as they were compiled, what became of their units, the pruned file and where
    the units are in it; ``stones``: unit -> the names of its tombstone; ``stops``: those of them that stop
    the machine; ``tables``: those that its objects have parts of."""

    name: str
    objects: Mapping[str, Object]
    fates: Fates
    made: Object
    places: Mapping[Name, Lies]
    stones: Mapping[Name, tuple[str, ...]]
    stops: frozenset[Name]
    tables: Mapping[str, Entries]

    def section(self, name: str) -> Section | None:
        return next((each for each in self.made.sections.values() if each.name == name), None)

    def target(self, path: str, symbol: Symbol) -> tuple[str, Symbol]:
        """The object that defines what a symbol means, and the symbol there; "" for nobody."""
        if symbol.local or symbol.section > NOWHERE:
            return path, symbol
        for name, each in self.objects.items():
            for other in each.symbols:
                if other.name == symbol.name and not other.local:
                    return name, other
        return "", symbol

    def defines(self, path: str, symbol: Symbol) -> tuple[str, Section] | None:
        """(object, section) that a symbol is in; None: nobody's here, or none."""
        owner, symbol = self.target(path, symbol)
        section = self.objects[owner].sections.get(symbol.section) if owner else None
        return (owner, section) if section else None

    def parts(self, table: str) -> Iterator[tuple[str, Section]]:
        """The (object, section) that have a table's entries."""
        for path, original in self.objects.items():
            yield from ((path, each) for each in original.sections.values() if each.name == table)


def list_modules(folder: Path) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """(name and path of each module that is shipped; module -> its tombstones).

    Raises:
        UserError: a list is missing or damaged.
    """
    try:
        rows = read_json(folder / "modules.json", "list of modules", 1)["modules"]
        stones = read_json(folder / "tombstones.json", "tombstones of modules", 1)["modules"]
        return [{"name": str(row["name"]), "path": str(row["path"])} for row in rows], dict(stones)
    except MISSHAPEN as error:
        raise UserError(f"verifying: the lists in {folder} are damaged: {error!r}", _AGAIN) from error


def exports_of(folder: Path, path: str, facts: Mapping[str, Any]) -> set[str]:
    """The symbols that a module exports."""
    symbols = read_original(folder, path, relocation_widths(facts)).symbols
    return {each.name.removeprefix(EXPORT) for each in symbols if each.name.startswith(EXPORT)}


def read_module(
    folder: Path,
    plans: Path,
    objtree: Path,
    row: Mapping[str, str],
    stones: Iterable[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> Read:
    """Read a module that was linked anew: ``row`` is its own of the list, ``plans`` the folder of the plans.

    Raises:
        UserError: a file is missing or damaged, or a table's entries are of no known size.
    """
    plan = plans / f"{row['path']}.json"
    fates = read_fates(plan)
    stops = frozenset(unit for unit, planned in read_planned(plan).items() if planned.on_miss == STOP)
    widths = relocation_widths(facts)
    objects = {name: read_original(objtree, name, widths) for name in fates.objects}
    text = (objtree / ".kprune/pruned-modules" / row["path"] / "module.map").read_text()
    named = {(str(each["object"]), str(each["section"])): tuple(each["names"]) for each in stones}
    made = read_original(folder, row["path"], widths)
    read = Read(row["name"], objects, fates, made, dict(_places(text)), named, stops, {})
    return replace(read, tables=dict(_tables(read, facts)))


def _places(text: str) -> Iterator[tuple[Name, Lies]]:
    begin = text.find("\nLinker script and memory map\n")
    outputs = [(found.start(), found[1]) for found in _OUTPUT.finditer(text, max(begin, 0))]
    current = 0
    for found in _PIECE.finditer(text, max(begin, 0)):
        while current + 1 < len(outputs) and outputs[current + 1][0] < found.start():
            current += 1
        if int(found[3], 16) and outputs:
            place = _EDITED.sub("", found[4])
            yield (place, found[1]), Lies(outputs[current][1], int(found[2], 16), int(found[3], 16))


def _tables(read: Read, facts: Mapping[str, Any]) -> Iterator[tuple[str, Entries]]:
    for table in facts["table"]:
        if any(read.parts(table["section"])):
            owners = owner_fields(table)
            yield table["section"], Entries(_entry_size(read, table, owners), tuple(owners))


def _entry_size(read: Read, table: Mapping[str, Any], owners: list[int]) -> int:
    """The size of an entry: of those that divide every part and have an owner in each entry, that of which
    the fewest owners are no code. In 7.x a half of an entry of 16 bytes has as many fields as one of 8."""
    parts = list(read.parts(table["section"]))
    fitting: list[tuple[int, int]] = []
    for size in table["entry"]:
        named = [(path, f) for path, part in parts for f in part.fields if f.offset % size in owners]
        owned = len({(path, f.offset // size) for path, f in named})
        if not any(part.size % size for _, part in parts) and owned * size == sum(p.size for _, p in parts):
            fitting.append((sum(not _in_code(read, path, f.symbol) for path, f in named), int(size)))
    if not fitting:
        raise UserError(f"verifying: no entry size of {table['entry']} fits {table['section']} of a module")
    return min(fitting, key=lambda found: found[0])[1]


def _in_code(read: Read, path: str, symbol: Symbol) -> bool:
    there = read.defines(path, symbol)
    return there is not None and bool(there[1].flags & EXECUTABLE)
