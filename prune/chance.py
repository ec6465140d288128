"""What chance decides: in some files it is time that says what runs, and no application.

A worker is created when the others are busy, a segment is sent again when its answer is late, a neighbour is
asked once more. A trace meets some of it, and boots the rest, one by one and round after round.
``closure.toml`` lists those files; what hot code of theirs calls in any of them stays, and what it hands on;
and what the data that it refers to holds, of the same object. With examples/micro that is 4.7% of the text
that stays; what those functions call in turn boots missed in some of the files alone (``deep``).
Where cold blocks go too, functions of those files keep theirs: the next late answer takes another branch, and
then others. With examples/micro all of it is 14% of the text that stays then. Without blocks that are more
than four branches from what ran it would be 2% less; boots on a busy host missed two that are further.
"""

from __future__ import annotations

import numpy as np

from prune.callgraph import ADDRESS, CALL, DATA, TABLE, TAIL_CALL, CallGraph
from prune.elf import Rows
from prune.image import Image
from prune.knowledge import Knowledge
from prune.origins import origins
from prune.plan import SMALL
from prune.timers import may_go_off

WHY = "chance decides whether code that ran calls it"


def may_run(image: Image, graph: CallGraph, knowledge: Knowledge, ran: Rows, lasting: Rows) -> dict[int, str]:
    """Unit -> why it stays: what :func:`may_happen` keeps, and what is handed on to be called later
    (:func:`prune.timers.may_go_off`), by what ran or by what stays so itself: a busy host makes the watchdog
    of clocks schedule what no boot had needed (clocksource_watchdog_work)."""
    reasons = later = may_go_off(image, graph, knowledge, ran, lasting)
    asks, goes_on, known = ran.copy(), lasting.copy(), -1
    while len(reasons) > known:
        known = len(reasons)
        # On a busy host, what was handed on in boot and ran then may have to wait until booting is over.
        goes_on[list(later)] = True
        chance = may_happen(image, graph, knowledge, ran, goes_on)
        asks[list(chance)] = True
        later = may_go_off(image, graph, knowledge, asks, lasting)
        reasons = {**chance, **later, **reasons}
    return reasons


def may_happen(
    image: Image, graph: CallGraph, knowledge: Knowledge, ran: Rows, lasting: Rows
) -> dict[int, str]:
    """Unit -> why it stays: what a unit of the mask ``ran`` may call by chance, and what of that was seen in
    boot alone, but may be called later by one that runs after it (``lasting``: it was seen to, or code hands
    it on for later). With link-time optimisation nobody knows what is from those files, and nothing stays."""
    origin = origins(image, knowledge.closure["chance"]["files"])
    own = (origin >= 0) & ~image.units["init"]
    small = image.units["function"] & (image.units["size"] <= SMALL)
    edges = own[graph.source] & own[graph.target]
    source, target, kind = graph.source[edges], graph.target[edges], graph.kind[edges]
    # What data of another file holds is that file's business; but its data may hold what others have.
    apart = origin[source] != origin[target]
    holds = image.units["data"][source] & np.isin(kind, (ADDRESS, TABLE))
    edges = ~apart | holds | (image.units["function"][source] & np.isin(kind, (CALL, TAIL_CALL, ADDRESS)))
    source, target, kind = source[edges], target[edges], kind[edges]

    def step(start: Rows, *kinds: int) -> Rows:
        found = np.zeros(len(image.units), bool)
        found[target[start[source] & np.isin(kind, kinds)]] = True
        return found

    def by_chance(start: Rows) -> Rows:
        # What is hardly more than a jump is a way to what it jumps to (__mutex_lock_slowpath).
        ways = start | (step(start, CALL, TAIL_CALL) & small)
        called = step(ways, CALL, TAIL_CALL) | step(start, ADDRESS)
        held = step(step(start, DATA), ADDRESS, TABLE)
        found: Rows = (called | held) & image.units["function"] & ~start
        return found

    # What goes on after boot and called something in boot may come to it again, and to what that called.
    again = lasting.copy()
    while (more := by_chance(again) & ran & ~again).any():
        again |= more
    found = (by_chance(ran) & ~ran) | by_chance(lasting) | (again & ~lasting)
    # Somebody else's lock is waited for on one way to its end, and what was lost is sent again on one.
    deep = origins(image, knowledge.closure["chance"]["deep"]) >= 0
    while (more := step(found & deep, CALL, TAIL_CALL) & ~found & ~ran).any():
        found |= more
    # What of it hands a function on, needs that (__wait_rcu_gp, wakeme_after_rcu).
    found |= step(found, ADDRESS) & image.units["function"] & ~ran
    found[_called(image, knowledge, lasting)] = True
    return dict.fromkeys(np.flatnonzero(found).tolist(), WHY)


def _called(image: Image, knowledge: Knowledge, lasting: Rows) -> Rows:
    """The functions of ``called`` of whose files a unit of the mask ``lasting`` is."""
    known = knowledge.closure["chance"]["called"]
    origin = origins(image, list(known))
    units = image.defining([name for names in known.values() for name in names])
    found: Rows = units[(origin[units] >= 0) & np.isin(origin[units], origin[lasting])]
    return found


def decides_in(image: Image, knowledge: Knowledge) -> Rows:
    """Mask of the functions of the files where time says which blocks run: also in boot, which calibrates
    clocks."""
    known = knowledge.closure["chance"]
    own = origins(image, [*known["files"], *known["blocks"]]) >= 0
    found: Rows = own & image.units["function"]
    return found
