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


@dataclass(frozen=True)
class Locks:
    """Calls by name of the units ``source`` to the units ``target``, a row each, and whether a lock may be
    held there: one that ``source`` has taken (``own``), or one that it was entered with (``callers``); the
    same of locks that spin."""

    source: Rows
    target: Rows
    own: Rows
    callers: Rows
    own_spin: Rows
    callers_spin: Rows


def called_locked(locks: Locks, keep: Rows) -> Rows:
    """Mask of the units that code of the units ``keep`` may call while it holds a lock."""
    there = keep[locks.source]
    found = np.zeros(len(keep), bool)
    for own, callers in ((locks.own, locks.callers), (locks.own_spin, locks.callers_spin)):
        entered = np.zeros(len(keep), bool)
        entered[locks.target[there & own]] = True
        while True:
            more = locks.target[there & callers & entered[locks.source]]
            if entered[more].all():
                break
            entered[more] = True
        found |= entered
    return found


def find_stops(
    image: Image, keep: Rows, locked: Rows, policies: Sequence[Policy]
) -> dict[tuple[str, str], Answer]:
    """(object, section) -> what is dropped there and stops the machine when it is called.

    Args:
        locked: mask of the units that may be called under a lock (:func:`called_locked`).
        policies: what one of them wants to trap does so all the same.
    """
    found: dict[tuple[str, str], Answer] = {}
    for unit, functions in referred_to(image, keep, locked).items():
        place = image.objects[int(image.units["object"][unit])]
        said = (policy for policy in policies for name in functions if policy.names(name, place))
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
