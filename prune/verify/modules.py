"""Prove the pruned modules by reading them again: each against the objects that it was linked from.

1. Every unit that was kept lies where the map of the link says, byte for byte but for the fields that
   relocations fill; what these refer to is what they referred to, or the tombstone of what was dropped.
2. Tombstones are symbols of the text, hold the trap, each at an address of its own in nothing that was kept.
3. Tables have the entries of what was kept, and no other ones.
4. What the module needs it needed before, and finds: in an export row of the pruned vmlinux, or of a module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prune.verify.elf import EXECUTABLE, NOWHERE, Field, Object, Section, Symbol, read_linked, read_original
from prune.verify.model import Check, Tally
from prune.verify.read import Fates, Name, read_facts, read_fates, relocation_kinds, relocation_widths
from tracer.host import MISSHAPEN, UserError, read_json

_AGAIN = "link again: kprune link"
_EXPORT = "__ksymtab_"
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
class Read:
    """One module: its objects as they were compiled, what became of their units, the pruned file and where
    the units are in it; ``stones``: unit -> the names of its tombstone."""

    name: str
    objects: Mapping[str, Object]
    fates: Fates
    made: Object
    places: Mapping[Name, Lies]
    stones: Mapping[Name, tuple[str, ...]]

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


def check_modules(pruned: Path, plans: Path, objtree: Path, arch: str) -> Check:
    """Every module that was linked anew; ``pruned`` is the kernel's folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    tally = Tally("modules")
    folder = pruned / "modules"
    linked = read_linked(pruned / "vmlinux")
    facts = read_facts(arch, linked.word)
    listed, stones = _listed(folder)
    exported = {name.removeprefix(_EXPORT) for name in linked.named if name.startswith(_EXPORT)}
    for row in listed:
        exported |= _exports(folder, row["path"], facts)
    for row in listed:
        if row["name"] in stones:
            read = _read(folder, plans, objtree, row, stones[row["name"]], facts)
            _check_units(tally, read, facts)
            _check_stones(tally, read, bytes(facts["trap"]))
            _check_tables(tally, read, facts)
        before, now = (
            read_original(root, row["path"], relocation_widths(facts)).undefined for root in (objtree, folder)
        )
        for name in sorted(now):
            tally.expect(name in before, f"{row['name']} needs {name}, and did not before")
            tally.expect(name in exported, f"{row['name']} needs {name}, which nothing exports")
    return tally.done(f"{len(stones)} modules")


def _listed(folder: Path) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    try:
        rows = read_json(folder / "modules.json", "list of modules", 1)["modules"]
        stones = read_json(folder / "tombstones.json", "tombstones of modules", 1)["modules"]
        return [{"name": str(row["name"]), "path": str(row["path"])} for row in rows], dict(stones)
    except MISSHAPEN as error:
        raise UserError(f"verifying: the lists in {folder} are damaged: {error!r}", _AGAIN) from error


def _exports(folder: Path, path: str, facts: Mapping[str, Any]) -> set[str]:
    symbols = read_original(folder, path, relocation_widths(facts)).symbols
    return {each.name.removeprefix(_EXPORT) for each in symbols if each.name.startswith(_EXPORT)}


