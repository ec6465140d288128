"""What of a pruned kernel is not there, by address: tombstones, traps in functions, and what it frees.

An oops that fell into any of it is a miss. Of the addresses that it shows, those of tombstones count from the
first one, since kallsyms has no names for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune.plan.policy import panicked_for
from tracer.host import MISSHAPEN, UserError, read_json
from tracer.module_list import FOLDER
from tracer.oops import Entry, Oops, Place

SCHEMA = 5
#: Of the tombstones of modules, beside those modules (:mod:`prune.modules.link`).
MODULES_SCHEMA = 1
#: What an oops calls the place of a tombstone whose name is not in kallsyms: this, and how far behind it.
FIRST = "__kprune_tombstones_start"
#: What may be missed: a function, a block that was taken out of one, a function that was freed after boot.
TOMBSTONE, BLOCK, FREED = "tombstone", "block", "freed"
#: A trap has at most so many bytes, and code that follows tombstones begins so many behind them at most.
_TRAP = 16


@dataclass(frozen=True)
class Grave:
    """What an oops fell into. ``offset``: of the block in its function, -1 when all of that is gone."""

    kind: str
    function: str
    object: str
    section: str
    offset: int = -1


@dataclass(frozen=True)
class Graveyard:
    """The tombstones of one pruned kernel: address -> (function, object, section), and their range.

    ``freed``: (first, last address, function, object, section) of what is freed after boot. The traps within
    functions that lost cold blocks are among the stones; ``offsets``: for what place in the function each
    stands, ``trimmed``: the addresses of such functions by name. ``first``, ``end``: of tombstones proper.
    ``answers``: address -> the value that the function there returns now; ``calls``: those of them that are
    entries of system calls, for the others a policy said so; ``size``: bytes of all tombstones.
    ``modules``: (module, name of a tombstone in it) -> (function, object, section); only when the
    module has been loaded has it an address."""

    stones: dict[int, tuple[str, str, str]]
    names: dict[str, int]
    freed: tuple[tuple[int, int, str, str, str], ...] = ()
    offsets: dict[int, int] = field(default_factory=dict)
    trimmed: dict[str, list[int]] = field(default_factory=dict)
    first: int = 0
    end: int = 0
    answers: dict[int, str] = field(default_factory=dict)
    calls: frozenset[int] = frozenset()
    size: int = 0
    modules: dict[tuple[str, str], tuple[str, str, str]] = field(default_factory=dict)

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

    def is_of_another(self, oops: Oops) -> bool:
        """Whether an oops is on a tombstone of another link than this: there are more of them, or fewer."""
        place = oops.place
        if place is None or place.name != FIRST:
            return False
        return not (self.stones and 0 <= place.size - (self.end - self.first) < _TRAP)

    def stone_at(self, oops: Oops) -> int | None:
        """The address of the tombstone, or of the trap in a function, that an oops stands on."""
        place = oops.place
        if place is None or place.module or oops.own or self.is_of_another(oops):
            return None
        offset = place.offset - oops.behind
        if not place.name:
            address = offset - (oops.slide or 0)
            return address if address in self.stones else None
        for start in self.trimmed.get(place.name, ()):
            if start + offset in self.offsets:
                return start + offset
        if place.name == FIRST:
            return self.first + offset if self.first + offset in self.stones else None
        address = self.names.get(place.name, -1) + offset
        is_stone = offset <= 0 and place.size <= _TRAP and address in self.stones
        return address if is_stone else None

    def in_module(self, oops: Oops) -> tuple[str, str, str] | None:
        """The tombstone of a module, (function, object, section), that an oops stands on."""
        place = oops.place
        if place is None or oops.own or place.offset != oops.behind:
            return None
        return self.modules.get((place.module, place.name))

    def grave_of(self, oops: Oops) -> Grave | None:
        """What an oops fell into; None when it is no miss."""
        address = self.stone_at(oops)
        address = self._panicked_at(oops) if address is None else address
        if address is not None:
            offset = self.offsets.get(address, -1)
            return Grave(BLOCK if address in self.offsets else TOMBSTONE, *self.stones[address], offset)
        dead = self.in_module(oops)
        if dead:
            return Grave(TOMBSTONE, *dead)
        unit = self._freed_by(oops)
        return Grave(FREED, *unit) if unit else None

    def _panicked_at(self, oops: Oops) -> int | None:
        """The tombstone for which a policy made the machine panic, which says the name."""
        named = panicked_for(oops.panic)
        stones = (at for at, stone in self.stones.items() if stone[:2] == named and at not in self.offsets)
        return next(stones, None)

    def _freed_by(self, oops: Oops) -> tuple[str, str, str] | None:
        """What was asked for after it had been freed: it may not be executed (``fetched``), or the kernel has
        filled it with breakpoints. Without an address that fits, the name tells."""
        place = oops.place
        if oops.own or (oops.fetched is None and not oops.behind):
            return None
        at = oops.linked
        if oops.fetched is None and place and not place.name:
            at = place.offset - oops.behind - (oops.slide or 0)
        unit = self.freed_at(at)
        if unit is None and place and place.name:
            offset = place.offset - oops.behind
            named = (each for each in self.freed if each[2] == place.name)
            unit = next((each[2:] for each in named if 0 <= offset <= each[1] - each[0]), None)
        return unit

    def caller(self, oops: Oops, function: str) -> Entry | None:
        """Who called ``function``, in which an oops is: what of its call trace comes first that is neither
        that nor a tombstone, whose addresses are data. Who calls a tombstone has its return address on top of
        the stack, whatever the unwinder makes of that; within a function it knows better."""
        slide, trace = oops.slide or 0, list(oops.trace)
        if panicked_for(oops.panic):  # What shows the trace is in it, up to the tombstone.
            dead = (i for i, entry in enumerate(trace) if self._is_dead(entry.place, slide))
            trace = trace[next(dead, len(trace)) :]
        others = [entry for entry in trace if not self._is_dead(entry.place, slide)]
        others = [entry for entry in others if not function or entry.place.name != function]
        sure = [entry for entry in others if entry.sure] if self.trimmed.get(function) else []
        return next(iter(sure or others), None)

    def _is_dead(self, place: Place, slide: int) -> bool:
        if (place.module, place.name) in self.modules:
            return place.size <= _TRAP
        if place.name:
            # A function that stayed may have the name, as static ones have.
            return place.name == FIRST or (place.name in self.names and place.size <= _TRAP)
        return place.offset - slide in self.stones


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
        first = int(value["start"])
        end = max((int(row["address"]) + int(row["size"]) for row in value["tombstones"]), default=first)
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
        calls = frozenset(int(row["address"]) for row in value["tombstones"] if row["call"])
        size = sum(int(row["size"]) for row in value["tombstones"])
    except MISSHAPEN as error:
        raise UserError(f"reading the tombstones: {path}: {error!r}", "link again: kprune link") from error
    modules = _read_modules(path.parent / FOLDER / path.name)
    return Graveyard(stones, names, freed, offsets, trimmed, first, end, answers, calls, size, modules)


def _read_modules(path: Path) -> dict[tuple[str, str], tuple[str, str, str]]:
    """The tombstones of modules, where there are any."""
    if not path.is_file():
        return {}
    value: Any = read_json(path, "tombstones of modules", MODULES_SCHEMA)
    try:
        return {
            (str(module), str(name)): (str(row["symbol"]), str(row["object"]), str(row["section"]))
            for module, rows in value["modules"].items()
            for row in rows
            for name in row["names"]
        }
    except MISSHAPEN as error:
        raise UserError(f"reading the tombstones: {path}: {error!r}", "link again: kprune link") from error


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
