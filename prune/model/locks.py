"""Which calls of an image are made under a lock, as rows: what is known of that
(:mod:`prune.model.lock_calls`) is stored with the image, and asked when it is known what stays
(:mod:`prune.plan.stops`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune.model.elf import Rows

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

    def entered(self, keep: Rows, through: Rows | None = None) -> tuple[Rows, Rows]:
        """Masks of the units that code of the units ``keep`` may call while it holds a lock: one that sleeps,
        and one that spins.

        Args:
            through: mask of those that are called through pointers under a lock that sleeps.
        """
        there = keep[self.source]
        masks = []
        for own, callers, begun in ((OWN, CALLERS, through), (OWN_SPIN, CALLERS_SPIN, None)):
            entered = np.zeros(len(keep), bool) if begun is None else begun.copy()
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
