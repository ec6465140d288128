"""What chance decides: in some files it is time that says what runs, and no application.

A worker is created when the others are busy, a segment is sent again when its answer is late, a neighbour is
asked once more. A trace meets some of it, and boots the rest, one by one and round after round.
``closure.toml`` lists those files; what hot code of theirs calls in any of them stays, and what it hands on;
and what the data that it refers to holds, of the same object. With examples/micro that is 5.1% of the text
that stays; what those functions call in turn boots missed in some of the files alone (``deep``). What booting
did with devices may not be over with booting: of more files what it ran is not freed (``late``).
Where cold blocks go too, functions of those files keep theirs: the next late answer takes another branch, and
then others. With examples/micro all of it is 17% of the text that stays then. Without blocks that are more
than four branches from what ran it would be 2% less; boots on a busy host missed two that are further.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prune.model.callgraph import ADDRESS, CALL, DATA, TABLE, TAIL_CALL, CallGraph
from prune.model.elf import Rows
from prune.model.image import Image, matches
from prune.model.knowledge import Knowledge
from prune.model.origins import origins
from prune.plan.timers import may_go_off, with_jumps

WHY = "chance decides whether code that ran calls it"


def may_run(image: Image, graph: CallGraph, knowledge: Knowledge, ran: Rows, lasting: Rows) -> dict[int, str]:
    """Unit -> why it stays: what may happen by chance (:meth:`Chance.may_happen`), and what is handed on to
    be called later (:func:`prune.plan.timers.may_go_off`), by what ran or by what stays so itself: a busy
    host makes the watchdog of clocks schedule what no boot had needed (clocksource_watchdog_work).

    Args:
        ran, lasting: masks of what ran, and of what was seen to after boot.
    """
    files = Chance(image, graph, knowledge)
    reasons = later = may_go_off(image, graph, knowledge, ran, lasting)
    asks, goes_on, known = ran.copy(), lasting.copy(), -1
    while len(reasons) > known:
        known = len(reasons)
        # On a busy host, what was handed on in boot and ran then may have to wait until booting is over.
        goes_on[list(later)] = True
        happens = files.may_happen(ran, goes_on)
        asks |= happens
        later = may_go_off(image, graph, knowledge, asks, lasting)
        reasons = {**dict.fromkeys(np.flatnonzero(happens).tolist(), WHY), **later, **reasons}
    return reasons


class Chance:
    """The files in which time says what runs, and what refers to what in them."""

    def __init__(self, image: Image, graph: CallGraph, knowledge: Knowledge) -> None:
        known = knowledge.closure["chance"]
        self._image = image
        self._decides = _Edges(image, graph, known["files"])
        self._late = _Edges(image, graph, [*known["files"], *known["late"]])
        self._devices = origins(image, known["late"]) >= 0
        self._not_again = (origins(image, known["early"]) >= 0) | image.units["init"]
        self._registered = _registered(image, graph, known["registered"])
        calls = np.isin(graph.kind, (CALL, TAIL_CALL))
        self._caller, self._callee = graph.source[calls], graph.target[calls]
        self._deep = origins(image, known["deep"]) >= 0
        self._listed = list(_listed(image, knowledge))

    def may_happen(self, ran: Rows, lasting: Rows) -> Rows:
        """Mask of what a unit of the mask ``ran`` may call by chance, and of what of that was seen in boot
        alone, but may be called later by one that runs after it (``lasting``: it was seen to, or code hands
        it on for later). With link-time optimisation nobody knows what is from those files, and nothing
        stays."""
        listed = np.zeros(len(ran), bool)
        for each in self._listed:
            listed[each.functions[np.isin(each.wants, each.files[ran])]] = True
        once_more = ran & ~self._not_again
        again = self._again(lasting | listed | (self._registered & once_more), once_more)
        by_chance, step = self._decides.by_chance, self._decides.step
        found = (by_chance(ran) & ~ran) | by_chance(lasting) | (again & ~lasting)
        # Somebody else's lock is waited for on one way to its end, and what was lost is sent again on one.
        while (more := step(found & self._deep, CALL, TAIL_CALL) & ~found & ~ran).any():
            found |= more
        # What of it hands a function on, needs that (__wait_rcu_gp, wakeme_after_rcu).
        found |= step(found, ADDRESS) & self._image.units["function"] & ~ran
        return found

    def _again(self, lasting: Rows, ran: Rows) -> Rows:
        """The mask ``lasting`` with what of the mask ``ran`` may run once more: what goes on after boot and
        called something in boot may come to it again, and to what that called; from devices, in any file."""
        again = lasting.copy()
        while True:
            called = self._called_by(again & self._devices) & ran
            while (more := self._called_by(called) & ran & ~called).any():
                called |= more
            more = (self._late.by_chance(again) | called) & ran & ~again
            if not more.any():
                return again
            again |= more

    def _called_by(self, start: Rows) -> Rows:
        found = np.zeros(len(start), bool)
        found[self._callee[start[self._caller]]] = True
        return found


class _Edges:
    """What refers to what among the units of some files."""

    def __init__(self, image: Image, graph: CallGraph, files: Sequence[str]) -> None:
        origin = origins(image, files)
        own, init = origin >= 0, image.units["init"]
        # Init code calls by chance, too (tsc_init); what it registers is for others to ask for.
        asks = ~init[graph.source] | np.isin(graph.kind, (CALL, TAIL_CALL))
        edges = own[graph.source] & own[graph.target] & asks & ~init[graph.target]
        source, target, kind = graph.source[edges], graph.target[edges], graph.kind[edges]
        # What data of another file holds is that file's business; but its data may hold what others have.
        apart = origin[source] != origin[target]
        holds = image.units["data"][source] & np.isin(kind, (ADDRESS, TABLE))
        hands = image.units["function"][source] & np.isin(kind, (CALL, TAIL_CALL, ADDRESS))
        edges = ~apart | holds | hands
        self._source, self._target, self._kind = source[edges], target[edges], kind[edges]
        self._image, self._graph = image, graph

    def by_chance(self, start: Rows) -> Rows:
        """Mask of the functions that those of the mask ``start`` call, hand on, or have in their tables."""
        # What is hardly more than a jump is a way to what it jumps to (__mutex_lock_slowpath).
        ways = with_jumps(self._image, self._graph, start)
        called = self.step(ways, CALL, TAIL_CALL) | self.step(start, ADDRESS)
        held = self.step(self.step(start, DATA), ADDRESS, TABLE)
        found: Rows = (called | held) & self._image.units["function"] & ~start
        return found

    def step(self, start: Rows, *kinds: int) -> Rows:
        """Mask of what the units of the mask ``start`` refer to in one of these ways."""
        found = np.zeros(len(self._image.units), bool)
        found[self._target[start[self._source] & np.isin(self._kind, kinds)]] = True
        return found


def _registered(image: Image, graph: CallGraph, files: Sequence[str]) -> Rows:
    """Mask of what data and init code of the files refer to by address."""
    names = (origins(image, files) >= 0) & (image.units["data"] | image.units["init"])
    found = np.zeros(len(names), bool)
    found[graph.target[names[graph.source] & np.isin(graph.kind, (ADDRESS, TABLE))]] = True
    return found


class Listed(NamedTuple):
    """Functions that are listed by name: each stays where something of the file ran whose number it
    ``wants``; ``files``: for each unit the number of its file, below 0 for those of no file that is meant."""

    functions: Rows
    wants: Rows
    files: Rows


def _listed(image: Image, knowledge: Knowledge) -> Iterator[Listed]:
    by_name: dict[str, list[int]] = {}
    for unit, _, _, name in image.functions:
        # Static ones have no name for the linker, and compilers add to it (.isra.0).
        by_name.setdefault(name.partition(".")[0], []).append(unit)
    known = knowledge.closure["chance"]
    for file, names in known["called"].items():
        files = origins(image, [file])
        units = _named(by_name, names)
        units = units[files[units] >= 0]
        yield Listed(units, files[units], files)
    for entry in known["beside"]:
        units = _named(by_name, entry["functions"])
        units = units[origins(image, [entry["file"]])[units] >= 0]
        files = np.where(origins(image, [entry["ran"]]) >= 0, 0, -1)
        yield Listed(units, np.zeros(len(units), np.int64), files)


def _named(by_name: Mapping[str, Sequence[int]], patterns: Sequence[str]) -> Rows:
    """The units of the functions that have one of the names, or one that a pattern with a ``*`` matches."""
    names = {
        name
        for pattern in patterns
        for name in (fnmatch.filter(by_name, pattern) if "*" in pattern else (pattern,))
    }
    units: Rows = np.array(sorted({unit for name in names for unit in by_name.get(name, ())}), np.int64)
    return units


def decides_in(image: Image, graph: CallGraph, knowledge: Knowledge) -> Rows:
    """Mask of the functions of the files where time says which blocks run: also in boot, which calibrates
    clocks; of those that are listed by name; and of those that ask whether a lock is free."""
    known = knowledge.closure["chance"]
    own = origins(image, [*known["files"], *known["blocks"]]) >= 0
    for each in _listed(image, knowledge):
        own[each.functions] = True
    asked = [unit for unit, _, _, name in image.functions if matches(name.partition(".")[0], known["tries"])]
    asks = np.isin(graph.target, asked) & np.isin(graph.kind, (CALL, TAIL_CALL))
    own[graph.source[asks]] = True
    found: Rows = own & image.units["function"]
    return found
