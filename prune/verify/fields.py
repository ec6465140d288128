"""Prove references and bytes: every kept unit is what the compiler made, its relocated fields apart, and
every relocated field is what its relocation says.

Each field is computed again (S + A, or S + A - P) from the object as the compiler made it. A field that meant
a dropped unit must mean the first byte of that unit's tombstone, whatever place inside the unit it
meant: an address is the tombstone's, a distance in data counts from the field, and one in an instruction from
the instruction's end, which the disassembler tells. A constant that ld merged is known by its content.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from prune.verify.elf import STRINGS, Field, Object, Section
from prune.verify.entries import InstructionEnd, wrong_entry_named
from prune.verify.model import Check, Model, Tally, Target
from prune.verify.read import Piece
from tracer.host import UserError


def check_fields(model: Model, ends: Callable[[Piece], InstructionEnd]) -> tuple[Check, Check]:
    """References and bytes of every kept unit.

    Raises:
        UserError: a relocation type that ``linkerscripts/`` does not describe.
    """
    references, same = Tally("references"), Tally("bytes")
    excepted = {"merged constants": 0, "kernel tables": 0}
    generated = sum(piece.size for piece in model.map.pieces if model.is_generated(piece.object))
    _check_fates(model, references)
    _check_definitions(model, references)
    for original in model.objects.values():
        for index, section in original.sections.items():
            piece = model.placed.get((original.path, index))
            if piece is None or not section.content:
                continue
            if section.is_merged:
                excepted["merged constants"] += piece.size
            elif model.table_of(section.name):
                excepted["kernel tables"] += piece.size
            else:
                _check_references(model, references, original, section, piece, ends(piece))
                if section.name in model.facts["units"]["filled"]:
                    generated += piece.size
                else:
                    _check_bytes(model, same, section, piece)
    words = " and ".join(f"{size:,} bytes of {what}" for what, size in excepted.items())
    note = f"{words} are proved by references and tables instead; {generated:,} bytes are kbuild's own"
    return references.done(), same.done(note)


def _check_fates(model: Model, tally: Tally) -> None:
    """What was kept is in the image, what was dropped is not."""
    lies = {(piece.object, piece.section) for piece in model.map.pieces if piece.size}
    for name, kept in model.fates.items():
        section = model.originals.get(name)
        if not kept:
            tally.expect(name not in lies, f"{name[0]}:{name[1]} was dropped and is in the image")
        elif section is not None and not section.is_merged and not model.table_of(section.name):
            tally.expect(name in lies, f"{name[0]}:{name[1]} was kept and is not in the image")


def _check_definitions(model: Model, tally: Tally) -> None:
    """vmlinux has every global name where the definition lies that the link chose."""
    for name, (path, symbol) in model.chosen.items():
        found, target = model.linked.symbols.get(name), model.resolve(path, symbol)
        if found is not None and target.address is not None:
            tally.expect(
                found == target.address,
                f"{name} is at {model.name_of(found)}, and should be at {model.name_of(target.address)}",
            )


def _check_references(
    model: Model, tally: Tally, original: Object, section: Section, piece: Piece, end_of: InstructionEnd
) -> None:
    content = model.linked.read(piece.address, piece.size)
    for relocation in section.fields:
        tally.checked += 1
        wrong = wrong_field(
            model, original, relocation, content, piece.address, relocation.offset,
            end_of if section.is_code else None,
        )  # fmt: skip
        if wrong:
            tally.find(f"{piece}+{relocation.offset:#x} {wrong}")


def _check_bytes(model: Model, tally: Tally, section: Section, piece: Piece) -> None:
    now = np.frombuffer(model.linked.read(piece.address, piece.size), np.uint8)
    was = np.frombuffer(section.content, np.uint8)
    if len(now) != len(was):
        tally.expect(False, f"{piece} has {len(now):,} bytes of {len(was):,} in the image")
        return
    same = now == was
    got = model.facts["relocations"].get("got", ())
    for relocation in section.fields:
        begin = relocation.offset - (model.facts["rewritten"] if relocation.type in got else 0)
        end = relocation.offset + width_of(model, relocation, piece)
        same[max(begin, 0) : end] = True
    for symbol, width in model.facts.get("patched", {}).items():
        at = model.linked.symbols.get(symbol, 0) - piece.address
        if 0 <= at < section.size:
            same[at : at + width] = True
    tally.expect(bool(same.all()), f"{piece}+{int(np.argmin(same)):#x} is not what the compiler made")


def width_of(model: Model, relocation: Field, where: object) -> int:
    """Bytes that a relocation fills."""
    width = model.widths.get(relocation.type)
    if width is None:
        raise UserError(
            f"verifying {where}: relocation type {relocation.type} is not supported",
            "describe it in linkerscripts/",
        )
    return width


def wrong_field(
    model: Model, original: Object, relocation: Field, content: bytes, base: int, at: int,
    end_of: InstructionEnd | None,
) -> str:  # fmt: skip
    """What is wrong with one relocated field, "" when nothing is.

    ``content`` lies at address ``base`` and holds the field at ``at``; ``end_of`` is None outside code.
    """
    width = width_of(model, relocation, original.path)
    raw = content[at : at + width]
    if len(raw) != width:
        return "is not whole in the image"
    if not width:
        return ""
    relative = model.kinds[relocation.type].startswith("pc")
    place = base + at if relative else 0
    target = model.resolve(original.path, relocation.symbol)
    # A field narrower than an address is sign-extended; R_X86_64_32 is for low ones, where that is the same.
    reached = int.from_bytes(raw, "little", signed=True) + place & model.mask
    listed = wrong_entry_named(
        model, original, relocation, reached, base + at, end_of if relative else None
    )  # fmt: skip
    if listed is not None:
        return listed
    if target.dropped:
        return _wrong_severed(model, target, reached, base + at, end_of if relative else None)
    if target.constant is not None:
        return _wrong_constant(model, target, relocation, reached, relative and end_of is not None)
    if target.address is None:
        return f"refers to {target.label}, which is not in the image"
    expected = target.address + relocation.addend
    if (expected - reached) & ((1 << 8 * width) - 1) == 0:
        return ""
    distance = relocation.addend if relative else 0
    meant = model.name_of(expected - distance & model.mask)
    name = f"{relocation.symbol.name}, {meant}," if relocation.symbol.name else meant
    return f"should reach {name} and reaches {model.name_of(reached - distance & model.mask)}"


def _wrong_severed(
    model: Model, target: Target, reached: int, place: int, end_of: InstructionEnd | None
) -> str:
    """A reference to a dropped unit."""
    if target.address is None:
        return f"refers to dropped {target.label}, which has no tombstone"
    if end_of is not None:
        end = end_of(place)
        if end is None:
            return f"refers to dropped {target.label} from no instruction"
        reached = reached + end - place & model.mask
    if reached == target.address:
        return ""
    return f"refers to dropped {target.label} past its tombstone"


def _wrong_constant(model: Model, target: Target, relocation: Field, reached: int, in_code: bool) -> str:
    """A reference into a section that ld merged: by a section symbol the addend chooses the constant, by
    another the symbol does and the addend is an offset from it.
    """
    section, symbol = target.constant, relocation.symbol
    assert section is not None
    if symbol.is_section and in_code:
        # Never made: assemblers keep the symbol, since the addend would count the instruction's end as well.
        return f"refers to merged {target.label} by distance, which verify does not support"
    start = symbol.value + relocation.addend if symbol.is_section else symbol.value
    address = reached if symbol.is_section else reached - relocation.addend & model.mask
    wanted = _constant(section, start)
    into = model.memory.at(address)
    if wanted and into is not None and model.linked.read(address, len(wanted)) == wanted:
        return ""
    return f"should reach a constant of {target.label}, {wanted[:24]!r}, and reaches {model.name_of(address)}"


def _constant(section: Section, start: int) -> bytes:
    """The constant at ``start``, a string with its end."""
    entry = max(section.entry_size, 1)
    end = start + entry
    if section.flags & STRINGS:
        while end < section.size and any(section.content[end - entry : end]):
            end += entry
    return section.content[start:end]
