"""Prove branches, accounting and tombstones: what kept code, disassembled, can jump to, and what every
byte of executable memory is.

An operand that the linker filled in must lead into kept text or to a tombstone, exactly; one that the
assembler filled in cannot leave its section. A byte of an executable section of the image is a kept
unit's, a tombstone's, or fill between them.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from prune.verify.answers import REFUSE, STOP
from prune.verify.decode import UNKNOWN, Decoder
from prune.verify.elf import EXECUTABLE, Section
from prune.verify.entries import InstructionEnd
from prune.verify.model import TOMBSTONES, Check, Model, Tally
from prune.verify.read import Piece, Stone

Flags = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Listing:
    """One unit disassembled.

    ``filled_in`` are the addresses of its relocated fields, ``ends`` the ends of its instructions;
    ``branches`` and ``loads`` are (address, size, target) of those with a direct target and of those that
    form an address by counting from themselves. ``unknown`` counts what the disassembler does not know: it
    goes on a byte later, and what it reads until it is in step again is believed only where the linker
    filled it in.
    """

    filled_in: tuple[int, ...]
    ends: tuple[int, ...]
    branches: tuple[tuple[int, int, int], ...]
    loads: tuple[tuple[int, int, int], ...]
    unknown: int

    def end_of(self, address: int) -> int | None:
        index = bisect.bisect_right(self.ends, address)
        return self.ends[index] if index < len(self.ends) else None


def disassemble(model: Model) -> dict[Piece, Listing]:
    """All kept code, from vmlinux."""
    return {piece: _listing(model.decoder, model, piece) for piece in model.text.pieces}


def _listing(decoder: Decoder, model: Model, piece: Piece) -> Listing:
    ends, branches, loads, unknown, blind = [], [], [], 0, 0
    code = model.linked.read(piece.address, piece.size)
    fields = model.originals[piece.object, piece.section].fields
    filled_in = sorted(piece.address + relocation.offset for relocation in fields)
    for row in decoder.rows(code, piece.address):
        address, size, mnemonic, operands = row
        ends.append(address + size)
        if mnemonic == UNKNOWN:
            unknown, blind = unknown + (address >= blind), address + decoder.longest
        elif address < blind and not _holds(filled_in, address, size):
            continue
        elif (target := decoder.target(mnemonic, operands)) is not None:
            branches.append((address, size, target))
        elif (target := decoder.address(row)) is not None:
            loads.append((address, size, target))
    return Listing(tuple(filled_in), tuple(ends), tuple(branches), tuple(loads), unknown)


def instruction_end(listings: dict[Piece, Listing], piece: Piece) -> InstructionEnd:
    """Where the instruction that holds a field of ``piece`` ends; nowhere when it is no code."""
    listing = listings.get(piece)
    return listing.end_of if listing else lambda _: None


def check_branches(model: Model, listings: dict[Piece, Listing]) -> Check:
    """Where direct calls and jumps, and addresses formed relative to the instruction, lead to."""
    tally = Tally("branches")
    symbols = set(model.linked.symbols.values())
    for piece, listing in listings.items():
        for address, size, target in listing.branches:
            into = model.text.at(target)
            # An undefined weak function lies at zero; that it is one is proved with the references.
            if _holds(listing.filled_in, address, size):
                holds = into is not None or target in model.stone_at or target == 0
            else:
                holds = into == piece
            tally.expect(holds, _astray(model, piece, address, "branches to", target))
        for address, size, target in listing.loads:
            linked = _holds(listing.filled_in, address, size)
            holds = _is_something(model, target, symbols) if linked else model.text.at(target) == piece
            tally.expect(holds, _astray(model, piece, address, "takes the address", target))
    unknown = sum(listing.unknown for listing in listings.values())
    return tally.done(
        f"in {len(listings):,} units of kept code, with {unknown:,} instructions that capstone does not know"
    )


def _is_something(model: Model, address: int, symbols: set[int]) -> bool:
    """A kept unit, a tombstone, or what the script itself lays down: a symbol, or room in the data."""
    if model.memory.at(address) is not None or address in model.stone_at or address in symbols:
        return True
    output = model.linked.output_at(address)
    return output is not None and not output.flags & EXECUTABLE


def _astray(model: Model, piece: Piece, address: int, does: str, target: int) -> str:
    return f"{piece}+{address - piece.address:#x} {does} {target:#x}: {model.name_of(target)}"


def _holds(filled_in: Sequence[int], address: int, size: int) -> bool:
    index = bisect.bisect_left(filled_in, address)
    return index < len(filled_in) and filled_in[index] < address + size


def check_accounting(model: Model) -> Check:
    """Every byte of every executable section of the image."""
    tally = Tally("accounting")
    sums = dict.fromkeys(("kept units", "tombstones", "fill"), 0)
    for name, output in model.linked.outputs.items():
        if not output.flags & EXECUTABLE:
            continue
        owner = np.zeros(output.size, np.uint8)
        for piece in model.map.pieces:
            if piece.output == name and piece.size:
                start = piece.address - output.address
                tally.expect(not owner[start : start + piece.size].any(), f"{piece} overlaps its neighbour")
                tally.expect(_is_unit(model, piece), f"{piece} is in {name} and in no plan")
                owner[start : start + piece.size] = 1
        for stone in model.stones:
            start = stone.address - output.address
            if 0 <= start < output.size:
                width = model.judge.size(stone.of, stone.address)
                tally.expect(not owner[start : start + width].any(), f"{stone} lies over something else")
                owner[start : start + width] = 2
        filler = np.isin(np.frombuffer(output.content, np.uint8), model.facts["fill"])
        stray = _not_padding(
            model.decoder, output.content, owner == 0, np.flatnonzero((owner == 0) & ~filler)
        )
        tally.checked += output.size
        if len(stray):
            tally.find(f"{name}+{stray[0]:#x}: {len(stray):,} bytes are no unit, no tombstone and no fill")
        for number, what in enumerate(("fill", "kept units", "tombstones")):
            sums[what] += int((owner == number).sum())
    words = " + ".join(f"{number:,} {what}" for what, number in sums.items())
    return tally.done(f"{words} = {sum(sums.values()):,} executable bytes")


def _not_padding(decoder: Decoder, content: bytes, free: Flags, stray: Flags) -> Flags:
    """Those of the ``stray`` bytes that are not in a gap which holds instructions without effect alone: ld
    fills code with long ones."""
    done, left = -1, []
    for at in stray.tolist():
        if at <= done:
            continue
        begin = at - int(np.argmax(np.append(~free[at::-1], True))) + 1
        end = at + int(np.argmax(np.append(~free[at:], True)))
        if not decoder.is_idle(content[begin:end]):
            left += [place for place in stray.tolist() if begin <= place < end]
        done = end - 1
    return np.array(left, np.int64)


def _is_unit(model: Model, piece: Piece) -> bool:
    return bool(model.fates.get((piece.object, piece.section)))


def check_tombstones(model: Model) -> Check:
    """Tombstones are unique, trap, lie where they are said to, and answer to their names."""
    tally = Tally("tombstones")
    first, last = (model.linked.symbols.get(name, 0) for name in TOMBSTONES)
    home = model.linked.outputs.get(".text")
    inside = home is not None and home.address <= first <= last <= home.address + home.size
    if model.stones:
        tally.expect(inside, "the tombstones do not lie in .text")
    seen: dict[int, str] = {}
    sizes = {stone.address: model.judge.size(stone.of, stone.address) for stone in model.stones}
    for place, answer in model.judge.planned.items():
        unit = ":".join(place)
        tally.expect(model.fates.get(place) is False, f"something answers for {unit}, which was not dropped")
        if answer.on_miss == REFUSE:
            _check_refuser(model, tally, unit, answer.function)
    for stone in model.stones:
        address = stone.address
        tally.expect(address not in seen, f"{stone} has the address of {seen.get(address)}")
        seen[address] = str(stone)
        width = sizes[address]
        _check_body(model, tally, stone)
        among = first <= address <= last - width
        tally.expect(among, f"{stone} is at {address:#x}, not among the others")
        into = model.memory.at(address) or model.memory.at(address + width - 1)
        tally.expect(into is None, f"{stone} lies in {into}")
        tally.expect(model.fates.get(stone.of) is False, f"{stone} is for a unit that was not dropped")
        for name in stone.names:
            found = model.linked.symbols.get(name)
            where = "nowhere" if found is None else model.name_of(found)
            tally.expect(found == address, f"{name}, a name of {stone}, is at {where}")
    for one, other in pairwise(sorted(seen)):
        tally.expect(one + sizes[one] <= other, f"{seen[one]} reaches into that of {seen[other]}")
    used = sum(sizes[address] for address in seen)
    tally.expect(last - first == used, f"{used:,} bytes of tombstones fill {last - first:,} bytes")
    _check_overlaps(model, tally)
    planned = [model.judge.planned.get(stone.of) for stone in model.stones]
    stops = sum(each is not None and each.on_miss == STOP for each in planned)
    calls = sum(each is not None and each.on_miss == REFUSE for each in planned)
    answers = sum(each is not None for each in planned) - stops - calls
    said = [f"{stops:,} of them stop the machine"] if stops else []
    said += [f"{calls:,} of them refuse a system call"] if calls else []
    said += [f"{answers:,} of them answer by policy"] if answers else []
    return tally.done(", ".join(said))


def _check_refuser(model: Model, tally: Tally, unit: str, function: str) -> None:
    """Who answers for a system call was kept."""
    name = model.judge.refuser(function)
    path, symbol = model.chosen.get(name, ("", None))
    kept = symbol is not None and not model.resolve(path, symbol).dropped
    tally.expect(kept, f"nothing that was kept answers for {unit}, of {function}")


def _check_body(model: Model, tally: Tally, stone: Stone) -> None:
    """The trap, or exactly what the plan wants in its place."""
    planned = model.judge.planned.get(stone.of)
    if planned is None:
        held = model.linked.read(stone.address, len(model.trap))
        tally.expect(held == model.trap, f"{stone} holds no trap at {stone.address:#x}: {held.hex(' ')}")
    else:
        found = model.judge.at(stone.of, stone.address)
        tally.expect(not found.wrong, f"{stone}, of {planned.function}, {found.wrong}")
    value = planned.value if planned else ""
    tally.expect(stone.answer == value, f"{stone} is said to answer {stone.answer!r}, planned was {value!r}")
    call = planned is not None and planned.on_miss == REFUSE
    tally.expect(stone.call == call, f"{stone} is said to be {'' if stone.call else 'no '}system call's")


def _check_overlaps(model: Model, tally: Tally) -> None:
    """No kept unit lies over another; merging makes one copy of what several sections hold, so those do."""
    empty = Section("", 0, 0, 0, b"", ())
    pieces = [
        p for p in model.memory.pieces if not model.originals.get((p.object, p.section), empty).is_merged
    ]
    for one, other in pairwise(pieces):
        tally.expect(one.end <= other.address, f"{one} and {other} overlap")
