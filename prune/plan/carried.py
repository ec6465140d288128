"""What a profile of another build leaves open about this one: kept, not guessed.

Compilers do not inline the same. A function of this build may have run in the other one within its caller,
where nobody saw it by name. That is so when code that ran refers to it here, and

    there is no such function in the other build: it was in its callers throughout, or
    there is one, which never ran by itself, but the caller did not refer to it there; or not as often,
    and both were in one object.

If the caller does refer to it there, and it never ran, it was not needed. The same holds if the caller refers
there to another function, which this build has put into the caller, and which refers to it; but not if it
refers there to a part that was split off (``.part.0``): the beginning is in the caller. What may have run is
kept, and what that refers to is judged in the same way, as part of the same caller.

A function without a counterpart may be reached through data too, such as a table of operations: of two that
are the same, the other compiler has left one. Whoever refers to such data may call it.

Where the profile does not say what the functions of its build refer to, whatever hot code calls is kept.

What may have run after boot within its caller is found in the same way: by itself it ran in boot alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np

from prune.model.callgraph import CALL, TAIL_CALL
from prune.model.elf import Rows
from prune.model.functions import Functions
from prune.plan.classes import Together, classify, copies_of, edges_by_source, together
from prune.plan.references import direct_edges
from tracer.phase_names import BOOT
from tracer.profiles.phases import phases
from tracer.profiles.profile import FunctionRecord, Profile
from tracer.profiles.references import References

ABSENT = "carried: not a function of the build that was profiled, and code that ran refers to it"
WITHIN = "carried: may have run within its caller in the build that was profiled"
CALLED = "carried: called by code that ran, and the profile does not say what that referred to"
LATE = "carried: may have run after boot within its caller in the build that was profiled"
#: Functions that are put into one another, at most.
_DEPTH = 3
#: More references than there are.
_ANY = 1 << 30


def uncertain(profile: Profile, functions: Functions, lists: Iterable[int]) -> dict[int, str]:
    """Unit -> why it may have run, of function units that the profile does not know to have run; and of those
    that it knows to have run in boot, why that may not have been all.

    Args:
        profile: as the other build's run left it, not in terms of this one.
        lists: units of the lists of functions that booting calls.
    """
    reasoner = _Reasoner(profile, functions)
    ran = reasoner.ran(profile.functions)
    late = reasoner.ran(record for record in profile.functions if phases(record) != {BOOT})
    found = list(reasoner.may_have_run(ran, lists))
    found += [(LATE, reached & reasoner.here(ran)) for _, reached in reasoner.may_have_run(late, ())]
    reasons: dict[int, str] = {}
    droppable = functions.image.units["function"]
    for why, reached in found:
        for unit in np.unique(functions.of_unit[reached]).tolist():
            if droppable[unit]:
                reasons.setdefault(unit, why)
    return reasons


class _Reasoner:
    """Both builds by classes. Sets of classes and vertices are masks; pairs are one number each."""

    def __init__(self, profile: Profile, functions: Functions) -> None:
        self.functions = functions
        self.references = profile.references
        self.classes = classify(functions, profile.references or References((), ()), profile.objects)
        self.source, self.target, self.times = direct_edges(functions)

    def ran(self, functions: Iterable[FunctionRecord]) -> Rows:
        """Mask of the classes of these functions of the other build."""
        mask = np.zeros(len(self.classes), bool)
        of, key = self.classes.of, self.classes.counterparts.key
        found = (of.get(key(function.object, function.symbol), -1) for function in functions)
        mask[[number for number in found if number >= 0]] = True
        return mask

    def here(self, classes: Rows) -> Rows:
        """Mask of this build's vertices in the classes of a mask."""
        mask: Rows = np.append(classes, False)[self.classes.here]
        return mask

    def may_have_run(self, ran: Rows, lists: Iterable[int]) -> Iterable[tuple[str, Rows]]:
        """(reason, vertices that may have run besides those of the classes ``ran``)."""
        hot = self.here(ran)
        if self.references is None:
            yield CALLED, self._called(hot)
            return
        within = self._within(ran)
        start = hot | within | self.functions.mask(lists)
        absent = self.functions.graph.reach(start, self._into_absent()) & self.functions.is_code & self.absent
        absent &= ~hot
        # What those call that came by way of data: in the other build nobody was there to refer to it.
        beyond = np.zeros_like(hot)
        beyond[self.target[(absent & ~within)[self.source]]] = True
        yield ABSENT, absent
        yield WITHIN, (within | beyond) & ~hot & ~absent

    def _called(self, hot: Rows) -> Rows:
        graph = self.functions.graph
        called = np.zeros_like(hot)
        called[graph.target[np.isin(graph.kind, (CALL, TAIL_CALL)) & hot[graph.source]]] = True
        return called & ~hot

    def _into_absent(self) -> Rows:
        """Edges to data, and to functions that the other build has not, or has fewer of."""
        into: Rows = (~self.functions.is_code | self.absent)[self.functions.graph.target]
        return into

    @cached_property
    def absent(self) -> Rows:
        """Mask of the vertices without a counterpart; of several copies in one object, too, where the other
        build has fewer in its objects: one of them it has not, and nobody knows which."""
        rows = self.references.functions if self.references else ()
        there = copies_of(
            (name, names, number) for (name, names), number in zip(rows, self.classes.there, strict=True)
        )
        owner = self.functions.image.units["object"][self.functions.of_unit]
        here = copies_of(
            (str(owner[vertex]), names, self.classes.here[vertex])
            for vertex, names in self.functions.symbols.items()
            if self.functions.is_code[vertex]
        )
        fewer = np.zeros(len(self.classes), bool)
        fewer[[number for number, count in here.items() if there[number] < count]] = True
        return self.here(fewer)

    def _within(self, ran: Rows) -> Rows:
        """Vertices that code of the classes ``ran`` leads to, and nothing says that it did not go there."""
        here, vertices = self.classes.here, len(self.classes.here)
        hot = self.here(ran)
        explained, often = self._explained(ran)

        def cold(pairs: Rows, times: Rows) -> Rows:
            at = np.minimum(np.searchsorted(explained, pairs), len(explained) - 1)
            # Of another object nothing is put into the caller: one reference there is as good as many.
            enough = (often[at] >= times) | ~self._one_object.holds(caller, here[vertex])
            found: Rows = (explained[at] == pairs) & enough
            return found

        edges = edges_by_source(self.source, self.target, self.times, vertices)
        vertex = np.flatnonzero(hot)
        caller = here[vertex]
        seen = np.zeros(0, np.int64)
        reached = np.zeros_like(hot)
        while len(vertex):
            row, vertex, times = edges.follow(vertex)
            caller = caller[row]
            new = ~hot[vertex] & (here[vertex] >= 0)
            if len(explained):
                whole = 2 * (caller * len(self.classes) + here[vertex])
                new &= ~cold(whole, times) & ~(self.classes.parts_here[vertex] & cold(whole + 1, times))
            pairs = np.setdiff1d(caller[new] * vertices + vertex[new], seen)
            seen = np.union1d(seen, pairs)
            caller, vertex = pairs // vertices, pairs % vertices
            reached[vertex] = True
        return reached

    def _explained(self, ran: Rows) -> tuple[Rows, Rows]:
        """Pairs 2 * (caller * classes + other) of a caller that ran in the other build: it, or what this
        build has put into it, refers there to the other, which did not run for that. Plus 1 when it refers
        to a part of the other: the beginning is in the caller then, and may have run. And how many references
        that explains."""
        classes = len(self.classes)
        source, target, times = self._there
        edges = edges_by_source(source, target, times, classes)
        refers = np.unique(self.classes.here[self.source] * classes + self.classes.here[self.target])
        caller = np.flatnonzero(ran)
        row, target, often = edges.follow(caller)
        found = inside = direct = 2 * classes * caller[row] + target
        through = np.zeros(0, np.int64)
        for _ in range(_DEPTH - 1):
            # Only through what the caller does not refer to here: what it still refers to is not in it.
            inside = inside[~np.isin(inside // 2, refers)] // 2
            row, target, _ = edges.follow(inside % classes)
            more = np.unique(2 * classes * (inside // classes)[row] + target)
            through, inside = np.union1d(through, more), np.setdiff1d(more, found)
            found = np.union1d(found, inside)
        # What has come with other code may have come any number of times.
        counts = np.full(len(found), _ANY, np.int64)
        alone = ~np.isin(direct, through)
        counts[np.searchsorted(found, direct[alone])] = often[alone]
        return found, counts

    @cached_property
    def _one_object(self) -> Together:
        """Which classes the other compiler has seen together: nothing is put into code of another object."""
        rows = self.references.functions if self.references else ()
        numbers: dict[str, int] = {}
        objects = np.array([numbers.setdefault(name, len(numbers)) for name, _ in rows], np.int64)
        return together(self.classes.there, objects, len(self.classes))

    @cached_property
    def _there(self) -> tuple[Rows, Rows, Rows]:
        """(class, 2 * class, how often) of what functions of the other build refer to, plus 1 for a part."""
        assert self.references is not None
        rows = self.references.refers
        source = np.repeat(self.classes.there, [len(row) for row in rows])
        target = np.fromiter((number for row in rows for number in row), np.int64)
        target = 2 * self.classes.there[target] + self.classes.parts_there[target]
        width = 2 * len(self.classes)
        pairs, times = np.unique(source * width + target, return_counts=True)
        return pairs // width, pairs % width, times
