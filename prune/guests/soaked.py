"""What a soak was: ``soak.json`` written and read, and the sums that the terminal and the page show of it.

:mod:`prune.run.soaking` makes one. A guest that went down missed what it missed after the last stretch that
it finished: that is where its misses count. A stretch that was lost as a whole has no rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from prune.guests.misses import Miss
from tracer.host import MISSHAPEN, UserError, read_json
from tracer.sessions.soak import TROUBLES, Stretch

SCHEMA = 1
SIDES = ("base", "pruned")
#: Parts of the time in the table of misses.
PARTS = 6
#: Seconds and numbers beyond these are damage; the page's script counts exactly up to the second.
_LONGEST, _MOST = 1e9, 1 << 53
#: Seconds below which there is no rate, which would be a number without end.
_SHORTEST = 1e-6


@dataclass(frozen=True)
class Guest:
    """One guest: its stretches of load, what it missed, and how it ended, "" for in order."""

    stretches: tuple[Stretch, ...]
    misses: tuple[Miss, ...]
    problem: str = ""

    @property
    def requests(self) -> int:
        return sum(stretch.requests for stretch in self.stretches)


@dataclass(frozen=True)
class Sum:
    """Some stretches together; ``seconds`` of those that were not ``lost`` as a whole."""

    stretches: int
    requests: int
    seconds: float
    unanswered: int
    lost: int
    misses: int = 0

    @property
    def per_second(self) -> float:
        return _rate(self.requests, self.seconds)

    @property
    def per_million(self) -> float | None:
        """Misses per million requests; None without a request."""
        return self.misses * 1e6 / self.requests if self.requests else None


@dataclass(frozen=True)
class Soak:
    """One kernel's, ``base`` or ``pruned``; ``troubles`` as they were asked for."""

    side: str
    troubles: tuple[str, ...]
    guests: tuple[Guest, ...]

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        return tuple(stretch for guest in self.guests for stretch in guest.stretches)

    @property
    def seconds(self) -> float:
        """In all, also of what was lost."""
        return sum(stretch.seconds for stretch in self.stretches)

    def whole(self) -> Sum:
        """Everything together."""
        return _sum(self.stretches, sum(len(guest.misses) for guest in self.guests))

    def kinds(self) -> dict[str, Sum]:
        """``calm`` and each trouble -> its stretches together."""
        names = dict.fromkeys(("", *self.troubles))
        return {name or "calm": _sum(s for s in self.stretches if s.trouble == name) for name in names}

    def parts(self) -> list[tuple[float, Sum]]:
        """The time in :data:`PARTS` equal parts, (second from which, sum); none without a stretch."""
        stretches = self.stretches
        if not stretches:
            return []
        end = max(stretch.at for stretch in stretches) + 1
        bounds = [end * part / PARTS for part in range(PARTS + 1)]
        missed = [(at, len(guest.misses)) for guest, (at, _) in zip(self.guests, self.last(), strict=True)]
        found = []
        for low, high in pairwise(bounds):
            misses = sum(number for at, number in missed if low <= at < high)
            found.append((low, _sum((s for s in stretches if low <= s.at < high), misses)))
        return found

    def last(self) -> list[tuple[float, float]]:
        """Of each guest, the seconds in which its last stretch began and ended; of one that finished none,
        those of the guest before."""
        found = []
        last = 0.0, 0.0
        for guest in self.guests:
            for stretch in guest.stretches[-1:]:
                last = stretch.at, stretch.at + stretch.seconds
            found.append(last)
        return found


def _sum(stretches: Iterable[Stretch], misses: int = 0) -> Sum:
    each = list(stretches)
    return Sum(
        len(each),
        sum(stretch.requests for stretch in each),
        sum(stretch.seconds for stretch in each if not stretch.lost),
        sum(stretch.unanswered for stretch in each),
        sum(bool(stretch.lost) for stretch in each),
        misses,
    )


def _rate(requests: int, seconds: float) -> float:
    return requests / seconds if seconds >= _SHORTEST else 0.0


