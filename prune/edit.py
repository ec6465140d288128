"""Edit the objects: no reference to a dropped unit is left but through its tombstone.

In one object, in place, so that file offsets stay:

* a relocation that reaches a dropped unit by a local or section symbol is moved to a new undefined
  global symbol, the tombstone's name; its addend becomes that of a reference to the first byte;
* a global symbol that the object defines in a dropped unit and that the script will define becomes
  undefined;
* kernel tables lose the entries whose owner was dropped, and their relocations with them;
* what only booting needs gets the name of a section that the kernel frees;
* string sections lose the strings that nothing refers to any more, functions their cold blocks.

The new symbol and string tables go to the end of the file (gABI chapter 4: nothing orders sections).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from prune.elf import (
    RELA,
    SECTION,
    SHF_EXECINSTR,
    SHT_RELA,
    SHT_SYMTAB_SHNDX,
    STB_GLOBAL,
    STB_LOCAL,
    SYMBOL,
    ObjectFile,
    Rows,
    add_name,
    section_names_at,
)
from prune.image import Image
from prune.knowledge import Knowledge
from prune.strings import Squeeze, squeeze_strings
from prune.tables import NOBODY, Tables
from prune.tombstones import Burial
from prune.trim import Trimming
from prune.trimmed import Trimmed, trimmed_sections
from tracer.host import UserError

#: Where code and data go that the kernel frees after boot: the section's own name follows.
FREED_GROUPS = (".init.text", ".init.data")


@dataclass(frozen=True)
class Move:
    """The relocation row at file position ``at`` gets ``addend`` and the symbol ``name`` ("": its own)."""

    at: int
    name: str
    addend: int


@dataclass(frozen=True)
class Cut:
    """Section ``section`` keeps those of its ``entry``-byte entries that the mask ``stays`` names."""

    section: int
    entry: int
    stays: Rows


@dataclass(frozen=True)
class Edit:
    """What changes in one object; ``undefine`` are symbol indices, ``renames`` (section, its new name),
    ``addends`` (file position of a relocation, its new addend)."""

    moves: tuple[Move, ...]
    undefine: tuple[int, ...]
    cuts: tuple[Cut, ...]
    renames: tuple[tuple[int, str], ...] = ()
    squeezes: tuple[Squeeze, ...] = ()
    trimmed: tuple[Trimmed, ...] = ()
    addends: tuple[tuple[int, int], ...] = ()


def plan_edits(
    image: Image,
    tables: Tables,
    keep: Rows,
    boot: Rows,
    burial: Burial,
    knowledge: Knowledge,
    trimming: Trimming | None = None,
) -> dict[int, Edit]:
    """Object -> its edit, for the objects that need one.

    Args:
        boot: mask of the kept units that are freed after boot.
        image, tables, trimming: what :func:`prune.trim.trim` left.

    Raises:
        UserError: something refers to an entry of a table that loses entries.
    """
    moves = _moves(image, burial, knowledge)
    undefine = _undefined(image, burial)
    cuts = _cuts(image, tables, keep)
    renames: dict[int, list[tuple[int, str]]] = {}
    for unit in np.flatnonzero(boot).tolist():
        row = image.units[unit]
        name = freed_name(image.names[unit], executable=bool(row["flags"] & SHF_EXECINSTR))
        renames.setdefault(int(row["object"]), []).append((int(row["section"]), name))
    squeezes = squeeze_strings(image, tables, keep, knowledge)
    trimmed, addends = trimmed_sections(image, trimming, knowledge) if trimming else ({}, {})
    parts: tuple[Mapping[int, object], ...]
    parts = (moves, undefine, cuts, renames, squeezes, trimmed, addends)
    return {
        obj: Edit(
            tuple(moves.get(obj, ())),
            tuple(undefine.get(obj, ())),
            tuple(cuts.get(obj, ())),
            tuple(renames.get(obj, ())),
            squeezes.get(obj, ()),
            trimmed.get(obj, ()),
            addends.get(obj, ()),
        )
        for obj in sorted({obj for part in parts for obj in part})
    }


def freed_name(section: str, *, executable: bool) -> str:
    """What a section is called where the kernel frees it: ``.text.foo`` -> ``.init.text.text.foo``."""
    return FREED_GROUPS[0 if executable else 1] + section


def _moves(image: Image, burial: Burial, knowledge: Knowledge) -> dict[int, list[Move]]:
    found: dict[int, list[Move]] = {}
    for relocation in image.relocations[burial.severed]:
        obj, index = image.locate_symbol(int(relocation["symbol"]))
        is_local = image.files[obj].symbols["info"][index] >> 4 == STB_LOCAL
        in_code = bool(image.units["flags"][relocation["unit"]] & SHF_EXECINSTR)
        addend = first_byte_addend(int(relocation["type"]), int(relocation["addend"]), in_code, knowledge)
        if not is_local and addend == relocation["addend"]:
            continue  # The script defines the name.
        name = burial.stones[int(relocation["target"])].local_name if is_local else ""
        found.setdefault(obj, []).append(Move(int(relocation["at"]), name, addend))
    return found


def first_byte_addend(kind: int, addend: int, in_code: bool, knowledge: Knowledge) -> int:
    """The addend that makes a reference mean the first byte of its target.

    An absolute field, and a relative one in data (``.long f - .``), hold it with addend 0. The operand
    of an instruction is relative to the instruction's end: -4, or down to -8 when an immediate follows,
    which is only known when the reference was to the first byte already.

    Raises:
        UserError: a relocation type that ``linkerscripts/`` does not describe.
    """
    if kind in knowledge.kinds("pc32"):
        if not in_code:
            return 0
        return addend if -8 <= addend <= -4 else -4
    if kind in (*knowledge.kinds("abs64"), *knowledge.kinds("abs32"), *knowledge.kinds("pc64")):
        return 0
    raise UserError(
        f"editing objects: relocation type {kind} is not supported on {knowledge.arch}",
        "describe it in linkerscripts/",
    )


def _undefined(image: Image, burial: Burial) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    names = {name for stone in burial.stones.values() for name in stone.names} | set(burial.aliases)
    for name in sorted(names & image.globals_.keys()):
        obj, index = image.locate_symbol(image.globals_[name])
        found.setdefault(obj, []).append(index)
    return found


def _cuts(image: Image, tables: Tables, keep: Rows) -> dict[int, list[Cut]]:
    found: dict[int, list[Cut]] = {}
    cut_units: list[int] = []
    for part in tables.parts.values():
        stays = (part.owners == NOBODY) | (part.owners >= 0) & keep[part.owners]
        if stays.all():
            continue
        obj = int(image.units["object"][part.unit])
        for unit, entry in ((part.unit, part.entry), (part.pair, part.pair_entry)):
            if unit is not None:
                found.setdefault(obj, []).append(Cut(int(image.units["section"][unit]), entry, stays))
                cut_units.append(unit)
    into = np.isin(image.relocations["target"], cut_units) & keep[image.relocations["unit"]]
    if into.any():
        row = image.relocations[into][0]
        raise UserError(
            f"editing objects: {image.unit_label(int(row['unit']))} refers to an entry of "
            f"{image.unit_label(int(row['target']))}, which loses entries",
            "this kernel's table is used in a way that kprune does not support",
        )
    return found


def edit_object(file: ObjectFile, edit: Edit) -> bytes:
    """The object's new content."""
    data = np.frombuffer(file.data, np.uint8).copy()
    sections = data[file.shoff : file.shoff + file.sections.nbytes].view(SECTION)
    names = sorted({move.name for move in edit.moves if move.name})
    number = {name: len(file.symbols) + i for i, name in enumerate(names)}
    for move in edit.moves:
        row = data[move.at : move.at + RELA.itemsize].view(RELA)
        if move.name:
            row["info"] = number[move.name] << 32 | int(row["info"][0]) & 0xFFFFFFFF
        row["addend"] = move.addend
    for at, addend in (*edit.addends, *(pair for squeeze in edit.squeezes for pair in squeeze.addends)):
        data[at : at + RELA.itemsize].view(RELA)["addend"] = addend
    for cut in edit.cuts:
        _cut_table(data, sections, cut)
    tail = bytearray()
    smaller: tuple[Squeeze | Trimmed, ...] = (*edit.squeezes, *edit.trimmed)
    for part in smaller:
        start = int(sections["offset"][part.section])
        data[start : start + len(part.content)] = np.frombuffer(part.content, np.uint8)
        sections["size"][part.section] = len(part.content)
    symbols = np.array(file.symbols)
    for index, value in (pair for squeeze in edit.squeezes for pair in squeeze.values):
        symbols["value"][index] = value
    for trimmed in edit.trimmed:
        _move_fields(data, sections, trimmed)
        for index, value, size in trimmed.symbols:
            symbols["value"][index], symbols["size"][index] = value, size
    tables = _new_tables(file, symbols, edit.undefine, names)
    if edit.renames:
        at = section_names_at(file)
        strings = bytearray(tables.get(at) or file.content(at))
        for section, name in edit.renames:
            sections["name"][section] = add_name(strings, name)
        tables[at] = bytes(strings)
    for index, content in tables.items():
        tail += bytes(-(len(data) + len(tail)) % 8)
        sections["offset"][index] = len(data) + len(tail)
        sections["size"][index] = len(content)
        tail += content
    return data.tobytes() + bytes(tail)


