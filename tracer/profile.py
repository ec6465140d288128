"""The profile: for every function that ran, which app ran it, how often, and what saw it.

This is the one thing that ``tracer`` and ``prune`` share. Functions are named by object, section and symbol
of the production build. The file is strict on the way in, since a damaged profile would be a smaller
kernel, and the same profile is the same bytes on the way out.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from tracer.host import UserError, read_json, write_json
from tracer.symbols import Identity

SCHEMA_VERSION = 1
WHAT = "profile"

T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Seen:
    """``app`` (or ``boot``, ``shutdown``, ``miss``) ran the function, says ``source``.

    ``count``: for ``ftrace`` the number of calls, None when a cut name hides which function it was; for
    ``blocks`` the number of runs in which the function first ran in that phase.
    """

    app: str
    source: str
    count: int | None


@dataclass(frozen=True)
class FunctionRecord:
    object: str
    section: str
    symbol: str
    seen: tuple[Seen, ...]

    @property
    def identity(self) -> Identity:
        return Identity(self.object, self.section, self.symbol)


@dataclass(frozen=True)
class BlindSpot:
    """Production functions that a source cannot report, and why."""

    source: str
    reason: str
    functions: tuple[Identity, ...]


@dataclass(frozen=True)
class Run:
    """One guest. ``memory`` in bytes; ``functions`` that this run saw, ``new`` ones among them that no run
    listed before it had seen; ``outside``: executed address ranges that lie in no known function."""

    name: str
    source: str
    memory: int
    arguments: tuple[str, ...]
    outcome: str
    seconds: float
    functions: int
    new: int
    outside: int


@dataclass(frozen=True)
class Profile:
    """``ambiguous``: cut names that stand for more functions than ran (all were taken); ``unmatched``:
    traced functions, "object:symbol", that production has not, and names that no function has."""

    production_build_id: str
    traced_build_id: str
    workload_name: str
    workload_hash: str
    apps: tuple[str, ...]
    sources: tuple[str, ...]
    functions: tuple[FunctionRecord, ...]
    blind_spots: tuple[BlindSpot, ...]
    ambiguous: tuple[str, ...]
    unmatched: tuple[str, ...]
    runs: tuple[Run, ...]


def records(seen: dict[Identity, list[Seen]]) -> tuple[FunctionRecord, ...]:
    """Function records in the profile's order."""
    return tuple(FunctionRecord(*function, tuple(_sorted(seen[function]))) for function in sorted(seen))


def _sorted(seen: list[Seen]) -> list[Seen]:
    return sorted(seen, key=lambda item: (item.app, item.source))


def save_profile(profile: Profile, path: Path) -> None:
    """Write ``profile.json``, whole or not at all."""
    value: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **asdict(profile)}
    write_json(path, value)


def load_profile(path: Path) -> Profile:
    """Read and check a ``profile.json``.

    Raises:
        UserError: anything in it is not as described here.
    """
    raw = read_json(path, WHAT, SCHEMA_VERSION)
    try:
        return _profile({key: value for key, value in raw.items() if key != "schema_version"})
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"reading the {WHAT}: {path} is damaged: {error}", "make it again") from error


def _profile(raw: dict[str, Any]) -> Profile:
    _same_keys(raw, Profile)
    functions = tuple(_record(item) for item in _list(raw["functions"]))
    identities = [function.identity for function in functions]
    if len(set(identities)) != len(identities):
        raise ValueError("a function is listed twice")
    return Profile(
        production_build_id=_is(raw["production_build_id"], str),
        traced_build_id=_is(raw["traced_build_id"], str),
        workload_name=_is(raw["workload_name"], str),
        workload_hash=_is(raw["workload_hash"], str),
        apps=_strings(raw["apps"]),
        sources=_strings(raw["sources"]),
        functions=functions,
        blind_spots=tuple(_blind_spot(item) for item in _list(raw["blind_spots"])),
        ambiguous=_strings(raw["ambiguous"]),
        unmatched=_strings(raw["unmatched"]),
        runs=tuple(_run(item) for item in _list(raw["runs"])),
    )


def _record(raw: Any) -> FunctionRecord:
    _same_keys(raw, FunctionRecord)
    seen = tuple(_seen(item) for item in _list(raw["seen"]))
    if not seen:
        raise ValueError(f"nobody has seen {raw['symbol']!r}")
    return FunctionRecord(_is(raw["object"], str), _is(raw["section"], str), _is(raw["symbol"], str), seen)


