"""What verify proves against: where everything should lie, worked out from the objects, map and plan alone.

A symbol is resolved as ld does it: a global name means the first strong definition in the order of the
link, else the first weak one; a local one its own section. The unit behind it was kept, and lies where
the map says, or was dropped, and answers at its tombstone or at the symbol it is redirected to. What
no object defines is the linker script's, and lies where vmlinux has it.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

from prune.verify.answers import REFUSE, Judge
from prune.verify.decode import Decoder
from prune.verify.elf import (
    COMMON,
    CONSTANT,
    EXECUTABLE,
    NOWHERE,
    Linked,
    Object,
    Section,
    Symbol,
)
from prune.verify.lldmap import COMPILED
from prune.verify.read import (
    Fates,
    LinkMap,
    Name,
    Piece,
    Stone,
    relocation_kinds,
    relocation_widths,
)
from prune.verify.trim import Outcome
from tracer.host import UserError

_SHOWN = 20
#: The symbols around all tombstones.
TOMBSTONES = ("__kprune_tombstones_start", "__kprune_tombstones_end")


@dataclass(frozen=True)
class Check:
    """One proof: how many things were looked at, and the first of what is wrong, by name."""

    name: str
    ok: bool
    checked: int
    findings: tuple[str, ...]
    note: str = ""


@dataclass
class Tally:
    """A check being made."""

    name: str
    checked: int = 0
    wrong: int = 0
    findings: list[str] = field(default_factory=list)

    def expect(self, holds: bool, finding: str) -> None:
        self.checked += 1
        if not holds:
            self.find(finding)

    def find(self, finding: str) -> None:
        self.wrong += 1
        if len(self.findings) < _SHOWN:
            self.findings.append(finding)

    def done(self, note: str = "") -> Check:
        more = self.wrong - len(self.findings)
        shown = [*self.findings, *([f"and {more:,} more"] if more else [])]
        return Check(self.name, not self.wrong, self.checked, tuple(shown), note)


@dataclass(frozen=True)
class Target:
    """What a symbol means.

    ``label`` names it in a finding. A dropped one has the ``address`` of its tombstone, or None when it has
    none; a merged one has no address and is known by ``constant``, the section that held it.
    """

    label: str
    address: int | None
    dropped: bool = False
    constant: Section | None = None


class Ranges:
    """Pieces by address."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self.pieces = sorted((p for p in pieces if p.size), key=lambda piece: (piece.address, piece.end))
        self.starts = [piece.address for piece in self.pieces]

    def at(self, address: int) -> Piece | None:
        index = bisect.bisect_right(self.starts, address) - 1
        piece = self.pieces[index] if index >= 0 else None
        return piece if piece is not None and address < piece.end else None


