"""Prove the kernel tables: every entry speaks of kept code, and every entry of kept code is there.

The size of an entry is probed: it divides the table and what each object put into it, and puts an
address in kept text at the owner's field of every entry. Then, since kbuild sorts some tables after the
link, each object's entries are looked up by their owner: one whose owner was dropped must be gone, one
whose owner was kept must be there once, byte for byte and field for field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any

from prune.verify.elf import Field, Object, Section
from prune.verify.entries import about, as_held, owner_at, owner_fields
from prune.verify.fields import width_of, wrong_field
from prune.verify.model import Check, Model, Tally

# scripts/sorttable.c; lib/extable.c and arch/x86/kernel/unwind_orc.c search these by halving.
_SORTED = ("__ex_table", ".orc_unwind_ip")


@dataclass(frozen=True)
class Part:
    """What one object gives to a table; ``pair`` is its part of the paired one."""

    original: Object
    section: Section
    pair: Section | None

    @property
    def place(self) -> tuple[str, str]:
        return self.original.path, self.section.name

    def __str__(self) -> str:
        return ":".join(self.place)


@dataclass(frozen=True)
class Entry:
    """Entry ``number`` of a part, with the relocations in it."""

    part: Part
    number: int
    content: bytes
    fields: tuple[Field, ...]
    paired: bytes

    def __str__(self) -> str:
        return f"entry {self.number} of {self.part}"


@dataclass(frozen=True)
class Table:
    """One kernel table in vmlinux; ``paired`` is the content of the table beside it, ``mask`` what an address
    can be."""

    name: str
    description: dict[str, Any]
    address: int
    content: bytes
    entry: int
    paired: bytes
    mask: int

    def rows(self) -> Iterator[tuple[int, int]]:
        """(position, owner's address) of each entry but those that the build made blank."""
        for at in range(0, len(self.content), self.entry):
            owner = owner_at(self.description, self.content, self.address, at, self.mask)
            if owner or not self.description.get("blank"):
                yield at, owner

    @property
    def blanks(self) -> int:
        """How many entries the build made blank."""
        return len(self.content) // self.entry - sum(1 for _ in self.rows())

    def pair_row(self, at: int) -> bytes:
        size = len(self.paired) * self.entry // len(self.content)
        return self.paired[at // self.entry * size :][:size]


def check_tables(model: Model) -> Check:
    """Every table whose bounds vmlinux knows.

    Raises:
        UserError: a relocation type that ``linkerscripts/`` does not describe.
    """
    tally = Tally("tables")
    found, given = [], _parts(model)
    for description in _described(model.facts["table"], given):
        first, last = (model.linked.symbols.get(bound) for bound in description["bounds"])
        parts = given.get(description["section"], [])
        if first is None or last is None:
            for part in parts:
                placed = any(i for i in model.memory.pieces if (i.object, i.section) == part.place)
                tally.expect(not placed, f"{part} is in the image, and vmlinux does not have its bounds")
            continue
        if first == last and not parts:
            continue
        found.append(description["section"])
        description = as_held(model, description, (part.section for part in parts))
        content = model.linked.read(first, last - first) if last > first else b""
        if len(content) != last - first:
            tally.find(f"{description['section']} is not whole in the image")
            continue
        if description.get("padded"):
            used = len(content.rstrip(b"\0"))
            content = content[: -(-used // description["entry"][0]) * description["entry"][0]]
        _check_table(model, tally, description, first, content, parts)
    return tally.done(f"entries of {', '.join(found) or 'no table'}")


def _parts(model: Model) -> dict[str, list[Part]]:
    """Table -> what the objects give to it."""
    found: dict[str, list[Part]] = {}
    for original in model.objects.values():
        for section in original.sections.values():
            description = model.table_of(section.name)
            if description is None or not fnmatchcase(section.name, description["section"]):
                continue
            other = description.get("pair", {}).get("section")
            pair = next((each for each in original.sections.values() if each.name == other), None)
            name = section.name if _is_family(description) else description["section"]
            found.setdefault(name, []).append(Part(original, section, pair))
    return found


def _is_family(description: dict[str, Any]) -> bool:
    """Whether each section that is meant is a table of its own."""
    return "*" in description["bounds"][0]


def _described(descriptions: list[dict[str, Any]], given: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The descriptions, one for each table that there may be."""
    for each in descriptions:
        if not _is_family(each):
            yield each
            continue
        for name in sorted(name for name in given if fnmatchcase(name, each["section"])):
            bounds = [bound.replace("*", name) for bound in each["bounds"]]
            yield {**each, "section": name, "bounds": bounds}


def _check_table(
    model: Model, tally: Tally, description: dict[str, Any], first: int, content: bytes, parts: list[Part]
) -> None:
    name = description["section"]
    pair = model.linked.outputs.get(description.get("pair", {}).get("section", ""))
    paired = pair.content if pair else b""
    possible = [
        Table(name, description, first, content, size, paired, model.mask)
        for size in description["entry"]
        if len(content) % size == 0 and not any(part.section.size % size for part in parts)
    ]
    if not possible:
        tally.expect(False, f"{name}: no entry size of {description['entry']} divides it")
        return
    of_data = any(not _speaks_of_code(model, part, owner_fields(description)[0]) for part in parts)
    table = min(
        possible, key=lambda each: sum(not _lands(model, each, owner, of_data) for _, owner in each.rows())
    )
    strays = [(at, owner) for at, owner in table.rows() if not _lands(model, table, owner, of_data)]
    tally.checked += len(content) // table.entry
    for at, owner in strays:
        what = "a tombstone" if owner in model.stone_at else "outside kept text"
        tally.find(f"{name} entry {at // table.entry} points {what}: {model.name_of(owner)}")
    if strays:
        return  # What follows would say it again.
    if name in _SORTED:
        order = [owner for _, owner in table.rows()]
        late = next((i for i, (one, other) in enumerate(pairwise(order)) if one > other), None)
        tally.expect(late is None, f"{name} is not sorted: entry {late} is behind its successor")
    _check_entries(model, tally, table, parts)


def _speaks_of_code(model: Model, part: Part, owner: int) -> bool:
    """Exported variables make ``___ksymtab`` a table of data, too."""
    relocation = next((each for each in part.section.fields if each.offset == owner), None)
    if relocation is None:
        return True
    path, symbol = model.chosen.get(relocation.symbol.name, (part.original.path, relocation.symbol))
    section = model.objects[path].sections.get(symbol.section)
    return section is None or section.is_code


def _lands(model: Model, table: Table, owner: int, of_data: bool) -> bool:
    """Whether an entry may be about this address."""
    # A row also ends the range before it (tools/objtool/orc_gen.c), where no code need follow.
    if table.description.get("ranges") and model.text.at(owner - 1) is not None:
        return True
    return (model.memory if of_data else model.text).at(owner) is not None and owner not in model.stone_at


def _check_entries(model: Model, tally: Tally, table: Table, parts: list[Part]) -> None:
    """The entries in the image are those of the objects whose owner was kept, but for those made blank."""
    rows: dict[int, list[int]] = {}
    blanks = table.blanks
    for at, owner in table.rows():
        rows.setdefault(owner, []).append(at)
    for part in parts:
        for entry in _entries(part, table.entry):
            about = _owner(model, table, entry)
            if about is None:
                continue
            candidates = rows.get(about, [])
            if not candidates and blanks:
                blanks -= 1
                continue
            wrongs = [(_wrong_entry(model, table, entry, at), at) for at in candidates]
            fits = next((at for wrong, at in wrongs if not wrong), None)
            finding = wrongs[0][0] if wrongs else "is not in the image"
            tally.expect(fits is not None, f"{entry}, about {model.name_of(about)}, {finding}")
            if fits is not None or candidates:
                candidates.remove(candidates[0] if fits is None else fits)
    for owner, left in rows.items():
        for row in left:
            tally.find(
                f"{table.name} entry {row // table.entry}, about {model.name_of(owner)}, is of no object"
            )


def _entries(part: Part, size: int) -> Iterator[Entry]:
    fields: dict[int, list[Field]] = {}
    for relocation in part.section.fields:
        fields.setdefault(relocation.offset // size, []).append(relocation)
    count = part.section.size // size
    row = part.pair.size // count if part.pair else 0
    for number in range(count):
        paired = part.pair.content[number * row : (number + 1) * row] if part.pair else b""
        content = part.section.content[number * size : (number + 1) * size]
        yield Entry(part, number, content, tuple(fields.get(number, ())), paired)


def _owner(model: Model, table: Table, entry: Entry) -> int | None:
    """The address that an entry is about, None when that was dropped."""
    fields = {field.offset: field for field in entry.fields}
    found = about(model, entry.part.original.path, table.description, fields, entry.number * table.entry)
    if found is None or found[0].dropped or found[0].address is None:
        return None
    return found[0].address + found[1] & model.mask


def _wrong_entry(model: Model, table: Table, entry: Entry, at: int) -> str:
    """What is wrong with the row at ``at``, were it this entry: "" when nothing is."""
    start = entry.number * table.entry
    now, was = bytearray(table.content[at : at + table.entry]), bytearray(entry.content)
    for relocation in entry.fields:
        inside = relocation.offset - start
        wrong = wrong_field(
            model, entry.part.original, relocation, table.content, table.address, at + inside, None
        )
        if wrong:
            return wrong
        width = width_of(model, relocation, entry.part)
        now[inside : inside + width] = was[inside : inside + width] = bytes(width)
    if now != was or table.pair_row(at) != entry.paired:
        return "is not what the compiler made"
    return ""
