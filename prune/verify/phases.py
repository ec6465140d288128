"""Prove what is freed after boot: it lies where the kernel frees, and no resident code leads there.

A resident unit may refer to code that is freed when it ran in boot itself, as the profile says: the way there
was taken in time. A pointer in data may lead there, too; who follows it later faults, and is told by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from prune.verify.elf import Object, Section
from prune.verify.model import Check, Model, Tally
from prune.verify.read import Name, Piece

_BEGIN, _END = "__init_begin", "__init_end"  # include/asm-generic/sections.h
_BOOT = "boot"


def check_phases(model: Model, ran: Mapping[Name, frozenset[str]]) -> Check:
    """Places and references of all that is freed.

    Args:
        ran: (object, section) -> the apps and phases that ran it.
    """
    tally = Tally("phases")
    begin, end = (model.linked.symbols.get(name, 0) for name in (_BEGIN, _END))
    units = model.facts["units"]
    kinds = [*units["function"], *units["data"], *units["shared"]]
    stays = {name for _, name in model.fates if _is_one(name, kinds) and not _is_one(name, units["init"])}
    for piece in model.map.pieces:
        if not piece.size:
            continue
        name = (piece.object, piece.section)
        freed = begin <= piece.address and piece.end <= end
        if name in model.freed:
            tally.expect(freed, f"{piece} is to be freed after boot, and lies where nothing is")
            later = ran.get(name, frozenset()) - {_BOOT}
            tally.expect(not later, f"{piece} is freed after boot, and {', '.join(sorted(later))} ran it")
        elif name in model.fates and piece.section in stays:
            outside = piece.end <= begin or piece.address >= end or piece.output.startswith(".data..percpu")
            tally.expect(outside, f"{piece} is resident, and lies where memory is freed after boot")
    _check_ways(model, tally, ran, begin, end)
    return tally.done(f"{len(model.freed):,} units are freed after boot")


def _is_one(section: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(section, pattern) for pattern in patterns)


def _check_ways(model: Model, tally: Tally, ran: Mapping[Name, frozenset[str]], begin: int, end: int) -> None:
    for original in model.objects.values():
        for index, section in original.sections.items():
            piece = model.placed.get((original.path, index))
            if piece is None:
                continue
            if begin <= piece.address < end:
                _check_operands(model, tally, original, section, piece)
                continue
            in_time = _BOOT in ran.get((piece.object, piece.section), frozenset())
            for field in section.fields:
                place = model.unit_of(original.path, field.symbol)
                if place not in model.freed:
                    continue
                if not model.originals[place].is_code:
                    name = ":".join(place)
                    tally.expect(False, f"{piece}+{field.offset:#x} refers to data freed after boot: {name}")
                    continue
                if not section.is_code:
                    continue
                tally.expect(
                    in_time,
                    f"{piece}+{field.offset:#x} refers to {place[0]}:{place[1]}, freed after boot, "
                    "and boot did not run it",
                )


def _check_operands(model: Model, tally: Tally, original: Object, section: Section, piece: Piece) -> None:
    """Freed code only reads and writes at the addresses of freed data; it hands none on."""
    into = [
        field
        for field in section.fields
        if (place := model.unit_of(original.path, field.symbol)) in model.freed
        and not model.originals[place].is_code
    ]
    if not into:
        return
    operands = model.decoder.operands(section.content)
    for field in into:
        tally.expect(
            section.is_code and field.offset in operands,
            f"{piece}+{field.offset:#x} may hand on the address of data that is freed after boot",
        )
