"""Which dropped functions stop the machine when they are called: those whose callers may hold a lock.

A task that calls what is gone is killed, and what it holds stays locked: whoever wants a mutex of its, a
semaphore or a socket, waits for ever. So the machine stops there, at once and with the function's name. What
is called under a lock is under it as well, and so on, as far as calls by name lead: through pointers nobody
looks.
"""

from __future__ import annotations

from collections.abc import Sequence

from prune.model.elf import Rows, distinct
from prune.model.image import Image
from prune.plan.plan_file import Answer
from prune.plan.policy import STOP, TRAP, Policy


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
        # Who speaks of types is heard where types are read (prune.plan.answers); till then it is safe to
        # stop.
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
