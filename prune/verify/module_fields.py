"""Whether a relocation of a pruned module says what it said in the object that it is from."""

from __future__ import annotations

from prune.verify.elf import NOWHERE, Field, Section
from prune.verify.module_read import Read

#: By how much the operand of an instruction may count from behind its field: before and after it is the same.
BEHIND = (0, 4, 5, 6, 8)


def wrong_field(read: Read, path: str, was: Field, now: Field) -> str:
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
    if section.name in read.tables:
        return _wrong_entry(read, owner, section, symbol.value + was.addend, target, now)
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
    for behind in BEHIND:
        one = was.content[at + behind :].split(b"\0", 1)[0] if at + behind >= 0 else None
        place = now.symbol.value + now.addend + behind
        if one is not None and place >= 0 and target.content[place:].split(b"\0", 1)[0] == one:
            return ""
    return f"refers to another constant (type {before.type})"


def _wrong_entry(read: Read, path: str, was: Section, at: int, target: Section | None, now: Field) -> str:
    """An entry of a table may lie elsewhere (in 7.x ``WARN()`` names its own): it must be about the same
    place. ``was``: the part of the object ``path`` that had it ``at`` a place."""
    entries = read.tables[was.name]
    before = {field.offset: field for field in was.fields if field.offset % entries.size in entries.owners}
    after = {field.offset: field for field in target.fields} if target and target.name == was.name else {}
    for behind in BEHIND:
        for owner in entries.owners:
            one = before.get(at + behind + owner)
            other = after.get(now.symbol.value + now.addend + behind + owner)
            if one and other and not wrong_field(read, path, one, other):
                return ""
    return f"refers to another entry of {was.name}"
