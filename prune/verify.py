"""Prove a pruned kernel by reading it again.

1. *references*: every relocated field of every kept unit is computed again from the object as the
   compiler made it. A target that was kept must be reached where the map puts it, a target that was
   dropped at its own tombstone and nowhere else.
2. *tombstones*: addresses are unique, hold the trap, and are what their names resolve to; no kept
   unit overlaps another or a tombstone.
3. *tables*: no entry of a kernel table points at a tombstone or outside the text that was kept.
4. *bytes*: apart from relocated fields, every kept unit is what the compiler made.
5. *branches*: every direct branch and call, disassembled, lands in kept text or on a tombstone.
6. *accounting*: executable output sections are kept units, tombstones and fill, to the last byte.
"""

from __future__ import annotations

import bisect
import struct
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path
from typing import Any

import capstone
import numpy as np

from prune.verify_read import (
    EXECUTABLE,
    MERGE,
    NOBITS,
    STRINGS,
    Field,
    Linked,
    Object,
    Piece,
    Place,
    Section,
    Symbol,
    read_facts,
    read_fates,
    read_linked,
    read_original,
    read_pieces,
    read_stones,
)
from tracer.host import UserError, say

_SHOWN = 20
_FILL = frozenset(b"\xcc\x90\x00")
_BRANCHES = frozenset(("call", "jmp", "loop", "loope", "loopne", "jrcxz", "jecxz"))


@dataclass(frozen=True)
class Check:
    """One proof: how many things were looked at, and the first of what is wrong."""

    name: str
    ok: bool
    checked: int
    findings: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Verdict:
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}

    def __str__(self) -> str:
        lines = []
        for check in self.checks:
            note = f" ({check.note})" if check.note else ""
            lines.append(
                f"{'ok    ' if check.ok else 'BROKEN'} {check.name}: {check.checked:,} checked{note}"
            )
            lines += [f"         {finding}" for finding in check.findings]
        return "\n".join(lines)


@dataclass
class _Tally:
    """A check being made."""

    name: str
    checked: int = 0
    wrong: int = 0
    findings: list[str] = field(default_factory=list)
    note: str = ""

    def expect(self, holds: bool, finding: str) -> None:
        self.checked += 1
        if not holds:
            self.wrong += 1
            if len(self.findings) < _SHOWN:
                self.findings.append(finding)

    def done(self) -> Check:
        return Check(self.name, not self.wrong, self.checked, tuple(self.findings), self.note)


def verify_image(
    vmlinux: Path, link_map: Path, plan: Path, tombstones: Path, objtree: Path, arch: str
) -> Verdict:
    """Prove ``vmlinux`` against the objects in ``objtree``.

    Raises:
        UserError: a file is missing or damaged.
    """
    facts = read_facts(arch)
    proof = _Proof(
        read_linked(vmlinux), read_pieces(link_map), read_fates(plan), read_stones(tombstones), facts
    )
    names = dict.fromkeys(obj for obj, _ in proof.fates)
    say(f"verify: reading {len(names)} objects")
    objects = [read_original(objtree, name) for name in names]
    proof.define(objects)
    for original in objects:
        proof.object(original)
    say("verify: disassembling")
    return Verdict(
        (
            proof.references.done(), proof.check_tombstones(), proof.check_tables(objects),
            proof.bytes.done(), proof.check_branches(), proof.check_accounting(),
        )
    )  # fmt: skip