class Model:
    """Everything read, and what follows from it. Nothing changes once it is made."""

    def __init__(
        self,
        linked: Linked,
        link_map: LinkMap,
        objects: dict[str, Object],
        fates: Fates,
        stones: tuple[Stone, ...],
        facts: dict[str, Any],
        outcome: Outcome,
        decoder: Decoder,
        judge: Judge,
    ) -> None:
        self.linked, self.map, self.objects = linked, link_map, objects
        self.fates, self.freed, self.cold, self.named = fates.kept, fates.freed, fates.cold, fates.named
        self.stones, self.facts, self.outcome, self.decoder = stones, facts, outcome, decoder
        self.judge = judge
        self.mask = (1 << 8 * linked.word) - 1
        self.trap = bytes(facts["trap"])
        self.stone_of = {stone.of: stone for stone in stones}
        self.stone_at = {stone.address: stone for stone in stones}
        self.kinds, self.widths = relocation_kinds(facts), relocation_widths(facts)
        self._known: dict[str, Target] = {}
        self._tables: dict[str, dict[str, Any] | None] = {}

    @cached_property
    def placed(self) -> dict[tuple[str, int], Piece]:
        """(object, section index) -> where it lies. Sections of one name keep their order in the map."""
        found: dict[Name, list[Piece]] = {}
        for piece in self.map.pieces:
            if piece.size:
                found.setdefault((piece.object, piece.section), []).append(piece)
        placed: dict[tuple[str, int], Piece] = {}
        for original in self.objects.values():
            named: dict[str, list[int]] = {}
            for index, section in original.sections.items():
                named.setdefault(section.name, []).append(index)
            for name, indices in named.items():
                pieces = found.get((original.path, name), [])
                if 0 < len(pieces) < len(indices):
                    # lld has no rows for what it merged.
                    indices = [i for i in indices if not original.sections[i].is_merged]
                if pieces and len(pieces) != len(indices) and len(indices) > 1:
                    raise UserError(
                        f"verifying {original.path}: {len(indices)} sections are called {name}, "
                        f"and {len(pieces)} of them are in the image: verify cannot tell which"
                    )
                placed |= {(original.path, i): p for i, p in zip(indices, pieces, strict=False)}
        return placed

    @cached_property
    def empty(self) -> dict[Name, int]:
        """Where sections without a byte lie."""
        return {(p.object, p.section): p.address for p in self.map.pieces if not p.size}

    @cached_property
    def originals(self) -> dict[Name, Section]:
        return {(o.path, s.name): s for o in self.objects.values() for s in o.sections.values()}

    @cached_property
    def memory(self) -> Ranges:
        """All that was kept."""
        return Ranges(self.map.pieces)

    @cached_property
    def text(self) -> Ranges:
        """Executable units that were kept; a piece that no object has is none."""
        empty = Section("", 0, 0, 0, b"", ())
        return Ranges(
            p for p in self.map.pieces if self.originals.get((p.object, p.section), empty).flags & EXECUTABLE
        )

    @cached_property
    def merged(self) -> Ranges:
        names = {name for name, section in self.originals.items() if section.is_merged}
        return Ranges(piece for piece in self.map.pieces if (piece.object, piece.section) in names)

    @cached_property
    def chosen(self) -> dict[str, tuple[str, Symbol]]:
        """Global name -> (object, definition) that the link chose."""
        found: dict[str, tuple[str, Symbol]] = {}
        order = {name: number for number, name in enumerate(self.map.order)}
        for path in sorted(self.objects, key=lambda path: order.get(path, len(order))):
            for symbol in self.objects[path].symbols:
                if symbol.local:
                    continue
                known = found.get(symbol.name)
                if known is None or (known[1].weak and not symbol.weak):
                    found[symbol.name] = (path, symbol)
        return {name: owner for name, owner in found.items() if not self._overruled(name, owner[1])}

    def _overruled(self, name: str, symbol: Symbol) -> bool:
        """Whether a weak definition gave way to one of bitcode, which only the linker has seen."""
        if not symbol.weak or name not in self.linked.symbols:
            return False
        piece = self.memory.at(self.linked.symbols[name])
        return piece is not None and piece.object == COMPILED

    def table_of(self, section: str) -> dict[str, Any] | None:
        """The kernel table, or the pair of one, that a section is a part of."""
        if section not in self._tables:
            self._tables[section] = next(
                (
                    table
                    for table in self.facts["table"]
                    if fnmatchcase(section, table["section"])
                    or section == table.get("pair", {}).get("section")
                ),
                None,
            )
        return self._tables[section]

    def is_generated(self, path: str) -> bool:
        """An object that kbuild makes from a finished vmlinux: no plan knows it."""
        patterns = self.facts["units"]["generated"]
        return any(fnmatchcase(path.rpartition("/")[2], pattern) for pattern in patterns)

    def resolve(self, path: str, symbol: Symbol) -> Target:
        """What ``symbol`` means in the object ``path``."""
        if symbol.local:
            return self._defined(path, symbol)
        if symbol.name not in self._known:
            self._known[symbol.name] = self._global(symbol)
        return self._known[symbol.name]

    def _global(self, symbol: Symbol) -> Target:
        owner = self.chosen.get(symbol.name)
        if owner is not None and owner[1].section != COMMON:
            return self._defined(*owner)
        address = self.linked.symbols.get(symbol.name)
        if address is None and symbol.weak:
            address = 0  # gABI: an undefined weak symbol has the value zero.
        return Target(symbol.name, address)

    def _defined(self, path: str, symbol: Symbol) -> Target:
        if symbol.section in (CONSTANT, NOWHERE):
            return Target(symbol.name or "0", symbol.value)
        section = self.objects[path].sections.get(symbol.section)
        if section is None:
            # Empty, like a static lock_class_key without lockdep; or not loaded.
            place = (path, self.objects[path].empty.get(symbol.section, f"section {symbol.section}"))
            lies = self.empty.get(place)
            return Target(":".join(place), None if lies is None else lies + symbol.value)
        label = f"{path}:{section.name}"
        if (path, section.name) in self.outcome.traps:
            return self._trapped((path, section.name))
        if self.fates.get((path, section.name)) is False:
            return self._dropped((path, section.name), label, symbol)
        piece = self.placed.get((path, symbol.section))
        if section.is_merged:
            return Target(label, None, constant=section)
        if piece is None:
            return Target(label, None)
        return Target(label, piece.address + symbol.value)

    def _dropped(self, unit: Name, label: str, symbol: Symbol) -> Target:
        planned = self.judge.planned.get(unit)
        if self.judge.shared and planned and planned.on_miss == REFUSE and not symbol.local:
            to = self.judge.refuser(planned.function)
            return Target(f"{label}, which {to} answers for", self.linked.symbols.get(to), dropped=True)
        stone = self.stone_of.get(unit)
        return Target(label, stone.address if stone else None, dropped=True)

    def _trapped(self, place: Name) -> Target:
        """A place that went with a cold block."""
        unit, offset = self.outcome.traps[place]
        piece = self.piece_of.get(unit)
        address = None if piece is None or offset is None else piece.address + offset
        return Target(":".join(place), address, dropped=True)

    @cached_property
    def piece_of(self) -> dict[Name, Piece]:
        return {(piece.object, piece.section): piece for piece in self.map.pieces if piece.size}

    def unit_of(self, path: str, symbol: Symbol) -> Name:
        """The unit that a symbol lies in; ("", name) for what no object has."""
        if not symbol.local:
            path, symbol = self.chosen.get(symbol.name, ("", symbol))
        section = self.objects[path].sections.get(symbol.section) if path else None
        return (path, section.name) if section else ("", symbol.name)

    def name_of(self, address: int) -> str:
        """What lies at an address, for a finding."""
        if address in self.stone_at:
            return str(self.stone_at[address])
        piece = self.memory.at(address)
        return f"{piece}+{address - piece.address:#x}" if piece else f"{address:#x}, where nothing was kept"
