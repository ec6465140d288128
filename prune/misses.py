"""Which tombstones a run executed, and who called them.

QEMU logs a translated block only within the range of the tombstones, so every miss is seen by the VM
itself, in order, whatever the guest manages to print. The caller is what the oops shows first in its
call trace; the tombstone's fault leaves the instruction pointer on the tombstone, so the return address
is on top.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tracer.host import MISSHAPEN, UserError, read_json
from tracer.phase_names import BOOT, START

SCHEMA = 4
#: What an oops calls the place of a tombstone whose name is not in kallsyms: this, and how far behind it.
FIRST = "__kprune_tombstones_start"
#: Where an oops says that the processor was (arch/x86/kernel/dumpstack.c, show_ip()).
_AT = r"(?:RIP: [0-9a-f]{4}:|EIP: )"
_OOPS = re.compile(rf"{_AT}(?P<at>\S+)(?P<rest>.*?)(?={_AT}|\Z)", re.S)
_FETCH = re.compile(
    r"unable to handle page fault for address: (?P<address>[0-9a-f]+)\s[^#]*#PF: \w+ instruction fetch"
)
#: A place in an oops: a name and how far behind it, or an address.
_PLACE = re.compile(r"(?:(?P<name>[^+]+)\+)?0x(?P<number>[0-9a-f]{1,16})(?![0-9a-f])")
_BLOCK = re.compile(rb"^IN:[^\n]*\n0x([0-9a-f]+):", re.M)
_ENTRY = re.compile(r"^(?:\[[^\]]*\])? *(?:\? )?(?P<name>[\w.]+)\+0x[0-9a-f]+/0x(?P<size>[0-9a-f]+)$", re.M)


@dataclass(frozen=True)
class Graveyard:
    """The tombstones of one pruned kernel: address -> (function, object, section), and their range.

    ``freed``: (first, last address, function, object, section) of what is freed after boot. The traps within
    functions that lost cold blocks are among the stones; ``offsets``: for what place in the function each
    stands, ``trimmed``: the addresses of such functions by name. ``answers``: address -> the value that a
    policy makes the function there return; ``size``: bytes of all tombstones."""

    stones: dict[int, tuple[str, str, str]]
    names: dict[str, int]
    freed: tuple[tuple[int, int, str, str, str], ...] = ()
    offsets: dict[int, int] = field(default_factory=dict)
    trimmed: dict[str, list[int]] = field(default_factory=dict)
    answers: dict[int, str] = field(default_factory=dict)
    size: int = 0

    @property
    def range(self) -> tuple[int, int]:
        """(first address, length in bytes)."""
        if not self.stones:
            return 0, 0
        return min(self.stones), max(self.stones) - min(self.stones) + 1

    @property
    def freed_range(self) -> tuple[int, int]:
        """The same of what is freed; other code may lie between."""
        first = min(unit[0] for unit in self.freed)
        return first, max(unit[1] for unit in self.freed) - first + 1

    def freed_at(self, address: int) -> tuple[str, str, str] | None:
        """(function, object, section) of what is freed there."""
        return next((unit[2:] for unit in self.freed if unit[0] <= address <= unit[1]), None)


@dataclass(frozen=True)
class Miss:
    """One tombstone that was executed. ``caller`` is "" when the guest could not say; ``phase``: which app
    (or ``boot``, ``shutdown``) ran at that time; ``offset``: the cold block in it, -1 when all of it was
    dropped."""

    function: str
    object: str
    section: str
    caller: str
    phase: str = ""
    offset: int = -1

    def __str__(self) -> str:
        called = f"called by {self.caller}" if self.caller else "caller unknown: the guest printed no oops"
        block = f"+{self.offset:#x}" if self.offset >= 0 else ""
        return f"{self.function}{block} ({self.object}), {called}"


@dataclass(frozen=True)
class Answered:
    """A dropped function that was called, and returned the ``value`` that a policy gives it: what the user
    asked for, and no miss. ``phase``: as of a miss, when it was first called."""

    function: str
    object: str
    section: str
    value: str
    phase: str = ""

    def __str__(self) -> str:
        return f"{self.function} ({self.object}) returned {self.value}"


def read_graveyard(path: Path) -> Graveyard:
    """Read ``tombstones.json``.

    Raises:
        UserError: unreadable, or of another schema.
    """
    value: Any = read_json(path, "tombstones", SCHEMA)
    try:
        stones = {
            int(row["address"]): (str(row["symbol"]), str(row["object"]), str(row["section"]))
            for row in value["tombstones"]
        }
        offsets, trimmed = _read_traps(value["trimmed"], stones)
        names = {str(name): int(row["address"]) for row in value["tombstones"] for name in row["names"]}
        freed = tuple(
            (
                int(row["address"]), int(row["address"]) + int(row["size"]) - 1,
                str(row["symbol"]), str(row["object"]), str(row["section"]),
            )
            for row in value["freed"]
        )  # fmt: skip
        answers = {int(row["address"]): str(row["answer"]) for row in value["tombstones"] if row["answer"]}
        size = sum(int(row["size"]) for row in value["tombstones"])
    except MISSHAPEN as error:
        raise UserError(f"reading the tombstones: {path}: {error!r}", "link again: kprune link") from error
    return Graveyard(stones, names, freed, offsets, trimmed, answers, size)


def _read_traps(
    rows: list[dict[str, Any]], stones: dict[int, tuple[str, str, str]]
) -> tuple[dict[int, int], dict[str, list[int]]]:
    """(address -> place in its function, function -> addresses); every trap joins the ``stones``."""
    offsets: dict[int, int] = {}
    functions: dict[str, list[int]] = {}
    for row in rows:
        functions.setdefault(str(row["symbol"]), []).append(int(row["address"]))
        for now, was in row["traps"]:
            address = int(row["address"]) + int(now)
            stones[address] = (str(row["symbol"]), str(row["object"]), str(row["section"]))
            offsets[address] = int(was)
    return offsets, functions


def executed_blocks(log: bytes) -> tuple[tuple[int, int], ...]:
    """(first address, offset in the log) of the blocks in a QEMU ``-d in_asm`` log, in order."""
    return tuple((int(block[1], 16), block.start()) for block in _BLOCK.finditer(log))


def find_misses(
    graveyard: Graveyard,
    executed: Sequence[tuple[int, int]],
    console: str,
    phases: Sequence[tuple[int, str]] = (),
) -> tuple[Miss, ...]:
    """The misses of a run, first first.

    Args:
        executed: (address, offset in the log) of the translated blocks within the tombstones' range; where
            the phases have :data:`START`, of those of what is freed then, too.
        console: all that the guest printed.
        phases: (size of the log when it began, name) of each phase, in order.
    """
    callers = _callers(graveyard, console)
    first = {
        at: offset
        for at, offset in _first_executed(graveyard, executed).items()
        if at not in graveyard.answers
    }
    # A trap may be the end of a block that begins in kept code: then only the guest tells.
    end = executed[-1][1] if executed else 0
    for address in callers:
        first.setdefault(address, end)
    missed = [
        Miss(
            *graveyard.stones[address], callers.get(address, ""), _phase_at(offset, phases),
            graveyard.offsets.get(address, -1),
        )
        for address, offset in first.items()
    ]  # fmt: skip
    return (
        *missed,
        *_executed_freed(graveyard, executed, console, phases),
        *_freed_misses(graveyard, console, phases),
    )


def find_answered(
    graveyard: Graveyard, executed: Sequence[tuple[int, int]], phases: Sequence[tuple[int, str]] = ()
) -> tuple[Answered, ...]:
    """What policies answered for in a run, each function once; arguments as for :func:`find_misses`."""
    return tuple(
        Answered(*graveyard.stones[address], graveyard.answers[address], _phase_at(offset, phases))
        for address, offset in _first_executed(graveyard, executed).items() if address in graveyard.answers
    )  # fmt: skip


def _first_executed(graveyard: Graveyard, executed: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Address of a tombstone -> offset in the log of its first execution, in order."""
    first: dict[int, int] = {}
    for address, offset in executed:
        if address in graveyard.stones:
            first.setdefault(address, offset)
    return first


