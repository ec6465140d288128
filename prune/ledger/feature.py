"""What one part of the sources costs in a kernel, such as the network stack: all that lies under some paths.

A kernel of objects knows where each byte is from. One that was optimised as a whole is one object: a name
says it there, if in a kernel of the same sources all that have the name lie under the paths, or none does.
What names cannot say is counted by why not, and never guessed. What was inlined counts as its caller.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

#: Columns, and the kinds of a ledger's rows in each.
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "text": ("text",), "init": ("init text", "init data"), "rodata": ("rodata",), "data": ("data",),
    "bss": ("bss",), "tables": ("tables",),
}  # fmt: skip
#: What an application can be said to need: how much a table loses shows only when it is linked.
BY_APP = ("text", "init", "rodata", "data", "bss")
#: Why a byte of a kernel that is one object has no place.
AMBIGUOUS, UNKNOWN, NAMELESS = "names of several places", "names of this kernel alone", "no names"
# What optimisers add to names: foo.llvm.1234, foo.5, foo.part.0, foo.isra.0, foo.cold.
_ADDED = re.compile(r"(?:\.(?:llvm|part|isra|constprop|cold|\d+))+$")


@dataclass(frozen=True)
class Unit:
    """A row of a ledger that an object has; ``size`` in bytes of one kernel."""

    object: str
    section: str
    symbol: str
    kind: str
    size: int


@dataclass(frozen=True)
class Cost:
    """Column of :data:`COLUMNS` -> bytes; ``open``: reason -> the same of what may be a part of it or not."""

    bytes: Mapping[str, int]
    open: Mapping[str, Mapping[str, int]]

    @property
    def total(self) -> int:
        return sum(self.bytes.values())


@dataclass(frozen=True)
class Part:
    """A part of the sources: what lies under ``paths`` and not under ``but``; each ends with a slash."""

    paths: tuple[str, ...]
    but: tuple[str, ...] = ()

    def has(self, object: str) -> bool:
        return object.startswith(self.paths) and not object.startswith(self.but)

    def __str__(self) -> str:
        return ", ".join(self.paths) + (f" but {', '.join(self.but)}" if self.but else "")


def cost(units: Iterable[Unit], part: Part, names: Mapping[str, bool | None] | None = None) -> Cost:
    """Bytes of one part.

    Args:
        names: for a kernel of one object: :func:`places` of the same sources.
    """
    count = dict.fromkeys(COLUMNS, 0)
    left: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0))
    column = {kind: name for name, kinds in COLUMNS.items() for kind in kinds}
    for unit in units:
        if unit.kind not in column:
            continue
        found: bool | str = part.has(unit.object) if names is None else _by_name(unit, names)
        if isinstance(found, str):
            left[found][column[unit.kind]] += unit.size
        elif found:
            count[column[unit.kind]] += unit.size
    return Cost(count, dict(left))


def places(units: Iterable[Unit], part: Part) -> dict[str, bool | None]:
    """Name -> whether it is of the part; None for one that does and does not."""
    found: dict[str, bool | None] = {}
    for unit in units:
        if not unit.symbol.startswith("."):
            under, name = part.has(unit.object), plain(unit.symbol)
            found[name] = under if found.get(name, under) == under else None
    return found


def is_one_object(units: Sequence[Unit]) -> bool:
    """Whether the kernel was optimised as a whole."""
    return len({unit.object for unit in units}) == 1


def plain(symbol: str) -> str:
    """A name as it is in the source."""
    return _ADDED.sub("", symbol)


def _by_name(unit: Unit, names: Mapping[str, bool | None]) -> bool | str:
    if unit.symbol.startswith(".") or unit.symbol == unit.section or unit.kind == "tables":
        return NAMELESS
    name = plain(unit.symbol)
    if name not in names:
        return UNKNOWN
    under = names[name]
    return AMBIGUOUS if under is None else under


@dataclass(frozen=True)
class AppCost:
    """What one app needs: ``alone``, in a kernel for it and no other app; ``more``, than without it."""

    app: str
    alone: Mapping[str, int]
    more: Mapping[str, int]


def app_costs(
    units: Sequence[Unit], part: Part,
    alone: Mapping[str, Collection[tuple[str, str]]],
    without: Mapping[str, Collection[tuple[str, str]]],
    everything: Collection[tuple[str, str]],
) -> tuple[AppCost, ...]:  # fmt: skip
    """What each app needs, given what plans keep: (object, section) of a kernel for it alone, for all but it,
    and for all apps. Strings that go out of sections are not seen: these are bytes of whole units."""

    def kept(keep: Collection[tuple[str, str]]) -> Mapping[str, int]:
        found = cost([unit for unit in units if (unit.object, unit.section) in keep], part)
        return {column: found.bytes[column] for column in BY_APP}

    whole = kept(everything)
    rows = []
    for app in alone:
        less = kept(without[app])
        rows.append(AppCost(app, kept(alone[app]), {name: whole[name] - less[name] for name in BY_APP}))
    return tuple(rows)
