"""Which dropped functions stop the machine when they are called: those whose callers may hold a lock.

A task that calls what is gone is killed, and what it holds stays locked: whoever wants a mutex of its, a
semaphore or a socket, waits for ever. So the machine stops there, at once and with the function's name. What
is called under a lock is under it as well, and so on, as far as calls by name lead: through pointers nobody
looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prune.elf import Rows, distinct
from prune.image import Image
from prune.plan_file import Answer
from prune.policy import STOP, TRAP, Policy

#: Which locks may be held at a place, as bits: one that the function has taken, one that it was entered with;
#: the same of locks that spin.
OWN, CALLERS, OWN_SPIN, CALLERS_SPIN = 1, 2, 4, 8


@dataclass(frozen=True)
class Locks:
    """Calls by name of the units ``source`` to the units ``target``, a row each, with what may be ``held``
    there. ``place``: ascending :func:`key` of the places at which that changes, to the ``state``; in other
    functions whatever they were entered with is held everywhere."""

    source: Rows
    target: Rows
    held: Rows
    place: Rows
    state: Rows

    def entered(self, keep: Rows) -> tuple[Rows, Rows]:
        """Masks of the units that code of the units ``keep`` may call while it holds a lock: one that sleeps,
        and one that spins."""
        there = keep[self.source]
        masks = []
        for own, callers in ((OWN, CALLERS), (OWN_SPIN, CALLERS_SPIN)):
            entered = np.zeros(len(keep), bool)
            entered[self.target[there & (self.held & own != 0)]] = True
            passes = there & (self.held & callers != 0)
            while True:
                more = self.target[passes & entered[self.source]]
                if entered[more].all():
                    break
                entered[more] = True
            masks.append(entered)
        return masks[0], masks[1]

    def held_at(self, entered: tuple[Rows, Rows], unit: int, offsets: Rows) -> Rows:
        """Mask of the places in a function at which a lock may be held.

        Args:
            entered: of :meth:`entered`.
        """
        state = at_place(self.place, self.state, np.full(len(offsets), unit), offsets)
        bits = OWN | OWN_SPIN
        for mask, callers in zip(entered, (CALLERS, CALLERS_SPIN), strict=True):
            bits |= callers if mask[unit] else 0
        found: Rows = state & bits != 0
        return found


def key(unit: int | Rows, offset: Rows) -> Rows:
    """What orders places of an image."""
    found: Rows = (np.asarray(unit, np.int64) << 32) + offset
    return found


def at_place(place: Rows, state: Rows, unit: Rows, offset: Rows) -> Rows:
    """The state at places: see :class:`Locks`."""
    found = np.full(len(unit), CALLERS | CALLERS_SPIN, np.uint8)
    row = np.searchsorted(place, key(unit, offset), "right") - 1
    known = row >= 0
    known[known] = place[row[known]] >> 32 == unit[known]
    found[known] = state[row[known]]
    return found


def find_stops(
    image: Image, keep: Rows, locked: Rows, policies: Sequence[Policy]
) -> dict[tuple[str, str], Answer]:
    """(object, section) -> what is dropped there and stops the machine when it is called.

    Args:
        locked: mask of the units that may be called under a lock (:meth:`Locks.entered`).
        policies: what one of them wants to trap does so all the same.
    """
    found: dict[tuple[str, str], Answer] = {}
    for unit, functions in referred_to(image, keep, locked).items():
        place = image.objects[int(image.units["object"][unit])]
        # Who speaks of types is heard where types are read (prune.answers); till then it is safe to stop.
        untyped = (policy for policy in policies if not policy.types)
        said = (policy for policy in untyped for name in functions if policy.names(name, place))
        first = next(said, None)
        if first is None or first.on_miss != TRAP:
            found[image.rows[unit][:2]] = Answer(functions[0], STOP, 0, "", "a lock may be held")
    return found


def referred_to(image: Image, keep: Rows, chosen: Rows | None = None) -> dict[int, list[str]]:
    """Dropped unit that something kept refers to, or of them those of the mask ``chosen`` -> the names of the
    function in it."""
    rows = image.relocations
    crosses = (rows["target"] >= 0) & keep[rows["unit"]] & ~keep[rows["target"]]
    targets = distinct(rows["target"][crosses])
    functions = image.units["function"] if chosen is None else image.units["function"] & chosen
    wanted = set(targets[functions[targets]].tolist())
    found: dict[int, list[str]] = {}
    for unit, offset, _, name in image.functions:
        if unit in wanted and offset == 0:
            found.setdefault(unit, []).append(name)
    return found