def _executed_freed(
    graveyard: Graveyard, executed: Sequence[tuple[int, int]], console: str, phases: Sequence[tuple[int, str]]
) -> list[Miss]:
    """What was executed after it had been freed, by a processor that does so: the first alone, as it goes on
    with whatever lies there then: int3, which the kernel has filled it with (x86), if it is still free."""
    freed_from = next((begin for begin, name in phases if name == START), None)
    for address, offset in executed:
        unit = graveyard.freed_at(address)
        if unit is not None and freed_from is not None and offset >= freed_from:
            oops = next((o for o in _OOPS.finditer(console) if o["at"].startswith(f"{unit[0]}+")), None)
            caller = _first_entry(oops["rest"], unit[0]) if oops else ""
            return [Miss(*unit, caller, _phase_at(offset, phases))]
    return []


def _freed_misses(graveyard: Graveyard, console: str, phases: Sequence[tuple[int, str]]) -> list[Miss]:
    """What was asked for after it had been freed: the processor may not execute what lies there now, and
    the kernel says so (arch/x86/mm/fault.c, ``show_fault_oops``). By then it has booted."""
    phase = phases[-1][1] if phases else ""
    phase = START if phase == BOOT else phase
    found: dict[tuple[str, str, str], Miss] = {}
    for fault in _FETCH.finditer(console):
        unit = graveyard.freed_at(int(fault["address"], 16))
        if unit is not None:
            found.setdefault(unit, Miss(*unit, _first_entry(console[fault.end() :], unit[0]), phase))
    return list(found.values())


def _first_entry(text: str, but: str) -> str:
    """The first function of the call trace that is not this one."""
    trace = text.partition("Call Trace:")[2]
    return next((entry["name"] for entry in _ENTRY.finditer(trace) if entry["name"] != but), "")


def _phase_at(offset: int, phases: Sequence[tuple[int, str]]) -> str:
    return next((name for begin, name in reversed(phases) if begin <= offset), "")


def _callers(graveyard: Graveyard, console: str) -> dict[int, str]:
    found: dict[int, str] = {}
    for oops in _OOPS.finditer(console):
        address = _address(graveyard, oops["at"])
        trace = oops["rest"].partition("Call Trace:")[2]
        entries = (e for e in _ENTRY.finditer(trace) if e["name"] not in graveyard.names)
        entry = next((e for e in entries if e["name"] != FIRST), None)
        if address is not None and entry is not None:
            found.setdefault(address, entry["name"])
    return found


def _address(graveyard: Graveyard, text: str) -> int | None:
    """``tcp_close+0x0/0x1``, :data:`FIRST` and an offset, or, without kallsyms, ``0xffffffff81...``: the
    address of a tombstone."""
    found = _PLACE.match(text)
    if not found:
        return graveyard.names.get(text.partition("+")[0])
    name, offset = found["name"] or "", int(found["number"], 16)
    if not name:
        return offset if offset in graveyard.stones else None
    for start in graveyard.trimmed.get(name, ()):
        if start + offset in graveyard.offsets:
            return start + offset
    if name == FIRST and graveyard.stones:
        address = min(graveyard.stones) + offset
        return address if address in graveyard.stones else None
    return graveyard.names.get(name)
