"""Prove the pruned modules by reading them again: each against the objects that it was linked from.

1. Every unit that was kept lies where the map of the link says, byte for byte but for the fields that
   relocations fill; what these refer to is what they referred to, or the tombstone of what was dropped.
2. Tombstones are symbols of the text, hold the trap, or what stops the machine where the plan says so, each
   at an address of its own in nothing that was kept.
3. Tables have the entries of what was kept, and no other ones.
4. What the module needs it needed before, and finds: in an export row of the pruned vmlinux, or of a module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune.verify.elf import EXECUTABLE, NOWHERE, Field, Section, read_linked, read_original
from prune.verify.model import Check, Tally
from prune.verify.module_fields import wrong_field
from prune.verify.module_read import EXPORT, Entries, Lies, Read, exports_of, list_modules, read_module
from prune.verify.read import Name, read_facts, relocation_kinds, relocation_widths


def check_modules(pruned: Path, plans: Path, objtree: Path, arch: str) -> Check:
    """Every module that was linked anew; ``pruned`` is the kernel's folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    tally = Tally("modules")
    folder = pruned / "modules"
    linked = read_linked(pruned / "vmlinux")
    facts = read_facts(arch, linked.word)
    listed, stones = list_modules(folder)
    exported = {name.removeprefix(EXPORT) for name in linked.named if name.startswith(EXPORT)}
    for row in listed:
        exported |= exports_of(folder, row["path"], facts)
    for row in listed:
        if row["name"] in stones:
            read = read_module(folder, plans, objtree, row, stones[row["name"]], facts)
            _check_units(tally, read, facts)
            _check_stones(tally, read, facts)
            _check_tables(tally, read)
        before, now = (
            read_original(root, row["path"], relocation_widths(facts)).undefined for root in (objtree, folder)
        )
        for name in sorted(now):
            tally.expect(name in before, f"{row['name']} needs {name}, and did not before")
            tally.expect(name in exported, f"{row['name']} needs {name}, which nothing exports")
    return tally.done(f"{len(stones)} modules")


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
            wrong = wrong_field(read, unit[0], field, now)
            tally.expect(not wrong, f"{label}+{offset:#x} {wrong}")


def _check_stones(tally: Tally, read: Read, facts: Mapping[str, Any]) -> None:
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
        trap = bytes(facts["answer"]["stop"] if unit in read.stops else facts["trap"])
        code = section is not None and bool(section.flags & EXECUTABLE)
        tally.expect(code and section.content[at : at + len(trap)] == trap, f"{label} holds no trap")  # type: ignore[union-attr]
        tally.expect((index, at) not in seen, f"{label} lies where another one does")
        seen[index, at] = unit
        inside = section is not None and any(
            lies.output == section.name and lies.address <= at < lies.address + lies.size
            for lies in read.places.values()
        )
        tally.expect(not inside, f"{label} lies in what was kept")


def _check_tables(tally: Tally, read: Read) -> None:
    """As many entries as speak of what was kept, and each of these speaks of that."""
    for name, entries in read.tables.items():
        made = read.section(name)
        kept = sum(_speak_of_kept(read, path, section, entries) for path, section in read.parts(name))
        count = made.size // entries.size if made else 0
        tally.expect(count == kept, f"{read.name}: {name} has {count} entries, not {kept}")
        for field in made.fields if made else ():
            if field.offset % entries.size in entries.owners:
                dead = any(field.symbol.name in names for names in read.stones.values())
                tally.expect(not dead, f"{read.name}: an entry of {name} is about what is not there")


def _speak_of_kept(read: Read, path: str, section: Section, entries: Entries) -> int:
    owners: dict[int, Field] = {}
    for owner in reversed(entries.owners):
        for field in section.fields:
            if field.offset % entries.size == owner:
                owners[field.offset // entries.size] = field
    count = 0
    for field in owners.values():
        there = read.defines(path, field.symbol)
        count += there is None or read.fates.kept.get((there[0], there[1].name)) is not False
    return count
