"""Edit the objects: no reference to a dropped unit is left but through its tombstone.

All objects at once, in one array of bytes with room for it (:mod:`prune.model.room`), so that nothing moves:

* a relocation that reaches a dropped unit by a local or section symbol is moved to its stand-in, an undefined
  global symbol of the tombstone's name; its addend becomes that of a reference to the first byte;
* a global symbol that an object defines in a dropped unit and that the script will define becomes undefined;
* dropped units, and what only booting needs, get the names by which the script finds them;
* string sections lose the strings that nothing refers to any more, functions their cold blocks;
* kernel tables lose the entries whose owner was dropped, and their relocations and symbols with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from prune.linking.cut import close_tables, find_cut, follow_entries
from prune.linking.tombstones import Burial
from prune.model.elf import SHF_EXECINSTR, STB_GLOBAL, Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge
from prune.model.layout import SYMBOL, like, put, put_column
from prune.model.room import FREED_AT, put_addends, put_headers
from prune.model.strings import squeeze_strings
from prune.model.tables import Tables
from tracer.host import UserError

if TYPE_CHECKING:
    from prune.linking.trimmed import Trimmed
    from prune.plan.trim import Trimming


def edit_image(
    image: Image,
    tables: Tables,
    keep: Rows,
    boot: Rows,
    burial: Burial,
    knowledge: Knowledge,
    trimming: Trimming | None = None,
) -> Rows:
    """The objects' new content, as ``image.data`` has the old.

    Args:
        boot: mask of the kept units that are freed after boot.
        image, tables, trimming: what :func:`prune.plan.trim.trim` left.

    Raises:
        UserError: something refers to an entry of a table that goes, or is of an unknown kind.
    """
    data = image.data.copy()
    _sever(data, image, burial, knowledge)
    _undefine(data, image, burial)
    _rename(data, image, keep, boot)
    _squeeze(data, image, tables, keep)
    cut = find_cut(tables, keep)
    follow_entries(data, image, tables, keep, cut, knowledge)
    if trimming:
        _trim(data, image, trimming, knowledge)
    close_tables(data, image, keep, cut)
    return data


def _sever(data: Rows, image: Image, burial: Burial, knowledge: Knowledge) -> None:
    """Move references to dropped units to their tombstones."""
    rows = image.relocations[burial.severed]
    in_code = image.units["flags"][rows["unit"]] & SHF_EXECINSTR != 0
    addends = first_byte_addends(rows["type"], rows["addend"], in_code, knowledge)
    put_addends(data, image, rows, addends)
    moved = rows[burial.local]
    used, which = np.unique(image.units["stand_in"][moved["target"]], return_inverse=True)
    number = _stand_in(data, image, used)
    info = image.machine.layout.info(number[which], moved["type"])
    put_column(data, moved["at"], image.machine.relocation, "info", info)


def _stand_in(data: Rows, image: Image, used: Rows) -> Rows:
    """Put the stand-ins ``used``, in ascending order, into the symbol tables of their objects; their indices
    there."""
    obj = image.units["object"][image.stand_ins["unit"][used]]
    part = image.parts[obj]
    # Stand-ins are in the order of the objects: the rows behind an object's symbols are taken in turn.
    nth = np.arange(len(used)) - np.searchsorted(obj, obj)
    number: Rows = part["symbols"] + nth
    symbols = np.zeros(len(used), SYMBOL)
    symbols["name"], symbols["info"] = image.stand_ins["name"][used], STB_GLOBAL << 4
    layout = image.machine.layout
    size = layout.symbol.itemsize
    put(data, part["symtab_at"] + size * number, like(symbols, layout.symbol))
    owners, count = np.unique(obj, return_counts=True)
    grown = image.parts[owners]
    symtabs = grown["headers"] + layout.section.itemsize * grown["symtab"]
    put_headers(data, image, symtabs, "size", size * (grown["symbols"] + count))
    wide = grown["shndx"] >= 0
    tables = grown["headers"][wide] + layout.section.itemsize * grown["shndx"][wide]
    put_headers(data, image, tables, "size", 4 * (grown["symbols"] + count)[wide])
    return number


def first_byte_addends(kind: Rows, addend: Rows, in_code: Rows, knowledge: Knowledge) -> Rows:
    """The addends that make references mean the first byte of their target.

    An absolute field, and a relative one in data (``.long f - .``), hold it with addend 0. The operand
    of an instruction is relative to the instruction's end: -4, or down to -8 when an immediate follows,
    which is only known when the reference was to the first byte already.

    Raises:
        UserError: a relocation type that ``linkerscripts/`` does not describe.
    """
    relative = np.isin(kind, knowledge.kinds("pc32"))
    known = relative | np.isin(
        kind, [*knowledge.kinds("abs64"), *knowledge.kinds("abs32"), *knowledge.kinds("pc64")]
    )
    if not known.all():
        raise UserError(
            f"editing objects: relocation type {int(kind[~known][0])} is not supported on {knowledge.arch}",
            "describe it in linkerscripts/",
        )
    at_first = (addend >= -8) & (addend <= -4)
    found: Rows = np.where(relative & in_code, np.where(at_first, addend, -4), 0).astype(np.int64)
    return found


def _undefine(data: Rows, image: Image, burial: Burial) -> None:
    """Hidden symbols (LTO makes everything so) would end as local ones of vmlinux: visibility goes, too."""
    rows = burial.undefined
    blank = np.zeros(len(rows), SYMBOL)
    blank["info"] = STB_GLOBAL << 4
    kind = image.machine.layout.symbol
    named = kind["name"].itemsize  # The name comes first, and stays.
    content = like(blank, kind).view(np.uint8).reshape(len(rows), kind.itemsize)[:, named:]
    put(data, image.symbol_at(rows) + named, content)
    obj = np.searchsorted(image.symbols_at, rows, "right") - 1
    wide = image.parts["shndx_at"][obj] >= 0
    index = rows[wide] - image.symbols_at[obj[wide]]
    put(data, image.parts["shndx_at"][obj[wide]] + 4 * index, np.zeros(len(index), np.uint32))


def _rename(data: Rows, image: Image, keep: Rows, boot: Rows) -> None:
    """By which name the script finds a unit says what becomes of it."""
    for mask, skip in ((~keep, 0), (boot, FREED_AT)):
        put_headers(data, image, image.headers[mask], "name", image.units["label"][mask] + skip)


def _squeeze(data: Rows, image: Image, tables: Tables, keep: Rows) -> None:
    left = squeeze_strings(image, tables, keep)
    data[left.clear] = 0
    data[left.at] = left.content
    put_headers(data, image, image.headers[left.units], "size", left.sizes)
    put_addends(data, image, image.relocations[left.rows], left.addends)
    put_column(data, image.symbol_at(left.symbols), image.machine.layout.symbol, "value", left.values)


def _trim(data: Rows, image: Image, trimming: Trimming, knowledge: Knowledge) -> None:
    """Functions without their cold blocks."""
    from prune.linking.trimmed import moved_addends, trimmed_section

    rows, addends = moved_addends(image, trimming, knowledge)
    # Before the code moves: addends may be a part of it.
    put_addends(data, image, image.relocations[rows], addends)
    symbol = image.machine.layout.symbol
    for unit, trim in trimming.trims.items():
        row = image.units[unit]
        code = data[row["at"] : row["at"] + row["size"]].tobytes()
        trimmed = trimmed_section(image, trim, code, knowledge)
        content = np.frombuffer(trimmed.content, np.uint8)
        data[row["at"] : row["at"] + len(content)] = content
        put_headers(data, image, image.headers[[unit]], "size", np.array([len(content)]))
        _move_fields(data, image, unit, trimmed)
        start = image.parts["symtab_at"][row["object"]]
        for index, value, size in trimmed.symbols:
            at = np.array([start + symbol.itemsize * index])
            put_column(data, at, symbol, "value", np.array([value]))
            put_column(data, at, symbol, "size", np.array([size]))


def _move_fields(data: Rows, image: Image, unit: int, trimmed: Trimmed) -> None:
    """Relocations go to where their fields are now, and away with those that went."""
    part = image.parts[image.units["object"][unit]]
    file = image.files[int(image.units["object"][unit])]
    section, done = int(image.units["section"][unit]), 0
    kind = image.machine.relocation
    for index in file.relocation_sections():
        if file.sections["info"][index] != section:
            continue
        at, length = int(part["at"] + file.sections["offset"][index]), int(file.sections["size"][index])
        rows = data[at : at + length].view(kind)
        offsets = trimmed.fields[done : done + len(rows)]
        done += len(rows)
        left = rows[offsets >= 0]
        left["offset"] = offsets[offsets >= 0]
        data[at : at + left.nbytes] = left.view(np.uint8)
        header = np.array([int(part["headers"]) + image.machine.layout.section.itemsize * index])
        put_headers(data, image, header, "size", np.array([left.nbytes]))