def _cut_table(data: Rows, sections: Rows, cut: Cut) -> None:
    """Close the gaps of one table, in place; its relocation sections follow."""
    start, size = int(sections["offset"][cut.section]), int(sections["size"][cut.section])
    left = data[start : start + size].reshape(-1, cut.entry)[cut.stays].ravel()
    data[start : start + len(left)] = left
    sections["size"][cut.section] = len(left)
    gone_before = np.cumsum(~cut.stays) * cut.entry
    for index in np.flatnonzero((sections["type"] == SHT_RELA) & (sections["info"] == cut.section)):
        at, length = int(sections["offset"][index]), int(sections["size"][index])
        rows = data[at : at + length].view(RELA)
        of_entry = (rows["offset"] // cut.entry).astype(np.int64)
        rows, of_entry = rows[cut.stays[of_entry]], of_entry[cut.stays[of_entry]]
        rows["offset"] -= gone_before[of_entry].astype(np.uint64)
        data[at : at + rows.nbytes] = rows.view(np.uint8)
        sections["size"][index] = rows.nbytes


def _move_fields(data: Rows, sections: Rows, trimmed: Trimmed) -> None:
    """Relocations go to where their fields are now, and away with those that went."""
    done = 0
    for index in np.flatnonzero((sections["type"] == SHT_RELA) & (sections["info"] == trimmed.section)):
        at, length = int(sections["offset"][index]), int(sections["size"][index])
        rows = data[at : at + length].view(RELA)
        offsets = trimmed.fields[done : done + len(rows)]
        done += len(rows)
        left = rows[offsets >= 0]
        left["offset"] = offsets[offsets >= 0]
        data[at : at + left.nbytes] = left.view(np.uint8)
        sections["size"][index] = left.nbytes


def _new_tables(
    file: ObjectFile, symbols: Rows, undefine: tuple[int, ...], names: list[str]
) -> dict[int, bytes]:
    """Section index -> content of the symbol table, its strings and its wide section indices."""
    strings = bytearray(file.strtab)
    new = np.zeros(len(names), SYMBOL)
    for number, name in enumerate(names):
        new["name"][number] = len(strings)
        strings += name.encode("ascii", "surrogateescape") + b"\0"
    new["info"] = STB_GLOBAL << 4
    symbols = np.concatenate([symbols, new])
    gone = list(undefine)
    symbols["info"][gone] = STB_GLOBAL << 4
    # Hidden ones (LTO makes everything so) would end as local symbols of vmlinux: "other" is the visibility.
    for column in ("shndx", "value", "size", "other"):
        symbols[column][gone] = 0
    tables = {file.symtab: symbols.tobytes(), int(file.sections[file.symtab]["link"]): bytes(strings)}
    for index in np.flatnonzero(file.sections["type"] == SHT_SYMTAB_SHNDX).tolist():
        wide = np.frombuffer(file.content(index), "<u4").copy()
        wide[gone] = 0
        tables[index] = wide.tobytes() + bytes(4 * len(names))
    return tables