def _seen(raw: Any) -> Seen:
    _same_keys(raw, Seen)
    count = raw["count"]
    if count is not None and _is(count, int) < 0:
        raise ValueError(f"count {count} is negative")
    return Seen(_is(raw["app"], str), _is(raw["source"], str), count)


def _blind_spot(raw: Any) -> BlindSpot:
    _same_keys(raw, BlindSpot)
    functions = tuple(Identity(*_strings(item)) for item in _list(raw["functions"]))
    return BlindSpot(_is(raw["source"], str), _is(raw["reason"], str), functions)


def _run(raw: Any) -> Run:
    _same_keys(raw, Run)
    return Run(
        name=_is(raw["name"], str),
        source=_is(raw["source"], str),
        memory=_is(raw["memory"], int),
        arguments=_strings(raw["arguments"]),
        outcome=_is(raw["outcome"], str),
        seconds=float(_is(raw["seconds"], (int, float))),
        functions=_is(raw["functions"], int),
        new=_is(raw["new"], int),
        outside=_is(raw["outside"], int),
    )


def _same_keys(raw: Any, kind: type) -> None:
    expected = {field.name for field in fields(kind)}
    if not isinstance(raw, dict):
        raise TypeError(f"a {kind.__name__} must be an object, not {str(raw)[:40]}")
    if raw.keys() != expected:
        different = ", ".join(sorted(raw.keys() ^ expected))
        raise ValueError(f"a {kind.__name__} has keys too many or too few: {different}")


def _is(value: Any, kind: type[T] | tuple[type[T], ...]) -> T:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{str(value)[:40]!r} has the wrong type")
    return value


def _list(value: Any) -> list[Any]:
    return _is(value, list)


def _strings(value: Any) -> tuple[str, ...]:
    return tuple(_is(item, str) for item in _list(value))


def merge(profiles: list[Profile]) -> Profile:
    """One profile that covers what all of them do; they must be of one production build.

    Counts of one app and source are added up; with an unknown one among them the sum is unknown.

    Raises:
        UserError: no profile, or profiles of different builds.
    """
    if not profiles:
        raise UserError("merging profiles: there are none")
    first = profiles[0]
    for other in profiles[1:]:
        if other.production_build_id != first.production_build_id:
            raise UserError(
                f"merging profiles: {other.workload_name} is of build {other.production_build_id}, "
                f"{first.workload_name} of build {first.production_build_id}",
                "trace all of them with one kernel",
            )
    hashes = sorted({profile.workload_hash for profile in profiles})
    return Profile(
        production_build_id=first.production_build_id,
        traced_build_id=first.traced_build_id,
        workload_name="+".join(_once(profile.workload_name for profile in profiles)),
        workload_hash=hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        apps=_once(app for profile in profiles for app in profile.apps),
        sources=_once(source for profile in profiles for source in profile.sources),
        functions=_merged_functions(profiles),
        blind_spots=_merged_blind_spots(profiles),
        ambiguous=tuple(sorted({name for profile in profiles for name in profile.ambiguous})),
        unmatched=tuple(sorted({name for profile in profiles for name in profile.unmatched})),
        runs=tuple(run for profile in profiles for run in profile.runs),
    )


def _merged_functions(profiles: list[Profile]) -> tuple[FunctionRecord, ...]:
    counts: dict[Identity, dict[tuple[str, str], list[int | None]]] = defaultdict(lambda: defaultdict(list))
    for profile in profiles:
        for function in profile.functions:
            for seen in function.seen:
                counts[function.identity][seen.app, seen.source].append(seen.count)
    return records(
        {
            function: [Seen(app, source, total(numbers)) for (app, source), numbers in by_app.items()]
            for function, by_app in counts.items()
        }
    )


def total(counts: list[int | None]) -> int | None:
    """The sum, or None when one of them is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _merged_blind_spots(profiles: list[Profile]) -> tuple[BlindSpot, ...]:
    functions: dict[tuple[str, str], set[Identity]] = defaultdict(set)
    for profile in profiles:
        for spot in profile.blind_spots:
            functions[spot.source, spot.reason].update(spot.functions)
    return tuple(BlindSpot(*key, tuple(sorted(functions[key]))) for key in sorted(functions))


def _once(items: Any) -> tuple[str, ...]:
    """Each item once, in order of first appearance."""
    return tuple(dict.fromkeys(items))