class _Proof:
    def __init__(
        self,
        linked: Linked,
        pieces: tuple[Piece, ...],
        fates: dict[Place, bool],
        stones: list[tuple[Place, int, tuple[str, ...]]],
        facts: dict[str, Any],
    ) -> None:
        self.linked, self.fates, self.stones, self.facts = linked, fates, stones, facts
        self.pieces = [piece for piece in pieces if piece.output in linked.sections]
        self.placed: dict[Place, Piece] = {}
        for piece in self.pieces:
            if piece.size or (piece.object, piece.section) not in self.placed:
                self.placed[piece.object, piece.section] = piece
        self.stone_of = {place: address for place, address, _ in stones}
        self.addresses = {address for _, address, _ in stones}
        self.kinds = {number: kind for kind, numbers in facts["relocations"].items() for number in numbers}
        self.references, self.bytes = _Tally("references"), _Tally("bytes")
        self.definition: dict[str, tuple[str, Symbol]] = {}
        self.mergeable: set[Place] = set()
        self.excepted = 0
        self.code: list[Piece] = []

    def define(self, objects: Iterable[Object]) -> None:
        """Which object's definition a global name means: the first strong one, else the first weak one."""
        for original in objects:
            for section in original.sections.values():
                if section.flags & MERGE:
                    self.mergeable.add((original.path, section.name))
            for symbol in original.definitions:
                known = self.definition.get(symbol.name)
                if known is None or (known[1].weak and not symbol.weak):
                    self.definition[symbol.name] = (original.path, symbol)

    def object(self, original: Object) -> None:
        """References and bytes of one object's kept sections."""
        for name, section in original.sections.items():
            piece = self.placed.get((original.path, name))
            kept = self.fates.get((original.path, name))
            label = f"{original.path}:{name}"
            if kept is False:
                self.references.expect(piece is None, f"{label} was dropped and is in the image")
            if kept and not section.flags & MERGE:
                self.references.expect(piece is not None, f"{label} was kept and is not in the image")
            if piece is None or name in original.shared or section.type == NOBITS:
                continue
            if section.flags & EXECUTABLE:
                self.code.append(piece)
            if self.table_of(name) or section.flags & MERGE:
                self.excepted += piece.size
                continue
            self.compare(original, section, piece, label)

    def table_of(self, section: str) -> dict[str, Any] | None:
        for table in self.facts["table"]:
            if fnmatchcase(section, table["section"]) or section == table.get("pair", {}).get("section"):
                found: dict[str, Any] = table
                return found
        return None

    def compare(self, original: Object, section: Section, piece: Piece, label: str) -> None:
        base, _, image = self.linked.sections[piece.output]
        start = piece.address - base
        now = np.frombuffer(image, np.uint8)[start : start + section.size]
        was = np.frombuffer(section.content, np.uint8)
        if len(now) != len(was):
            self.bytes.expect(False, f"{label} is not whole in the image")
            return
        same = now == was
        for symbol, width in self.facts["patched"].items():
            at = self.linked.symbols.get(symbol, 0) - piece.address
            if 0 <= at < section.size:
                same[at : at + width] = True
        for relocation in section.fields:
            width = self.width(relocation, label)
            # An access through the global offset table may have become a direct one (psABI B.2).
            relaxed = 2 if self.kinds[relocation.type] == "pc32" and relocation.type > 4 else 0
            same[max(relocation.offset - relaxed, 0) : relocation.offset + width] = True
            self.field(
                original, section, piece, relocation, now.tobytes()[relocation.offset :][:width], label
            )
        self.bytes.expect(
            bool(same.all()), f"{label}+{int(np.argmin(same)):#x} is not what the compiler made"
        )

    def width(self, relocation: Field, label: str) -> int:
        kind = self.kinds.get(relocation.type)
        if kind is None:
            raise UserError(
                f"verifying {label}: relocation type {relocation.type} is not described in linkerscripts/"
            )
        return {"abs64": 8, "pc64": 8, "none": 0}.get(kind, 4)

    def field(
        self, original: Object, section: Section, piece: Piece, relocation: Field, raw: bytes, label: str
    ) -> None:
        """One relocated field, computed again."""
        if not raw:
            return
        kind = self.kinds[relocation.type]
        value = struct.unpack("<Q" if len(raw) == 8 else "<I", raw)[0]
        place = piece.address + relocation.offset if kind.startswith("pc") else 0
        mask = (1 << 8 * len(raw)) - 1
        home = self.home(original.path, relocation.symbol)
        where = f"{label}+{relocation.offset:#x}"
        if home is not None and self.fates.get(home) is False:
            self.severed(home, kind, value + place, relocation, section, mask, where)
            return
        target = self.address(original.path, relocation.symbol)
        if target is None:
            found = self.merged(original, relocation, value + place & 0xFFFFFFFFFFFFFFFF, kind)
            if found is not None:
                self.references.expect(found, f"{where} does not reach its constant {relocation.symbol.name}")
            return
        expected = target + relocation.addend - place & mask
        self.references.expect(
            expected == value, f"{where} should reach {relocation.symbol.name or home} and does not"
        )

    def home(self, path: str, symbol: Symbol) -> Place | None:
        """The unit that a symbol means."""
        if symbol.local:
            return (path, symbol.section) if symbol.section else None
        owner = self.definition.get(symbol.name)
        return (owner[0], owner[1].section) if owner and owner[1].section else None

    def address(self, path: str, symbol: Symbol) -> int | None:
        """Where a symbol lies; None for one in a merged or discarded section."""
        if not symbol.local:
            # A weak name that nothing defines is 0.
            return self.linked.symbols.get(symbol.name, 0)
        piece = self.placed.get((path, symbol.section))
        if not symbol.section:
            return symbol.value
        if piece is None or (path, symbol.section) in self.mergeable:
            return None
        return piece.address + symbol.value

    def severed(
        self, home: Place, kind: str, reached: int, relocation: Field, section: Section, mask: int, where: str
    ) -> None:
        """A reference to a dropped unit must mean the first byte of its tombstone.

        In an instruction the field counts from its own end or, when an immediate follows, up to four
        bytes further; in data it counts from itself.
        """
        wanted = self.stone_of.get(home)
        symbol = relocation.symbol
        if not symbol.local:
            for redirect in self.facts.get("redirect", ()):
                answer = self.linked.symbols.get(redirect["to"])
                if fnmatchcase(symbol.name, redirect["pattern"]) and answer is not None:
                    wanted = answer
                    break
        distance = 0
        if kind == "pc32" and section.flags & EXECUTABLE:
            distance = relocation.addend if -8 <= relocation.addend <= -4 else -4
        self.references.expect(
            wanted is not None and reached & mask == wanted + distance & mask,
            f"{where} refers to dropped {home[0]}:{home[1]} past its tombstone",
        )

    def merged(self, original: Object, relocation: Field, reached: int, kind: str) -> bool | None:
        """Whether a reference into a merged section reaches the same constant; None: not loaded."""
        symbol = relocation.symbol
        source = original.sections.get(symbol.section)
        if source is None or (original.path, symbol.section) not in self.placed:
            return None
        at = symbol.value + (relocation.addend if symbol.is_section and not kind.startswith("pc") else 0)
        address = reached - (0 if symbol.is_section and not kind.startswith("pc") else relocation.addend)
        output = self.placed[original.path, symbol.section].output
        base, _, content = self.linked.sections[output]
        start = (address & 0xFFFFFFFF) - (base & 0xFFFFFFFF)
        if source.flags & STRINGS and source.entry_size == 1:
            wanted = source.content[at : source.content.find(b"\0", at) + 1]
        else:
            wanted = source.content[at : at + max(source.entry_size, 1)]
        return start >= 0 and content[start : start + len(wanted)] == wanted

    def check_tombstones(self) -> Check:
        tally = _Tally("tombstones")
        trap = bytes(self.facts["trap"])
        seen: dict[int, str] = {}
        # Merging makes one copy of what several sections hold, so those do overlap.
        ranges = sorted(
            (piece.address, piece.address + piece.size, f"{piece.object}:{piece.section}")
            for piece in self.pieces
            if piece.size and (piece.object, piece.section) not in self.mergeable
        )
        for (_, end, one), (start, _, other) in pairwise(ranges):
            tally.expect(end <= start, f"{one} and {other} overlap")
        starts = [start for start, _, _ in ranges]
        for place, address, names in self.stones:
            label = f"the tombstone of {place[0]}:{place[1]}"
            tally.expect(address not in seen, f"{label} has the address of {seen.get(address)}")
            seen[address] = label
            tally.expect(self.read(address, len(trap)) == trap, f"{label} holds no trap at {address:#x}")
            nearest = bisect.bisect_right(starts, address) - 1
            free = nearest < 0 or ranges[nearest][1] <= address
            tally.expect(free, f"{label} lies in a kept unit")
            tally.expect(self.fates.get(place) is False, f"{label} stands for a unit that was kept")
            for name in names:
                tally.expect(self.linked.symbols.get(name) == address, f"{label}: {name} is elsewhere")
        return tally.done()

    def read(self, address: int, size: int) -> bytes:
        for base, _, content in self.linked.sections.values():
            if base <= address < base + len(content):
                return content[address - base : address - base + size]
        return b""

    def kept_text(self) -> tuple[list[int], list[int]]:
        """Starts and ends of the kept executable units, sorted."""
        ranges = sorted((piece.address, piece.address + piece.size) for piece in self.code)
        return [start for start, _ in ranges], [end for _, end in ranges]

    def check_tables(self, objects: Iterable[Object]) -> Check:
        tally = _Tally("tables")
        starts, ends = self.kept_text()
        parts: dict[str, list[int]] = {}
        for original in objects:
            for name, section in original.sections.items():
                parts.setdefault(name, []).append(section.size)
        for table in self.facts["table"]:
            first, last = (self.linked.symbols.get(bound) for bound in table["bounds"])
            if first is None or last is None or first == last:
                continue
            sizes = [
                size for name, all_ in parts.items() if fnmatchcase(name, table["section"]) for size in all_
            ]
            self.table(tally, table, first, last, sizes, starts, ends)
        return tally.done()

    def table(
        self, tally: _Tally, table: dict[str, Any], first: int, last: int, sizes: list[int],
        starts: list[int], ends: list[int],
    ) -> None:  # fmt: skip
        """Every entry's owner must be kept text. The right entry size is the one that fits best."""
        content = self.read(first, last - first)
        best: list[tuple[int, int]] | None = None
        entries = [
            e for e in table["entry"] if (last - first) % e == 0 and not any(size % e for size in sizes)
        ]
        for entry in entries:
            wrong = []
            for at in range(0, len(content), entry):
                owner = self.owner(table, content, first, at)
                index = bisect.bisect_right(starts, owner) - 1
                # The end of a unit may be named: it closes the range before it.
                if owner in self.addresses or index < 0 or owner > ends[index]:
                    wrong.append((at // entry, owner))
            if best is None or len(wrong) < len(best):
                best = wrong
        name = table["section"]
        tally.expect(best is not None, f"{name} has no entry size of {table['entry']}")
        tally.checked += len(content) // (entries[0] if entries else 1)
        for number, owner in best or ():
            what = "a tombstone" if owner in self.addresses else "outside kept text"
            tally.expect(False, f"{name} entry {number} points {what} ({owner:#x})")

    @staticmethod
    def owner(table: dict[str, Any], content: bytes, first: int, at: int) -> int:
        at += table["owner"]
        if table["field"] == "abs64":
            return int.from_bytes(content[at : at + 8], "little")
        return first + at + int.from_bytes(content[at : at + 4], "little", signed=True) & 0xFFFFFFFFFFFFFFFF

    def check_branches(self) -> Check:
        """Disassemble kept code. Replacement code of alternatives is relative to where it is copied."""
        tally = _Tally("branches")
        starts, ends = self.kept_text()
        engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        engine.skipdata = True
        for piece in self.code:
            if piece.section == ".altinstr_replacement":
                continue
            base, _, content = self.linked.sections[piece.output]
            code = content[piece.address - base : piece.address - base + piece.size]
            for address, _, mnemonic, operands in engine.disasm_lite(code, piece.address):
                if not operands.startswith("0x") or not (mnemonic in _BRANCHES or mnemonic[0] == "j"):
                    continue
                target = int(operands, 16)
                index = bisect.bisect_right(starts, target) - 1
                lands = target in self.addresses or (index >= 0 and target < ends[index])
                tally.expect(
                    lands,
                    f"{piece.object}:{piece.section}+{address - piece.address:#x} branches to {target:#x}, "
                    "which is neither kept text nor a tombstone",
                )
        return tally.done()

    def check_accounting(self) -> Check:
        tally = _Tally("accounting")
        trap = len(self.facts["trap"])
        for name, (base, flags, content) in self.linked.sections.items():
            if not flags & EXECUTABLE:
                continue
            covered = np.zeros(len(content), bool)
            for piece in self.pieces:
                if piece.output == name:
                    covered[piece.address - base : piece.address - base + piece.size] = True
            for address in self.addresses:
                if base <= address < base + len(content):
                    covered[address - base : address - base + trap] = True
            fill = np.isin(np.frombuffer(content, np.uint8), list(_FILL))
            stray = np.flatnonzero(~covered & ~fill)
            where = f"{name}+{int(stray[0]) if len(stray) else 0:#x}"
            tally.expect(not len(stray), f"{where}: {len(stray)} bytes are no unit, no tombstone and no fill")
            tally.checked += len(content) - 1
        tally.note = f"{self.excepted:,} bytes of merged constants and kernel tables are proved by the others"
        return tally.done()
