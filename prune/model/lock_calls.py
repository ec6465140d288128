"""Where in an image a lock may be held, read once from its code, call by call.

Code is followed instruction by instruction, counting what ``closure.toml`` lists under ``locks``. A function
that always comes back with one more lock than before, or with one less, counts as one that takes or releases
it.

Where the release of locks that spin is put into line, it looks like any other store: such a lock counts as
held to the end of the function that takes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from prune.model.callgraph import CALL, TAIL_CALL, edges
from prune.model.elf import Rows, distinct
from prune.model.image import Image, expression
from prune.model.instructions import read_instructions
from prune.model.knowledge import Knowledge
from prune.model.lock_states import NONE, ONE, RELEASES, TAKES, TRIES, Body
from prune.model.locks import CALLERS, CALLERS_SPIN, OWN, OWN_SPIN, Locks, at_place, key
from prune.model.tables import Tables

#: The bit for locks of its own, that for its callers', what calls do, the functions that make such calls.
_Kind = tuple[int, int, Mapping[int, str], frozenset[int]]
#: Functions that take a lock for their caller call each other no deeper than this.
_ROUNDS = 8


def make_locks(image: Image, tables: Tables, knowledge: Knowledge) -> Locks:
    """The calls of an image, and where locks may be held."""
    calls = _Calls(image, tables, knowledge)
    known = knowledge.closure["locks"]
    sleeping = {kind: _named(image, known[kind]) for kind in (TAKES, TRIES, RELEASES)}
    spinning = {kind: _named(image, known["spinning"][kind]) for kind in (TAKES, TRIES, RELEASES)}
    kinds = (
        (OWN, CALLERS, *_effects(calls, sleeping, wrappers=True)),
        (OWN_SPIN, CALLERS_SPIN, *_effects(calls, spinning, wrappers=known["visible"] in image.globals_)),
    )
    units = sorted({unit for *_, users in kinds for unit in users})
    bodies = [(unit, calls.body(unit)) for unit in units]
    empty = np.empty(0, np.int64)
    place = np.concatenate([empty, *(key(unit, np.array(body.places)) for unit, body in bodies)])
    state = np.concatenate([empty, *(_states(unit, body, kinds) for unit, body in bodies)]).astype(np.uint8)
    # Of assembly that shares a section nobody knows which of it was entered: the way into all system calls.
    function = image.units["function"]
    state[~function[place >> 32]] &= OWN | OWN_SPIN
    here = at_place(place, state, calls.source, calls.offset)
    here[~function[calls.source]] &= OWN | OWN_SPIN
    return Locks(calls.source, calls.target, here, place, state)


def _states(unit: int, body: Body, kinds: Iterable[_Kind]) -> Rows:
    """What may be held from each of the places of a function on, of locks of these kinds."""
    found = np.zeros(len(body.places), np.int64)
    for own, callers, effects, users in kinds:
        for bit, entry in ((own, NONE), (callers, ONE)):
            held = body.held(effects, entry) if unit in users else entry == ONE
            found |= np.where(held, bit, 0)
    return found


class _Calls:
    """All calls by name, ordered by who calls; ``offset`` in its unit, ``tail``: it jumps there. ``callee``:
    the unit that is called; of one that holds several functions the row of the symbol, behind all units."""

    def __init__(self, image: Image, tables: Tables, knowledge: Knowledge) -> None:
        row, source, target, kind = edges(image, tables, knowledge, within=True)
        wanted = np.flatnonzero(np.isin(kind, (CALL, TAIL_CALL)))
        # Objects list what they relocate in no order that anybody promises.
        wanted = wanted[np.lexsort((image.relocations["offset"][row[wanted]], source[wanted]))]
        self.image, self.knowledge = image, knowledge
        self.source, self.target = source[wanted], target[wanted]
        self.tail = kind[wanted] == TAIL_CALL
        self.offset = image.relocations["offset"][row[wanted]]
        meant = image.definition[image.relocations["symbol"][row[wanted]]]
        function = image.units["function"][self.target]
        self.callee = np.where(function, self.target, len(image.units) + meant)
        self._order = np.argsort(image.relocations["unit"], kind="stable")
        every = np.arange(len(image.units) + 1)
        self._first = np.searchsorted(self.source, every).tolist()
        self._first_field = np.searchsorted(image.relocations["unit"][self._order], every).tolist()
        self._bodies: dict[int, Body] = {}

    def callers(self, targets: set[int]) -> list[int]:
        found: list[int] = distinct(self.source[np.isin(self.callee, sorted(targets))]).tolist()
        return found

    def body(self, unit: int) -> Body:
        """The calls of one unit, and its code."""
        if unit not in self._bodies:
            self._bodies[unit] = self._read(unit)
        return self._bodies[unit]

    def _read(self, unit: int) -> Body:
        rows = np.arange(self._first[unit], self._first[unit + 1])
        fields = self._order[self._first_field[unit] : self._first_field[unit + 1]]
        relocated = np.sort(self.image.relocations["offset"][fields])
        code = read_instructions(self.image.content(unit), relocated, self.knowledge)
        at = np.searchsorted(code.start, self.offset[rows], "right") - 1 if code else np.zeros(len(rows), int)
        return Body(code, at.tolist(), self.callee[rows].tolist(), self.tail[rows].tolist())


def _named(image: Image, globs: Sequence[str]) -> set[int]:
    """The functions of these names, as :class:`_Calls` has callees."""
    matches = expression(tuple(globs)).match
    alone = {unit for unit, offset, _, name in image.functions if offset == 0 and matches(name)}
    shared = {len(image.units) + row for name, row in image.globals_.items() if matches(name)}
    return alone | shared


def _effects(
    calls: _Calls, known: Mapping[str, set[int]], wrappers: bool
) -> tuple[dict[int, str], frozenset[int]]:
    """(what a call of each callee does to the number of locks, the units that call any of these).

    Args:
        known: of callees that are known by name.
        wrappers: what always returns with a lock, or without one that it was entered with, counts as well.
    """
    effects = {unit: kind for kind, units in known.items() for unit in units}
    listed, new, found = frozenset(effects), set(effects), set[int]()
    for _ in range(_ROUNDS if wrappers else 1):
        users = [unit for unit in calls.callers(new) if unit not in listed]
        found |= set(users)
        # Who takes a lock through one function and releases it through another is known when both are.
        kinds = {unit: calls.body(unit).effect(effects) if wrappers else "" for unit in users}
        new = {unit for unit, kind in kinds.items() if kind != effects.get(unit, "")}
        effects |= {unit: kinds[unit] for unit in new}
    return effects, frozenset(found)
