"""What an object must look like when cold blocks are taken out of its functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune.model.elf import STT_SECTION, Rows
from prune.model.image import Image
from prune.model.instructions import read_instructions
from prune.model.knowledge import Knowledge
from prune.model.places import skew
from prune.plan.trim import Trim, Trimming


@dataclass(frozen=True)
class Trimmed:
    """A section gets ``content``, its symbols (index, value, size); ``fields``: where each of its relocations
    is now, -1 for those that went."""

    content: bytes
    symbols: tuple[tuple[int, int, int], ...]
    fields: Rows


def moved_addends(image: Image, trimming: Trimming, knowledge: Knowledge) -> tuple[Rows, Rows]:
    """(the rows of ``image.relocations`` that refer to a place that moved, their new addends).

    Args:
        image, trimming: what :func:`prune.plan.trim.trim` left.
    """
    trims, places = trimming.trims, trimming.places
    rows = image.relocations
    after = skew(image, rows, knowledge)
    trimmed = np.zeros(len(image.units), bool)
    trimmed[list(trims)] = True
    into = np.flatnonzero((rows["target"] >= 0) & trimmed[rows["target"]])
    into = into[np.argsort(rows["target"][into], kind="stable")]
    where, addends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    bounds = np.flatnonzero(np.diff(rows["target"][into])) + 1
    for mine in np.split(into, bounds) if len(into) else []:
        trim = trims[int(rows["target"][mine[0]])]
        offset, value = places.offset[mine], image.symbol_value[image.definition[rows["symbol"][mine]]]
        new = trim.moved(offset) - trim.moved(value) - after[mine]
        # What seems to lie before the function is its first byte, counted from some way on.
        changed = (offset > 0) & (new != rows["addend"][mine])
        where.append(mine[changed])
        addends.append(new[changed])
    return np.concatenate(where), np.concatenate(addends)


def trimmed_section(image: Image, trim: Trim, old: bytes, knowledge: Knowledge) -> Trimmed:
    """One function without its cold blocks.

    Args:
        old: its code with all else that is edited in it.
    """
    row = image.units[trim.unit]
    file, section = image.files[int(row["object"])], int(row["section"])
    new = bytearray(trim.size)
    for start, end, at in zip(trim.start.tolist(), trim.end.tolist(), trim.new.tolist(), strict=True):
        new[at : at + end - start] = old[start:end]
    trap = bytes(knowledge.trap)
    stop = bytes(knowledge.answer["stop"])[: len(trap)]
    for was, place in zip(trim.traps.tolist(), trim.moved(trim.traps).tolist(), strict=True):
        new[place : place + len(trap)] = stop if was in trim.stops else trap
    fields = file.relocated(section)
    _redirect(new, old, trim, np.sort(fields), knowledge)
    inside = np.flatnonzero((file.shndx == section) & (file.symbols["info"] & 15 != STT_SECTION))
    value = file.symbols["value"][inside].astype(np.int64)
    begin, end = trim.moved(value), trim.moved(value + file.symbols["size"][inside].astype(np.int64))
    return Trimmed(
        bytes(new),
        tuple(zip(inside.tolist(), begin.tolist(), (end - begin).tolist(), strict=True)),
        np.where(trim.is_cold(fields), -1, trim.moved(fields)),
    )


def _redirect(new: bytearray, old: bytes, trim: Trim, fields: Rows, knowledge: Knowledge) -> None:
    """Kept branches that the assembler resolved lead to where their targets are."""
    code = read_instructions(old, fields, knowledge)
    assert code is not None, "it was laid out"
    rows = np.flatnonzero((code.target >= 0) & ~trim.is_cold(code.start))
    ends = trim.moved(code.start[rows]) + code.size[rows]
    distances = trim.moved(code.target[rows]) - ends
    for end, distance, width in zip(
        ends.tolist(), distances.tolist(), code.operand[rows].tolist(), strict=True
    ):
        new[end - width : end] = distance.to_bytes(width, "little", signed=True)
