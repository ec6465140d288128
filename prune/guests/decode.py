"""What the oopses of a console log mean: which of them is a miss, of what, called from where.

An oops is a miss when it stands on a tombstone, on the trap of a block that was taken out, or in what was
freed after boot. No log says of which link it is; what speaks against this one is said of each oops.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from prune.guests.graveyard import FIRST, Graveyard
from prune.guests.misses import Miss
from prune.guests.system_map import SystemMap
from tracer.oops import Entry, Oops, Place, find_oopses
from tracer.profiles.symbols import Identity, Symbols

#: An oops that may be a miss, for the log does not say where it was, or in terms of another link.
UNKNOWN = "unknown"
#: What became of the machine: it went down; the task is stuck until a reboot; the task was killed; nobody
#: died; the log ends before it says.
PANIC, STUCK, KILLED, NOBODY, CUT_OFF = "panic", "stuck", "killed", "nobody", "cut off"


@dataclass(frozen=True)
class Spot:
    """A place in a function. ``address``: in the unpruned kernel, 0 when that is not known; ``source``: file
    and line, "" for unknown; ``object`` is "" when several have a function of that name."""

    function: str
    offset: int = 0
    object: str = ""
    section: str = ""
    address: int = 0
    source: str = ""

    def __str__(self) -> str:
        where = f"{self.function}+{self.offset:#x}" if self.offset >= 0 else self.function
        return where + f" ({self.object})" * bool(self.object) + f", {self.source}" * bool(self.source)


@dataclass(frozen=True)
class Decoded:
    """One oops of a log. ``line``: where it begins, from 1; ``missed``: a kind of
    :mod:`prune.guests.graveyard`, :data:`UNKNOWN`, or "" when it is no miss; ``doubt``: what speaks against
    the log being of this kernel.

    ``at``: what was missed, or where another oops was, None when the log does not say; its offset is -1 for
    all of a function. ``pid`` and ``cpu`` are -1 when the log does not say.
    """

    line: int
    what: str
    missed: str
    at: Spot | None
    caller: Spot | None
    comm: str
    pid: int
    cpu: int
    outcome: str
    panic: str
    doubt: str = ""

    @property
    def miss(self) -> Miss | None:
        """What heals it; None when it is no miss, or a doubtful one."""
        if not self.missed or self.doubt or self.at is None:
            return None
        caller = self.caller.function if self.caller else ""
        whole = max(self.at.offset, -1)
        return Miss(self.at.function, self.at.object, self.at.section, caller, offset=whole)


@dataclass(frozen=True)
class Kernel:
    """What is known of a pruned kernel, and of the unpruned one that it was made of. ``kept``: its units,
    (object, section)."""

    graveyard: Graveyard
    system_map: SystemMap
    symbols: Symbols
    kept: Container[tuple[str, str]]

    @cached_property
    def _addresses(self) -> Mapping[Identity, int]:
        return dict(zip(self.symbols.functions, self.symbols.starts.tolist(), strict=True))

    @cached_property
    def _by_name(self) -> Mapping[str, list[Identity]]:
        found: dict[str, list[Identity]] = {}
        for identity in self.symbols.functions:
            found.setdefault(identity.symbol, []).append(identity)
        return found

    def spot(self, identity: Identity, offset: int, into: int) -> Spot:
        """A place in a function; ``into``: where it is in the unpruned one."""
        start = self._addresses.get(identity, 0)
        return Spot(identity.symbol, offset, identity.object, identity.section, start + into if start else 0)

    def kept_spot(self, name: str, offset: int, back: int) -> Spot:
        """A place in a function that was kept; ``back``: from there to the instruction that is meant."""
        meant = [each for each in self._by_name.get(name, ()) if each[:2] in self.kept]
        if len(meant) != 1:
            return Spot(name, offset)
        spot = self.spot(meant[0], offset, offset - back)
        # Of what is behind a block that went, nobody knows where it was.
        return replace(spot, address=0) if name in self.graveyard.trimmed else spot


def decode(console: str, kernel: Kernel) -> tuple[Decoded, ...]:
    """Every oops, warning and panic of a log, in order, but for source lines."""
    return tuple(_decode(oops, kernel) for oops in find_oopses(console))


def addresses(found: Iterable[Decoded]) -> dict[int, str]:
    """Address in the unpruned kernel -> object there, of all places whose source lines are wanted."""
    spots = [spot for each in found for spot in (each.at, each.caller) if spot]
    return {spot.address: spot.object for spot in spots if spot.address}


def with_lines(found: Iterable[Decoded], lines: Mapping[int, str]) -> tuple[Decoded, ...]:
    """The same with source lines. ``lines``: by address."""

    def known(spot: Spot | None) -> Spot | None:
        return replace(spot, source=lines.get(spot.address, "")) if spot else None

    return tuple(replace(each, at=known(each.at), caller=known(each.caller)) for each in found)


def _decode(oops: Oops, kernel: Kernel) -> Decoded:
    grave = None if _is_of_another(oops, kernel) else kernel.graveyard.grave_of(oops)
    at: Spot | None
    if grave:
        identity = Identity(grave.object, grave.section, grave.function)
        missed, at = grave.kind, kernel.spot(identity, grave.offset, max(grave.offset, 0))
    else:
        missed = UNKNOWN if _may_be_missed(oops, kernel) else ""
        at = _place(oops.place, oops, kernel, 0) if oops.place and not missed else None
    entry = kernel.graveyard.caller(oops, at.function if at else "")
    caller = _caller(entry, oops, kernel) if entry else None
    return Decoded(
        oops.line,
        oops.what,
        missed,
        at,
        caller,
        oops.comm,
        oops.pid,
        oops.cpu,
        _outcome(oops),
        oops.panic,
        _doubt(oops, kernel),
    )


def _caller(entry: Entry, oops: Oops, kernel: Kernel) -> Spot:
    """A return address is behind the call, which may be the last instruction of its line."""
    return _place(entry.place, oops, kernel, 1)


def _place(place: Place, oops: Oops, kernel: Kernel, back: int) -> Spot:
    if place.name:
        return kernel.kept_spot(place.name, place.offset, back)
    address = place.offset - (oops.slide or 0)
    around = kernel.system_map.around(address - back)
    if around is None or not kernel.system_map.has(address):
        return Spot(f"{place.offset:#x}", -1)
    return kernel.kept_spot(around[0], around[1] + back, back)


def _may_be_missed(oops: Oops, kernel: Kernel) -> bool:
    """Whether it is an oops that the log does not place: it breaks off, addresses are those of a kernel that
    moved by nobody knows how much, or tombstones those of another link."""
    place = oops.place
    if place is None or oops.own:
        return oops.died and not oops.own
    if oops.what and not oops.died:
        return False
    if not place.name and oops.slide is None:
        return not kernel.system_map.has(place.offset)
    return _is_of_another(oops, kernel)


def _is_of_another(oops: Oops, kernel: Kernel) -> bool:
    """Whether the kernel that went down was certainly linked otherwise: it had more tombstones, or fewer, or
    another function at the address that it could not execute."""
    place = oops.place
    if oops.fetched is None or place is None or not place.name or not kernel.graveyard.freed_at(oops.linked):
        return kernel.graveyard.is_of_another(oops)
    return place.name not in kernel.system_map.names_at(oops.linked)


def _doubt(oops: Oops, kernel: Kernel) -> str:
    """What speaks against the log being of this kernel, or for addresses that mean something else in it."""
    version, release = kernel.symbols.version, oops.release
    if version and release and not release.startswith(version):
        return f"the log is of Linux {release}, this kernel is {version}"
    if _is_of_another(oops, kernel):
        here = "other tombstones"
        if oops.fetched is not None:
            here = f"{kernel.system_map.name_of(oops.linked)} where it had {oops.place and oops.place.name}"
        return f"the log is of another link: this kernel has {here}"
    if oops.place is None:
        return "the log does not say where it was" if oops.died else ""
    if not oops.place.name and oops.slide is None and not kernel.system_map.has(oops.place.offset):
        return (
            f"{oops.place} is outside of this kernel; with KASLR, only a panic says by how much it moved "
            "(boot with oops=panic or nokaslr)"
        )
    named = {entry.place.name for entry in oops.trace if not entry.place.module} - {"", FIRST}
    strange = sorted(named - kernel.system_map.names - kernel.graveyard.names.keys())
    return f"this kernel has no {strange[0]}, which is in the call trace" if strange else ""


def _outcome(oops: Oops) -> str:
    if oops.panic:
        return PANIC
    if oops.recursive:
        return STUCK
    if not oops.died and oops.what:
        return NOBODY
    return KILLED if oops.ended else CUT_OFF
