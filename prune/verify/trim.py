"""Take cold blocks out of an object as the plan says, from the object as the compiler made it, and on
verify's own; so that everything else is proved against what must be left.

Where the traps are is taken from ``tombstones.json`` as a claim: each must stand for the beginning of an
instruction that went, and wherever kept code or data may lead to such a one there must be a trap for it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from prune.verify.decode import Decoder
from prune.verify.elf import Field, Object, Section, Symbol
from prune.verify.read import Name, Trimmed
from tracer.host import UserError

_NEVER = 1 << 62


@dataclass
class Outcome:
    """What taking blocks out of the objects has shown. ``traps``: what was made up to stand for a place that
    went -> (the unit that it is in, the offset of its trap now or None); ``places``: (object, section,
    function) -> where in the section it began."""

    checked: int = 0
    findings: list[str] = field(default_factory=list)
    traps: dict[Name, tuple[Name, int | None]] = field(default_factory=dict)
    places: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def expect(self, holds: bool, finding: str) -> None:
        self.checked += 1
        if not holds:
            self.findings.append(finding)


@dataclass(frozen=True)
class _Instruction:
    begin: int
    end: int
    falls: bool
    target: int | None


class _Cut:
    """One section: what is left of it, and where things are now."""

    def __init__(
        self,
        original: Object,
        index: int,
        claim: Trimmed,
        facts: Mapping[str, Any],
        outcome: Outcome,
        decoder: Decoder,
    ) -> None:
        self.index, self.claim, self.outcome = index, claim, outcome
        self.trap = bytes(facts["trap"])
        self.stop = bytes(facts["answer"]["stop"])[: len(self.trap)]
        self.section = original.sections[index]
        self.label = f"{original.path}:{self.section.name}"
        bounds = [0, *(bound for cold in claim.cold for bound in cold), self.section.size]
        if bounds != sorted(bounds):
            raise UserError(
                f"verifying: the plan's cold blocks of {self.label} do not lie in it, in order",
                "make the plan again: kprune plan",
            )
        self.traps = {old: new for new, old in claim.traps}
        linked = sorted(each.offset for each in self.section.fields)
        self.code = [_unless(linked, each) for each in _instructions(decoder, self.section.content)]
        self.begins = [each.begin for each in self.code]
        self.starts: list[tuple[int, int, int]] = []  # (old begin, old end, new begin) of what is left
        at = new = 0
        for begin, end in [*claim.cold, (self.section.size, self.section.size)]:
            self.starts.append((at, begin, new))
            new += begin - at
            for old in sorted(old for old in self.traps if begin <= old < end):
                self.starts.append((old, old + 1, new))
                new += len(self.trap)
            at = end
        self.size = new
        self._keys = [begin for begin, _, _ in self.starts]
        self._check()

    def is_cold(self, offset: int) -> bool:
        row = bisect.bisect_right(self.claim.cold, (offset, _NEVER)) - 1
        return row >= 0 and offset < self.claim.cold[row][1]

    def moved(self, offset: int) -> int:
        """Where a place is now; of one that went, its trap or what follows."""
        row = bisect.bisect_right(self._keys, offset) - 1
        while row >= 0 and self.starts[row][0] == self.starts[row][1] and row + 1 < len(self.starts):
            if self.starts[row + 1][0] > offset:
                break
            row += 1
        begin, end, new = self.starts[row]
        if begin <= offset < end:
            return new + offset - begin
        return self.starts[row + 1][2] if row + 1 < len(self.starts) else self.size

    def _check(self) -> None:
        whole = set(self.begins) | {self.section.size}
        expect = self.outcome.expect
        for begin, end in self.claim.cold:
            fits = begin in whole and end in whole and 0 < begin < end
            expect(fits, f"{self.label}: cold {begin:#x} to {end:#x} is not whole instructions")
            room = len(self.trap) * sum(begin <= old < end for old in self.traps)
            expect(room <= end - begin, f"{self.label}: {room} bytes of traps for {begin:#x} to {end:#x}")
        for old, new in self.traps.items():
            expect(old in whole and self.is_cold(old), f"{self.label}+{old:#x} did not go, and has a trap")
            where = self.moved(old)
            expect(new == where, f"{self.label}: the trap for {old:#x} is at {where:#x}, not at {new:#x}")
        for one, other in zip(self.code, self.code[1:], strict=False):
            if self.is_cold(one.begin):
                continue
            for place in [
                *([other.begin] if one.falls else []),
                *([one.target] if one.target is not None else []),
            ]:
                trapped = not self.is_cold(place) or place in self.traps
                expect(trapped, f"{self.label}+{one.begin:#x} leads to cold {place:#x}, which has no trap")

    def content(self) -> bytes:
        """The section as it must be now, its relocated fields apart."""
        old, made = self.section.content, bytearray(self.size)
        for begin, end, new in self.starts:
            if begin not in self.traps:
                made[new : new + end - begin] = old[begin:end]
        for place in self.traps:
            new = self.moved(place)
            made[new : new + len(self.trap)] = self.stop if place in self.claim.stops else self.trap
        for each in self.code:
            if each.target is None or self.is_cold(each.begin):
                continue
            width = 4 if each.end - each.begin >= 5 else 1
            end = self.moved(each.begin) + each.end - each.begin
            distance = self.moved(each.target) - end
            if -(1 << 8 * width - 1) <= distance < 1 << 8 * width - 1:
                made[end - width : end] = distance.to_bytes(width, "little", signed=True)
            else:
                self.outcome.expect(
                    False, f"{self.label}+{each.begin:#x} cannot reach {each.target:#x} any more"
                )
        return bytes(made)


def take_out(
    original: Object,
    claims: Mapping[str, Trimmed],
    facts: Mapping[str, Any],
    outcome: Outcome,
    decoder: Decoder,
) -> Object:
    """The object without the cold blocks of these sections; what refers to a block that went refers to a
    section of its own name, which ``outcome.traps`` explains."""
    cuts = {
        index: _Cut(original, index, claims[section.name], facts, outcome, decoder)
        for index, section in original.sections.items()
        if section.name in claims
    }
    if not cuts:
        return original
    for symbol in original.symbols:
        if symbol.is_function and symbol.section in cuts:
            name = (original.path, original.sections[symbol.section].name, symbol.name)
            outcome.places[name] = symbol.value
    made = _Made(original, cuts, facts, outcome, decoder)
    sections = {index: made.section(index) for index in original.sections}
    symbols = tuple(map(made.symbol, original.symbols))
    return replace(original, sections={**sections, **made.gone}, symbols=symbols)


class _Made:
    def __init__(
        self,
        original: Object,
        cuts: dict[int, _Cut],
        facts: Mapping[str, Any],
        outcome: Outcome,
        decoder: Decoder,
    ) -> None:
        self.original, self.cuts, self.facts, self.outcome = original, cuts, facts, outcome
        self.decoder = decoder
        self.relative = frozenset(facts["relocations"]["pc32"])
        self.gone: dict[int, Section] = {}
        self.numbers: dict[Name, int] = {}

    def symbol(self, symbol: Symbol) -> Symbol:
        cut = self.cuts.get(symbol.section)
        return replace(symbol, value=cut.moved(symbol.value)) if cut else symbol

    def section(self, index: int) -> Section:
        section, cut = self.original.sections[index], self.cuts.get(index)
        code = list(_instructions(self.decoder, section.content)) if section.is_code else []
        ends = partial(_end_of, code) if section.is_code else None
        ranges = self._range_ends(section)
        fields = []
        for each in section.fields:
            if cut and cut.is_cold(each.offset):
                continue
            into = self.cuts.get(each.symbol.section)
            new = self._redirected(each, into, ends, ranges) if into else each
            fields.append(replace(new, offset=cut.moved(each.offset)) if cut else new)
        if cut is None:
            return replace(section, fields=tuple(fields))
        return replace(section, fields=tuple(fields), content=cut.content(), size=cut.size)

    def _redirected(self, each: Field, into: _Cut, ends: Any, ranges: Mapping[int, int]) -> Field:
        """A reference into a section that lost blocks."""
        after = ends(each.offset) if ends and each.type in self.relative else 0
        place = each.symbol.value + each.addend + after
        if each.offset in ranges:
            now, following = into.moved(place), into.moved(ranges[each.offset])
            if now == following and place < into.section.size:
                return self._to_gone(each, into, place, None)
        elif into.is_cold(place):
            return self._to_gone(each, into, place, into.traps.get(place))
        else:
            now = into.moved(place) if 0 <= place <= into.section.size else place
        symbol = self.symbol(each.symbol)
        return replace(each, symbol=symbol, addend=now - symbol.value - after)

    def _to_gone(self, each: Field, into: _Cut, place: int, trap: int | None) -> Field:
        name = (self.original.path, f"{into.section.name}+{place:#x}")
        number = self.numbers.setdefault(name, _NEVER + len(self.numbers))
        self.outcome.traps[name] = ((self.original.path, into.section.name), trap)
        self.gone[number] = Section(name[1], into.section.flags, 0, 0, b"", ())
        return replace(each, symbol=Symbol("", 0, number, local=True, weak=False, is_section=True), addend=0)

    def _range_ends(self, section: Section) -> dict[int, int]:
        """Of a table whose entries hold up to the next one: field -> the place where its range ends."""
        known = (row for row in self.facts["table"] if row.get("ranges"))
        if not any(fnmatchcase(section.name, row["section"]) for row in known):
            return {}
        by_code: dict[int, list[tuple[int, int]]] = {}
        for each in section.fields:
            by_code.setdefault(each.symbol.section, []).append((each.symbol.value + each.addend, each.offset))
        found: dict[int, int] = {}
        for index, rows in by_code.items():
            size = self.original.sections[index].size if index in self.original.sections else 0
            rows.sort()
            nexts = [*(place for place, _ in rows[1:]), size]
            found |= {at: following for (_, at), following in zip(rows, nexts, strict=True)}
        return found


def _unless(linked: list[int], each: _Instruction) -> _Instruction:
    """The instruction, without a target when the linker fills that in."""
    row = bisect.bisect_left(linked, each.begin)
    return replace(each, target=None) if row < len(linked) and linked[row] < each.end else each


def _end_of(code: list[_Instruction], offset: int) -> int:
    """Bytes from a field to the end of its instruction."""
    row = bisect.bisect_right([each.begin for each in code], offset) - 1
    return code[row].end - offset if row >= 0 else 4


def _instructions(decoder: Decoder, content: bytes) -> Iterator[_Instruction]:
    for begin, size, mnemonic, operand in decoder.rows(content):
        yield _Instruction(begin, begin + size, decoder.falls(mnemonic), decoder.target(mnemonic, operand))
