"""What an entry of a kernel table is about, in the objects and in the linked kernel.

Code may name an entry of a table (in 7.x ``WARN()`` does: ``lea`` of arch/x86/include/asm/bug.h). Tables lose
entries, and kbuild sorts some of them; so what code reaches there must be an entry about the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

from prune.verify.elf import Field, Object, Section
from prune.verify.model import Model, Target
from prune.verify.read import bits_of

InstructionEnd = Callable[[int], int | None]
"""Address of a field -> where its instruction ends."""


def owner_fields(description: dict[str, Any]) -> list[int]:
    """Where in an entry the owner may stand, in order."""
    found = description["owner"]
    return found if isinstance(found, list) else [found]


def owner_at(description: dict[str, Any], content: bytes, address: int, at: int, mask: int) -> int:
    """The address in the owner's field of the entry at ``at``."""
    fields, width = owner_fields(description), bits_of(description["field"]) // 8
    if description["field"].startswith("abs"):
        values = [int.from_bytes(content[at + field : at + field + width], "little") for field in fields]
        return next((value for value in values if value), 0)
    at += fields[0]
    distance = int.from_bytes(content[at : at + width], "little", signed=True)
    return address + at + distance & mask


def as_held(model: Model, description: dict[str, Any], parts: Iterable[Section]) -> dict[str, Any]:
    """The description of a table with ``field`` as the objects' relocations have it, which differs between
    series: on 32 bit addresses in ``__bug_table`` are relative in 7.x."""
    owners = owner_fields(description)
    for field in (field for part in parts for field in part.fields if field.offset in owners):
        kind = model.kinds.get(field.type, "")
        if kind.startswith(("pc", "abs")):
            return {**description, "field": kind}
    return description


def about(
    model: Model, path: str, description: dict[str, Any], fields: dict[int, Field], start: int
) -> tuple[Target, int] | None:
    """(what the entry at ``start`` of an object's part is about, and by how much beyond), by the part's
    relocations ``fields``; None: there is no entry."""
    named = (fields[start + field] for field in owner_fields(description) if start + field in fields)
    relocation = next(named, None)
    return (model.resolve(path, relocation.symbol), relocation.addend) if relocation else None


def wrong_entry_named(
    model: Model, original: Object, relocation: Field, reached: int, place: int, end_of: InstructionEnd | None
) -> str | None:
    """What is wrong with a reference to an entry of a table, "" when nothing is; None: it is to none.

    Args:
        reached: what the field at ``place`` says; ``end_of``: the field counts from its instruction's end.
    """
    path, symbol = original.path, relocation.symbol
    if not symbol.local:
        path, symbol = model.chosen.get(symbol.name, (path, symbol))
    section = model.objects[path].sections.get(symbol.section)
    description = section and model.table_of(section.name)
    if not section or not description or not fnmatchcase(section.name, description["section"]):
        return None
    end = end_of(place) if end_of else place
    if end is None:
        return None
    fields = _by_offset(section)
    meant = about(model, path, description, fields, symbol.value + relocation.addend + end - place)
    if meant is None:
        return None
    target, beyond = meant
    if target.dropped or target.address is None:
        return f"refers to an entry of {section.name} about {target.label}, which was dropped"
    at = reached + end - place & model.mask
    piece = model.memory.at(at)
    if piece is None or not fnmatchcase(piece.section, description["section"]):
        return f"refers to an entry of {section.name} and reaches {model.name_of(at)}"
    description = as_held(model, description, [section])
    width = max(owner_fields(description)) + bits_of(description["field"]) // 8
    found = owner_at(description, model.linked.read(at, width), at, 0, model.mask)
    wanted = target.address + beyond & model.mask
    if found == wanted:
        return ""
    return f"should reach the entry of {section.name} about {model.name_of(wanted)}, not that at {at:#x}"


def _by_offset(section: Section) -> dict[int, Field]:
    return {field.offset: field for field in section.fields}