def to_json(soak: Soak) -> dict[str, Any]:
    """What ``soak.json`` holds."""
    return {
        "schema_version": SCHEMA,
        "troubles": list(soak.troubles),
        "side": soak.side,
        "requests": soak.whole().requests,
        "seconds": round(soak.seconds, 1),
        "lost": [asdict(each) for each in soak.stretches if each.lost or each.unanswered],
        "misses": len({(m.function, m.object) for guest in soak.guests for m in guest.misses}),
        "guests": [asdict(guest) for guest in soak.guests],
    }


def read_soak(path: Path, side: str) -> Soak:
    """Read ``soak.json`` or ``soak-base.json``, which is of this side.

    Raises:
        UserError: missing or damaged.
    """
    value = read_json(path, "soak", SCHEMA)
    try:
        soak = msgspec.convert(value, Soak)
        _check(soak, side)
    except (*MISSHAPEN, msgspec.ValidationError) as error:
        again = "kprune soak" + " --base" * (side == "base")
        raise UserError(
            f"reading the soak: {path}: {error!r}", f"make it again: {again}, or remove it"
        ) from error
    return soak


def _check(soak: Soak, side: str) -> None:
    """What types do not say.

    Raises:
        ValueError: it is not so.
    """
    if soak.side != side:
        raise ValueError(f"it is of the {soak.side} kernel, not of the {side} one")
    if not set(soak.troubles) <= set(TROUBLES):
        raise ValueError(f"troubles are of {', '.join(TROUBLES)}")
    before = 0.0
    for stretch in soak.stretches:
        if stretch.trouble and stretch.trouble not in soak.troubles:
            raise ValueError(f"a stretch has the trouble {stretch.trouble!r}, which was not asked for")
        # Written so that a NaN is wrong, too.
        if not (before <= stretch.at <= _LONGEST and 0 <= stretch.seconds <= _LONGEST):
            raise ValueError(f"a stretch at {stretch.at} seconds, {stretch.seconds} long, after {before}")
        if not (0 <= stretch.requests <= _MOST and 0 <= stretch.unanswered <= _MOST):
            raise ValueError(f"a stretch has {stretch.requests} requests, {stretch.unanswered} unanswered")
        before = stretch.at


def shown(soaks: Sequence[Soak]) -> dict[str, Any] | None:
    """What the page shows, None without a soak. ``sides``, each with its ``sum`` and ``minutes``; rows:
    ``stretches`` of guest, second, seconds, requests/s, requests, trouble, unanswered, why it was lost;
    ``parts`` and ``kinds`` of what their tables show; ``guests`` of the second in which it ended, requests,
    misses, problem. ``missed``: rows of function, object, caller, phase, guests."""
    if not soaks:
        return None
    return {"sides": [_side(soak) for soak in soaks], "missed": _missed(soaks)}


def _side(soak: Soak) -> dict[str, Any]:
    whole, parts = soak.whole(), soak.parts()
    return {
        "side": soak.side,
        "minutes": soak.seconds / 60,
        "sum": asdict(whole) | {"per_million": whole.per_million},
        "kinds": [
            [name, each.stretches, each.requests, each.per_second, each.unanswered, each.lost]
            for name, each in soak.kinds().items()
        ],
        "parts": [
            [low / 60, each.requests, each.misses, each.per_million, each.unanswered, each.lost]
            for low, each in parts
        ],
        "stretches": [
            [
                number, s.at, s.seconds, 0.0 if s.lost else _rate(s.requests, s.seconds), s.requests,
                s.trouble or "calm", s.unanswered, s.lost,
            ]
            for number, guest in enumerate(soak.guests, 1) for s in guest.stretches
        ],
        "guests": [
            [end, guest.requests, len(guest.misses), guest.problem]
            for guest, (_, end) in zip(soak.guests, soak.last(), strict=True)
        ],
    }  # fmt: skip


def _missed(soaks: Sequence[Soak]) -> list[list[Any]]:
    """Each function, or block of one, once; who called it and when as the first guest says that can."""
    found: dict[tuple[str, str], list[Any]] = {}
    for guest in (guest for soak in soaks for guest in soak.guests):
        names = set()
        for miss in guest.misses:
            name = miss.function + (f"+{miss.offset:#x}" if miss.offset >= 0 else "")
            row = found.setdefault((name, miss.object), [name, miss.object, "", "", 0])
            row[2], row[3] = row[2] or miss.caller, row[3] or miss.phase
            row[4] += (name, miss.object) not in names
            names.add((name, miss.object))
    return list(found.values())