def _read(
    folder: Path,
    plans: Path,
    objtree: Path,
    row: Mapping[str, str],
    stones: Iterable[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> Read:
    fates = read_fates(plans / f"{row['path']}.json")
    widths = relocation_widths(facts)
    objects = {name: read_original(objtree, name, widths) for name in fates.objects}
    text = (objtree / ".kprune/pruned-modules" / row["path"] / "module.map").read_text()
    named = {(str(each["object"]), str(each["section"])): tuple(each["names"]) for each in stones}
    made = read_original(folder, row["path"], widths)
    return Read(row["name"], objects, fates, made, dict(_places(text)), named)


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


def _is_table(name: str, facts: Mapping[str, Any]) -> bool:
    tables = facts["table"]
    pairs = {each["pair"]["section"] for each in tables if "pair" in each}
    return name in pairs or any(name == each["section"] for each in tables)


def _check_units(tally: Tally, read: Read, facts: Mapping[str, Any]) -> None:
    kinds = relocation_kinds(facts)
    for path, original in read.objects.items():
        for section in original.sections.values():
            unit = path, section.name
            kept = read.fates.kept.get(unit)
            if kept is None or section.is_merged or _is_table(section.name, facts):
                continue
            lies = read.places.get(unit)
            if not kept:
                tally.expect(lies is None, f"{read.name}: {':'.join(unit)} was dropped, and is there")
                continue
            there = read.section(lies.output) if lies else None
            if lies is None or there is None or lies.size != section.size:
                tally.expect(False, f"{read.name}: {':'.join(unit)} was kept, and is not there whole")
                continue
            lies = replace(lies, address=lies.address - there.address)
            _check_bytes(tally, read, unit, section, lies, there, kinds)
            _check_fields(tally, read, unit, section, lies, there, kinds)


def _check_bytes(
    tally: Tally, read: Read, unit: Name, was: Section, lies: Lies, there: Section, kinds: Mapping[int, str]
) -> None:
    one, other = bytearray(was.content), bytearray(there.content[lies.address : lies.address + lies.size])
    for field in was.fields:
        width = int(re.sub(r"\D", "", kinds.get(field.type, "")) or 0) // 8
        blank = bytes(width)
        one[field.offset : field.offset + width] = other[field.offset : field.offset + width] = blank
    tally.expect(one == other, f"{read.name}: {':'.join(unit)} is not what the compiler made")


def _check_fields(
    tally: Tally, read: Read, unit: Name, was: Section, lies: Lies, there: Section, kinds: Mapping[int, str]
) -> None:
    inside = {
        field.offset - lies.address: field
        for field in there.fields
        if lies.address <= field.offset < lies.address + lies.size
    }
    wanted = {field.offset: field for field in was.fields if kinds.get(field.type) != "none"}
    label = f"{read.name}: {':'.join(unit)}"
    tally.expect(set(wanted) == set(inside), f"{label}: its relocations are not those that it had")
    for offset, field in wanted.items():
        now = inside.get(offset)
        if now is not None:
            wrong = _wrong(read, unit[0], field, now)
            tally.expect(not wrong, f"{label}+{offset:#x} {wrong}")


def _wrong(read: Read, path: str, was: Field, now: Field) -> str:
    """What is wrong with a relocation, "" when nothing is."""
    if was.type != now.type:
        return "has a relocation of another type"
    owner, symbol = read.target(path, was.symbol)
    if not owner or symbol.section <= NOWHERE:
        same = now.symbol.name == was.symbol.name and now.addend == was.addend
        return "" if same else f"refers to {now.symbol.name} instead of {was.symbol.name}"
    section = read.objects[owner].sections.get(symbol.section)
    if section is None:
        return ""
    unit = owner, section.name
    if read.fates.kept.get(unit) is False:
        names = read.stones.get(unit, ())
        return "" if now.symbol.name in names else f"does not refer to the tombstone of {':'.join(unit)}"
    lies, target = read.places.get(unit), read.made.sections.get(now.symbol.section)
    if section.is_merged:
        return _wrong_constant(section, symbol.value + was.addend, target, now, was)
    if lies is None or target is None or target.name != lies.output:
        return f"does not refer to {':'.join(unit)}"
    meant = lies.address + symbol.value + was.addend
    return (
        "" if now.symbol.value + now.addend == meant else f"does not refer to its place in {':'.join(unit)}"
    )


def _wrong_constant(was: Section, at: int, target: Section | None, now: Field, before: Field) -> str:
    """A string may lie elsewhere: it must be the same one."""
    if target is None:
        return "refers to a constant that is not there"
    # The operand of an instruction counts from behind the field: by how much, both have in common.
    for behind in (0, 4, 5, 6, 8):
        one = was.content[at + behind :].split(b"\0", 1)[0] if at + behind >= 0 else None
        place = now.symbol.value + now.addend + behind
        if one is not None and place >= 0 and target.content[place:].split(b"\0", 1)[0] == one:
            return ""
    return f"refers to another constant (type {before.type})"


def _check_stones(tally: Tally, read: Read, trap: bytes) -> None:
    defined = {each.name: each for each in read.made.symbols if each.section > NOWHERE}
    seen: dict[tuple[int, int], Name] = {}
    for unit, names in read.stones.items():
        label = f"{read.name}: the tombstone of {':'.join(unit)}"
        tally.expect(read.fates.kept.get(unit) is False, f"{label}, which was not dropped")
        places = {(defined[n].section, defined[n].value) for n in names if n in defined}
        if len(places) != 1 or not all(name in defined for name in names):
            tally.expect(False, f"{label} is not one place")
            continue
        ((index, at),) = places
        section = read.made.sections.get(index)
        code = section is not None and bool(section.flags & EXECUTABLE)
        tally.expect(code and section.content[at : at + len(trap)] == trap, f"{label} holds no trap")  # type: ignore[union-attr]
        tally.expect((index, at) not in seen, f"{label} lies where another one does")
        seen[index, at] = unit
        inside = section is not None and any(
            lies.output == section.name and lies.address <= at < lies.address + lies.size
            for lies in read.places.values()
        )
        tally.expect(not inside, f"{label} lies in what was kept")


def _check_tables(tally: Tally, read: Read, facts: Mapping[str, Any]) -> None:
    """As many entries as speak of what was kept, and each of these speaks of that."""
    for table in facts["table"]:
        parts = [
            (path, section)
            for path, original in read.objects.items()
            for section in original.sections.values()
            if section.name == table["section"]
        ]
        if not parts:
            continue
        fields = table["owner"] if isinstance(table["owner"], list) else [table["owner"]]
        made = read.section(table["section"])
        entry = _entry(read, table, parts, fields)
        kept = sum(_speak_of_kept(read, path, section, entry, fields) for path, section in parts)
        count = made.size // entry if made else 0
        tally.expect(count == kept, f"{read.name}: {table['section']} has {count} entries, not {kept}")
        for field in made.fields if made else ():
            if field.offset % entry in fields:
                dead = any(field.symbol.name in names for names in read.stones.values())
                tally.expect(
                    not dead,
                    f"{read.name}: an entry of {table['section']} is about what is not there",
                )


def _entry(
    read: Read, table: Mapping[str, Any], parts: Sequence[tuple[str, Section]], fields: Sequence[int]
) -> int:
    """The size of an entry: of those that divide every part and have an owner in each entry, that of which
    the fewest owners are no code. In 7.x a half of an entry of 16 bytes has as many fields as one of 8."""
    fitting: list[tuple[int, int]] = []
    for size in table["entry"]:
        owners = [(path, f) for path, part in parts for f in part.fields if f.offset % size in fields]
        owned = len({(path, f.offset // size) for path, f in owners})
        if not any(part.size % size for _, part in parts) and owned * size == sum(p.size for _, p in parts):
            fitting.append((sum(not _in_code(read, path, f.symbol) for path, f in owners), int(size)))
    if not fitting:
        raise UserError(f"verifying: no entry size of {table['entry']} fits {table['section']} of a module")
    return min(fitting, key=lambda found: found[0])[1]


def _in_code(read: Read, path: str, symbol: Symbol) -> bool:
    owner, symbol = read.target(path, symbol)
    there = read.objects[owner].sections.get(symbol.section) if owner else None
    return there is not None and bool(there.flags & EXECUTABLE)


def _speak_of_kept(read: Read, path: str, section: Section, entry: int, fields: Sequence[int]) -> int:
    owners: dict[int, Field] = {}
    for field in sorted(
        section.fields,
        key=lambda each: -fields.index(each.offset % entry) if each.offset % entry in fields else 0,
    ):
        if field.offset % entry in fields:
            owners[field.offset // entry] = field
    count = 0
    for field in owners.values():
        owner, symbol = read.target(path, field.symbol)
        there = read.objects[owner].sections.get(symbol.section) if owner else None
        count += there is None or read.fates.kept.get((owner, there.name)) is not False
    return count
