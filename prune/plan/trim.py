"""Cold blocks go from functions that stay.

Block coverage says which instructions of a function ran. The others are taken out of it and the rest
closes up; where kept code, a table or data may still lead to one that is gone there is a trap
instead, so that every such place has an address of its own and a miss can be told. Nothing in a function
gets further apart by this, so short branches stay short, and no branch needs another form.

A run of cold instructions that would save little stays. A function stays whole when the disassembler does not
know every byte of it, or when something in it depends on the distance between two places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.instructions import Instructions, read_instructions
from prune.model.knowledge import Knowledge
from prune.model.places import Places, find_places
from prune.model.tables import GONE, Tables
from tracer.host import UserError

#: Bytes that a run of cold instructions must save; less is better kept than missed, as with whole functions
#: (prune.plan.plan.SMALL). With examples/micro 16 would save 2% more of the text, with a third more traps.
LEAST = 24

Range = tuple[int, int]


@dataclass(frozen=True)
class Trim:
    """What stays of one unit. ``start``, ``end``, ``new``: the kept ranges and the traps in it, in order,
    and where each begins in what stays; ``traps``: the offsets of the instructions that a trap stands for,
    ``stops``: of those whose trap stops the machine; ``size`` now, ``whole`` before."""

    unit: int
    cold: tuple[Range, ...]
    traps: Rows
    start: Rows
    end: Rows
    new: Rows
    size: int
    whole: int
    stops: frozenset[int] = frozenset()

    def moved(self, offset: Rows) -> Rows:
        """Where these places are now; what is gone and has no trap: where the next is that stays."""
        row = np.searchsorted(self.start, offset, "right") - 1
        inside = (row >= 0) & (offset < self.end[row])
        following = np.append(self.new, self.size)[row + 1]
        found: Rows = np.where(inside, self.new[row] + offset - self.start[row], following)
        return found

    def is_cold(self, offset: Rows) -> Rows:
        """Whether the instructions at these places were taken out."""
        begins, ends = (np.array(column, np.int64) for column in zip(*self.cold, strict=True))
        row = np.searchsorted(begins, offset, "right") - 1
        found: Rows = (row >= 0) & (offset < ends[row])
        return found


@dataclass(frozen=True)
class Trimming:
    """How each unit that loses blocks is laid out; ``places``: what the references that are left mean."""

    trims: Mapping[int, Trim]
    places: Places


def find_cold(
    image: Image, tables: Tables, ran: Mapping[int, Iterable[Range]], knowledge: Knowledge
) -> dict[int, tuple[Range, ...]]:
    """Unit -> the ranges of it that can be taken out.

    Args:
        ran: unit -> the byte ranges of it that were executed, for units that may lose the others.
    """
    trimmer = _Trimmer(image, find_places(image, tables, knowledge), knowledge)
    found = {}
    for unit, ranges in ran.items():
        cold = trimmer.choose(unit, sorted(ranges))
        if cold:
            found[unit] = cold
    return found


def trim(
    image: Image, tables: Tables, cold: Mapping[int, tuple[Range, ...]], knowledge: Knowledge
) -> tuple[Image, Tables, Trimming | None]:
    """The image without the references from cold blocks, the tables without the entries that speak of them,
    and how each unit is laid out now.

    Raises:
        UserError: the ranges do not fit the code.
    """
    if not cold:
        return image, tables, None
    places = find_places(image, tables, knowledge)
    trimmer = _Trimmer(image, places, knowledge)
    trims = {unit: trimmer.lay_out(unit, ranges) for unit, ranges in cold.items()}
    entries = places.entries
    gone = np.zeros(len(entries.unit), bool)
    alive = np.ones(len(image.relocations), bool)
    for unit, made in trims.items():
        mine = places.about(unit)
        gone[mine] = _gone(entries.place[mine], entries.ranges[mine], made)
        fields = places.within(unit)
        alive[fields] = ~made.is_cold(image.relocations["offset"][fields])
    alive[(places.entry >= 0) & gone[places.entry]] = False
    first = np.zeros(len(image.units), np.int64)
    first[tables.rows["unit"]] = tables.rows["first"]
    owners = tables.owners.copy()
    owners[first[entries.part[gone]] + entries.number[gone]] = GONE
    kept = np.flatnonzero(alive)
    left = Trimming(trims, replace(places, offset=places.offset[kept]))
    return (
        replace(image, relocations=image.relocations[kept]),
        replace(tables, owners=owners, owner=tables.owner[kept]),
        left,
    )


def _gone(place: Rows, ranges: Rows, made: Trim) -> Rows:
    """Which entries, sorted by place, have nothing left to speak of."""
    gone = made.is_cold(place)
    # What holds up to the next entry is gone when nothing of that range is left.
    rows = np.flatnonzero(ranges)
    here = made.moved(place[rows])
    gone[rows] = (here == np.append(here[1:], made.size)) & (place[rows] < made.whole)
    return gone


class _Trimmer:
    """The passes over one function."""

    def __init__(self, image: Image, places: Places, knowledge: Knowledge) -> None:
        self.image, self.places, self.knowledge = image, places, knowledge
        self.symbols: dict[int, list[int]] = {}
        for unit, offset, _, _ in image.functions:
            self.symbols.setdefault(unit, []).append(offset)

    def read(self, unit: int) -> Instructions | None:
        row = self.image.units[unit]
        code = bytes(self.image.files[int(row["object"])].content(int(row["section"])))
        fields = self.image.relocations["offset"][self.places.within(unit)]
        return read_instructions(code, fields, self.knowledge)

    def choose(self, unit: int, ran: list[Range]) -> tuple[Range, ...]:
        """What can be taken out of a unit of which these ranges ran; () for nothing."""
        code = self.read(unit)
        if code is None:
            return ()
        begins, ends = (np.array(column, np.int64) for column in zip(*ran, strict=True))
        # The first range that ends behind the instruction's beginning must begin before its end.
        nearest = np.searchsorted(ends, code.start, "right")
        hot = np.append(begins, np.iinfo(np.int64).max)[nearest] < code.end
        if not hot[0]:
            return ()
        self._whole_sites(unit, code, hot)
        while True:
            runs = _runs(code, hot)
            traps = self._traps(unit, code, hot)
            if traps is None or not runs:
                return ()
            small = [
                (first, last)
                for first, last in runs
                if self._saved(traps, int(code.start[first]), int(code.end[last])) < LEAST
            ]
            if not small:
                return tuple((int(code.start[first]), int(code.end[last])) for first, last in runs)
            for first, last in small:
                hot[first : last + 1] = True

    def lay_out(self, unit: int, cold: tuple[Range, ...]) -> Trim:
        """The unit without these ranges.

        Raises:
            UserError: they do not fit the code.
        """
        code = self.read(unit)
        hot = np.ones(len(code.start) if code else 0, bool)
        for start, end in cold:
            if code:
                hot[(code.start >= start) & (code.end <= end)] = False
        traps = self._traps(unit, code, hot) if code else None
        fits = traps is not None and all(self._saved(traps, *each) >= 0 for each in cold)
        if code is None or traps is None or not fits or _ranges(code, hot) != cold:
            raise UserError(
                f"taking cold blocks out of {self.image.unit_label(unit)}: the plan's do not fit the code",
                "make the plan again: kprune plan",
            )
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        for begin, end in cold:
            mine = traps[(traps >= begin) & (traps < end)].tolist()
            starts += [at, *mine]
            ends += [begin, *(place + len(self.knowledge.trap) for place in mine)]
            at = end
        at_end = int(code.end[-1])
        starts.append(at)
        ends.append(at_end)
        first, last = np.array(starts), np.array(ends)
        new = np.concatenate([[0], np.cumsum(last - first)])
        some = last > first
        return Trim(unit, cold, traps, first[some], last[some], new[:-1][some], int(new[-1]), at_end)

    def _saved(self, traps: Rows, begin: int, end: int) -> int:
        """How many bytes fewer a cold range takes with its traps instead; -1: it has no room for them."""
        mine = traps[np.searchsorted(traps, begin) : np.searchsorted(traps, end)]
        trap = len(self.knowledge.trap)
        if np.any(np.diff(np.append(mine, end)) < trap):
            return -1
        return end - begin - trap * len(mine)

    def _whole_sites(self, unit: int, code: Instructions, hot: Rows) -> None:
        """What the kernel patches as one stays or goes as one."""
        entries = self.places.entries
        for row in self.places.about(unit).tolist():
            if entries.length[row] > 1:
                place = int(entries.place[row])
                inside = (code.end > place) & (code.start < place + entries.length[row])
                hot[inside] = hot[inside].any()

    def _traps(self, unit: int, code: Instructions, hot: Rows) -> Rows | None:
        """Where kept code and data may lead to among what is cold; None when that is not the beginning of an
        instruction."""
        entries, rows = self.places.entries, self.image.relocations
        about = self.places.about(unit)
        sites = about[~entries.ranges[about]]
        places = entries.place[sites]
        holding = np.searchsorted(code.start, places, "right") - 1
        falls = code.falls.copy()
        falls[holding[places < code.end[-1]]] = True  # the kernel may patch it into something that does
        cold = ~hot
        entered = np.zeros(len(hot), bool)
        entered[1:] = cold[1:] & hot[:-1] & falls[:-1]
        targets = code.target[hot & (code.target >= 0)]
        refers = self.places.into(unit)
        own = rows["unit"][refers] == unit
        field = np.searchsorted(code.start, rows["offset"][refers], "right") - 1
        refers = refers[~own | hot[np.where(own, field, 0)]]
        gone = np.zeros(len(entries.unit), bool)
        gone[sites[cold[holding] & (places < code.end[-1])]] = True
        entry = self.places.entry[refers]
        refers = refers[~((entry >= 0) & (gone[entry] | entries.ranges[entry]))]
        outside = np.array(self.symbols.get(unit, []), np.int64)
        led_to = np.unique(np.concatenate([targets, self.places.offset[refers], outside]))
        led_to = led_to[(led_to >= 0) & (led_to < code.end[-1])]
        row = np.searchsorted(code.start, led_to, "right") - 1
        if np.any(cold[row] & (code.start[row] != led_to)):
            return None
        entered[row[cold[row]]] = True
        found: Rows = code.start[entered]
        return found


def _runs(code: Instructions, hot: Rows) -> list[tuple[int, int]]:
    """(first, last row) of each run of cold instructions."""
    edges = np.flatnonzero(np.diff(np.concatenate([[1], hot.astype(np.int8), [1]])))
    return list(zip(edges[::2].tolist(), (edges[1::2] - 1).tolist(), strict=True))


def _ranges(code: Instructions, hot: Rows) -> tuple[Range, ...]:
    return tuple((int(code.start[first]), int(code.end[last])) for first, last in _runs(code, hot))
