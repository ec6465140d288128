"""Take an object apart as the plan says, from the object as the compiler made it, and on verify's own.

The pieces must cover their section without a gap. Every symbol and every relocation goes to the piece that it
lies in or points into; where an operand counts from the end of its instruction, the disassembler says where
that is. A branch from one piece into another, which the assembler had resolved, is a reference that must have
been made again.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from prune.verify.decode import Decoder
from prune.verify.elf import Field, Object, Section, Symbol
from tracer.host import UserError

#: (name, start, size), in order.
Part = tuple[str, int, int]
_FIRST = 1 << 20  # Indices of pieces, above those of any section.


@dataclass(frozen=True)
class _Layout:
    """One section's pieces: their first index, and where they start."""

    first: int
    parts: Sequence[Part]

    def at(self, offset: int) -> tuple[int, int]:
        """(index of the piece, offset in it); the section's end is the end of the last."""
        number = bisect.bisect_right([start for _, start, _ in self.parts], offset) - 1
        number = max(number, 0)
        return self.first + number, offset - self.parts[number][1]

    def symbol(self, index: int) -> Symbol:
        return Symbol("", 0, index, local=True, weak=False, is_section=True)


def take_apart(
    original: Object, pieces: Mapping[str, Sequence[Part]], pc_relative: Sequence[int], decoder: Decoder
) -> Object:
    """The object with the sections of ``pieces`` in pieces.

    Args:
        pc_relative: relocation types of operands that count from the end of their instruction.

    Raises:
        UserError: the pieces do not cover a section, or a branch between them cannot be redirected.
    """
    layouts: dict[int, _Layout] = {}
    for index, section in original.sections.items():
        parts = pieces.get(section.name)
        if parts:
            _check_cover(original, section, parts)
            layouts[index] = _Layout(_FIRST + sum(len(each.parts) for each in layouts.values()), parts)
    if not layouts:
        return original
    apart = _Apart(original, layouts, pc_relative, decoder)
    sections = {
        index: apart.redirected(section)
        for index, section in original.sections.items()
        if index not in layouts
    }
    for index, layout in layouts.items():
        sections |= apart.cut(original.sections[index], layout)
    empty = original.empty | {index: original.sections[index].name for index in layouts}
    return Object(original.path, sections, empty, tuple(map(apart.moved, original.symbols)))


def _check_cover(original: Object, section: Section, parts: Sequence[Part]) -> None:
    ends = [start + size for _, start, size in parts]
    starts = [start for _, start, _ in parts]
    if starts != [0, *ends[:-1]] or ends[-1] != section.size or min(size for _, _, size in parts) <= 0:
        raise UserError(
            f"verifying {original.path}: the plan's pieces do not cover {section.name}", "make the plan again"
        )


class _Apart:
    def __init__(
        self,
        original: Object,
        layouts: dict[int, _Layout],
        pc_relative: Sequence[int],
        decoder: Decoder,
    ) -> None:
        self.original, self.layouts, self.pc_relative = original, layouts, frozenset(pc_relative)
        self.decoder = decoder

    def moved(self, symbol: Symbol) -> Symbol:
        layout = self.layouts.get(symbol.section)
        if layout is None:
            return symbol
        index, value = layout.at(symbol.value)
        return replace(symbol, section=index, value=value)

    def redirected(self, section: Section) -> Section:
        """The section with references to what it refers to now."""
        return replace(section, fields=tuple(self._fields(section)))

    def _fields(self, section: Section) -> Iterator[Field]:
        ends: list[int] | None = None
        for field in section.fields:
            layout = self.layouts.get(field.symbol.section)
            if layout is None:
                yield field
                continue
            if not field.symbol.is_section:
                yield replace(field, symbol=self.moved(field.symbol))
                continue
            after = 0
            if section.is_code and field.type in self.pc_relative:
                ends = ends or [end for _, end, _ in self._instructions(section)]
                after = ends[min(bisect.bisect_right(ends, field.offset), len(ends) - 1)] - field.offset
            place = field.addend + after
            if not 0 <= place <= self.original.sections[field.symbol.section].size:
                raise UserError(
                    f"verifying {self.original.path}: {section.name}+{field.offset:#x} refers to "
                    f"{place:#x} of a section that was taken apart, which is of no piece",
                    "the section must stay whole: please report this",
                )
            index, offset = layout.at(place)
            yield replace(field, symbol=layout.symbol(index), addend=offset - after)

    def _instructions(self, section: Section) -> Iterator[tuple[int, int, int | None]]:
        """(begin, end, target of a direct branch) of each instruction."""
        for begin, size, mnemonic, operand in self.decoder.rows(section.content):
            yield begin, begin + size, self.decoder.target(mnemonic, operand)

    def _crossing(self, section: Section, layout: _Layout) -> Iterator[Field]:
        """The branches between pieces that have no relocation, as the references that they must be now."""
        covered = {field.offset for field in section.fields}
        for begin, end, target in self._instructions(section):
            if target is None or not 0 <= target < section.size:
                continue
            here, there = layout.at(begin)[0], layout.at(target)
            if here == there[0] or any(at in covered for at in range(begin, end)):
                continue
            if end - begin < 5:
                raise UserError(
                    f"verifying {self.original.path}: short branch {section.name}+{begin:#x} leaves a piece",
                    "the section must stay whole: please report this",
                )
            yield Field(end - 4, min(self.pc_relative), there[1] - 4, layout.symbol(there[0]))

    def cut(self, section: Section, layout: _Layout) -> dict[int, Section]:
        fields = [*self._fields(section), *self._crossing(section, layout)]
        made: dict[int, list[Field]] = {}
        for field in sorted(fields, key=lambda field: field.offset):
            index, offset = layout.at(field.offset)
            made.setdefault(index, []).append(replace(field, offset=offset))
        return {
            layout.first + number: replace(
                section,
                name=name, size=size, content=section.content[start : start + size],
                fields=tuple(made.get(layout.first + number, ())),
            )
            for number, (name, start, size) in enumerate(layout.parts)
        }  # fmt: skip
