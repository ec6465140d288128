"""How many locks one function may hold at each of its places, by the instructions that lead there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from prune.model.instructions import Instructions

#: States are sets of numbers of locks, as bits: 1 << 2 is "two of them". More than seven are seven.
_MOST = 7
NONE, ONE, _THREE = 1, 2, 8
_ANY = (1 << _MOST + 1) - 1
#: What a call does to their number: one more, maybe one more, one less.
TAKES, TRIES, RELEASES = "takes", "tries", "releases"


@dataclass(frozen=True)
class Body:
    """One function: ``code``, None where nobody can follow it; of each call in it the instruction ``at``
    which it is, its ``target``, and whether it is a ``tail`` call, which never comes back."""

    code: Instructions | None
    at: list[int]
    target: list[int]
    tail: list[bool]

    @property
    def places(self) -> list[int]:
        """The offsets from which on, up to the next, the same locks may be held: ascending."""
        if self.code is None:
            return [0]
        starts, ends = self.code.start, self.code.end
        blocks = zip(self._blocks.first, self._blocks.calls, strict=True)
        return [
            int(at) for first, calls in blocks for at in (starts[first], *(ends[self.at[c]] for c in calls))
        ]

    def effect(self, effects: Mapping[int, str]) -> str:
        """What a call of this function does: :data:`TAKES`, :data:`RELEASES`, or "" for neither, or for not
        always, or for a function that never returns.

        Args:
            effects: the same of functions that it may call.
        """
        if self.code is None:
            return ""
        end = self._run(effects, _THREE)[1]
        if end & ~(_THREE - 1) == 0:
            return RELEASES if end else ""
        return "" if end & (_THREE | _THREE - 1) else TAKES

    def held(self, effects: Mapping[int, str], entry: int) -> list[bool]:
        """Of each of the ``places``, whether a lock may be held there. ``entry``: :data:`NONE`, or
        :data:`ONE` of the caller's."""
        if self.code is None:
            return [entry != NONE or any(effects.get(target) in (TAKES, TRIES) for target in self.target)]
        found = []
        for state, calls in zip(self._run(effects, entry)[0], self._blocks.calls, strict=True):
            found.append(state)
            for call in calls:
                state = state if self.tail[call] else applied(effects.get(self.target[call], ""), state)
                found.append(state)
        return [bool(state & ~NONE) for state in found]

    @cached_property
    def _blocks(self) -> _Blocks:
        assert self.code is not None
        return _cut(self.code, self.at, self.tail)

    def _run(self, effects: Mapping[int, str], entry: int) -> tuple[list[int], int]:
        """(numbers of locks where each block begins, and where the function ends)."""
        does = [effects.get(target, "") for target in self.target]
        blocks = self._blocks
        states = [0] * len(blocks.calls)
        leaving = [0] * len(blocks.calls)
        states[0], end, before = entry, 0, None
        while before != (states, leaving):
            before = states.copy(), leaving.copy()
            led = [state for state, leads in zip(leaving, blocks.leads, strict=True) if leads]
            anywhere = _union(led or states)
            for orphan in blocks.orphans:
                states[orphan] |= anywhere
            for number, calls in enumerate(blocks.calls):
                state = states[number]
                for call in calls:
                    if self.tail[call]:
                        end |= applied(does[call], state)
                    else:
                        state = applied(does[call], state)
                leaving[number] = state
                if blocks.ends[number]:
                    end |= state
                for follower in blocks.followers[number]:
                    states[follower] |= state
        return states, end


@dataclass(frozen=True)
class _Blocks:
    """The basic blocks of a function in the order of their addresses: the ``first`` instruction of each,
    which ``calls`` are in it, by number; the blocks that may be its ``followers``; whether the function
    ``ends`` there, its tail calls aside; whether it ``leads`` to where a table says. ``orphans``: where such
    a table or an exception leads to; without the former nobody knows from where."""

    first: list[int]
    calls: list[list[int]]
    followers: list[list[int]]
    ends: list[bool]
    leads: list[bool]
    orphans: list[int]


def _cut(code: Instructions, at: Sequence[int], tail: Sequence[bool]) -> _Blocks:
    starts, falls, lands = code.start.tolist(), code.falls.tolist(), code.target.tolist()
    index = {start: i for i, start in enumerate(starts)}
    leaves = {i for i, leaving in zip(at, tail, strict=True) if leaving}
    breaks = [i for i in range(len(starts)) if lands[i] >= 0 or not falls[i] or i in leaves]
    leaders = {0, *(index[lands[i]] for i in breaks if lands[i] >= 0)}
    leaders |= {i + 1 for i in breaks if i + 1 < len(starts)}
    order = sorted(leaders)
    number = {leader: i for i, leader in enumerate(order)}
    calls: list[list[int]] = [[] for _ in order]
    lasts = [following - 1 for following in (*order[1:], len(starts))]
    for call, where in enumerate(at):
        calls[bisect_right(order, where) - 1].append(call)
    followers, ends = [], []
    for last in lasts:
        to = [number[last + 1]] if falls[last] and last + 1 in number else []
        to += [number[index[lands[last]]]] if lands[last] >= 0 else []
        followers.append(to)
        ends.append(not falls[last] and lands[last] < 0 and last not in leaves and not code.anywhere[last])
    reached = {0, *(to for each in followers for to in each)}
    # Behind a jump lies what fills the room up to the next target of one, and nobody comes there.
    filling = [bool(code.idle[first : last + 1].all()) for first, last in zip(order, lasts, strict=True)]
    orphans = [i for i in range(len(order)) if i not in reached and not filling[i]]
    leads = [bool(code.anywhere[last]) and last not in leaves for last in lasts]
    return _Blocks(order, calls, followers, ends, leads, orphans)


def applied(effect: str, state: int) -> int:
    """The numbers of locks behind a call that does this."""
    if not effect:
        return state
    if effect == RELEASES:
        return state >> 1 | state & NONE
    more = (state << 1 | state & 1 << _MOST) & _ANY
    return more if effect == TAKES else state | more


def _union(states: Sequence[int]) -> int:
    found = 0
    for state in states:
        found |= state
    return found
