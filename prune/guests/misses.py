"""Which tombstones a run executed, and who called them.

QEMU logs a translated block only within the range of the tombstones, so every miss is seen by the VM
itself, in order, whatever the guest manages to print. The caller is what the oops shows first in its
call trace; the tombstone's fault leaves the instruction pointer on the tombstone, so the return address
is on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prune.guests.graveyard import FREED, Graveyard
from tracer.oops import Oops, find_oopses
from tracer.phase_names import BOOT, START

#: Who calls a system call.
_PROGRAM = "a program"


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
    """A dropped function that was called, and returned a ``value``. For a policy, it is what the user asked
    for; of a system call (``call``) it is how programs learn what a kernel has, and most have another way. So
    it is no miss. ``phase``: as of a miss, when it was first called."""

    function: str
    object: str
    section: str
    value: str
    phase: str = ""
    call: bool = False

    def __str__(self) -> str:
        return f"{self.function} ({self.object}) returned {self.value}"


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
    reports = find_oopses(console)
    callers = _callers(graveyard, reports)
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
            *graveyard.stones[address], callers.get(address, ""), phase_at(offset, phases),
            graveyard.offsets.get(address, -1),
        )
        for address, offset in first.items()
    ]  # fmt: skip
    freed = _executed_freed(graveyard, executed, reports, phases)
    return (
        *missed,
        *_in_modules(graveyard, reports, phases),
        *(freed or _freed_misses(graveyard, reports, phases)),
    )


def find_answered(
    graveyard: Graveyard, executed: Sequence[tuple[int, int]], phases: Sequence[tuple[int, str]] = ()
) -> tuple[Answered, ...]:
    """What was called and is gone, and was answered for, in a run, each function once; arguments as for
    :func:`find_misses`."""
    return tuple(
        Answered(
            *graveyard.stones[address], graveyard.answers[address], phase_at(offset, phases),
            address in graveyard.calls,
        )
        for address, offset in _first_executed(graveyard, executed).items() if address in graveyard.answers
    )  # fmt: skip


def missed_calls(answered: Sequence[Answered]) -> tuple[Miss, ...]:
    """The system calls among ``answered`` as misses: maybe a run that missed nothing else failed for them."""
    return tuple(
        Miss(each.function, each.object, each.section, _PROGRAM, each.phase) for each in answered if each.call
    )


def _first_executed(graveyard: Graveyard, executed: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Address of a tombstone -> offset in the log of its first execution, in order."""
    first: dict[int, int] = {}
    for address, offset in executed:
        if address in graveyard.stones:
            first.setdefault(address, offset)
    return first


def _executed_freed(
    graveyard: Graveyard,
    executed: Sequence[tuple[int, int]],
    reports: Sequence[Oops],
    phases: Sequence[tuple[int, str]],
) -> list[Miss]:
    """What was executed after it had been freed, by a processor that does so: the first alone, as it goes on
    with whatever lies there then: int3, which the kernel has filled it with (x86), if it is still free."""
    freed_from = next((begin for begin, name in phases if name == START), None)
    for address, offset in executed:
        unit = graveyard.freed_at(address)
        if unit is not None and freed_from is not None and offset >= freed_from:
            oops = next((o for o in reports if o.place and o.place.name == unit[0]), None)
            caller = _caller(graveyard, oops, unit[0]) if oops else ""
            return [Miss(*unit, caller, phase_at(offset, phases))]
    return []


def _freed_misses(
    graveyard: Graveyard, reports: Sequence[Oops], phases: Sequence[tuple[int, str]]
) -> list[Miss]:
    """What was asked for after it had been freed, as the kernel says. By then it has booted."""
    phase = phases[-1][1] if phases else ""
    phase = START if phase == BOOT else phase
    found: dict[tuple[str, str, str], Miss] = {}
    for oops in reports:
        grave = graveyard.grave_of(oops)
        if grave and grave.kind == FREED:
            unit = grave.function, grave.object, grave.section
            found.setdefault(unit, Miss(*unit, _caller(graveyard, oops, unit[0]), phase))
    return list(found.values())


def _in_modules(
    graveyard: Graveyard, reports: Sequence[Oops], phases: Sequence[tuple[int, str]]
) -> list[Miss]:
    """The tombstones of modules that the guest reported: nobody else saw them, or knows where they lie."""
    phase = phases[-1][1] if phases else ""
    found: dict[tuple[str, str, str], Miss] = {}
    for oops in reports:
        dead = graveyard.in_module(oops)
        if dead:
            found.setdefault(dead, Miss(*dead, _caller(graveyard, oops, dead[0]), phase))
    return list(found.values())


def _caller(graveyard: Graveyard, oops: Oops, function: str) -> str:
    entry = graveyard.caller(oops, function)
    return entry.place.name if entry else ""


def phase_at(offset: int, phases: Sequence[tuple[int, str]]) -> str:
    """The phase in which the log had ``offset`` bytes, of (size of the log when it began, name) of each."""
    return next((name for begin, name in reversed(phases) if begin <= offset), "")


def _callers(graveyard: Graveyard, reports: Sequence[Oops]) -> dict[int, str]:
    """Tombstone -> its caller, of those that the guest reported."""
    found: dict[int, str] = {}
    for oops in reports:
        address = graveyard.stone_at(oops)
        if address is not None:
            caller = _caller(graveyard, oops, graveyard.stones[address][0])
            found[address] = found.get(address) or caller
    return found
