"""The profile: for every function that ran, which app ran it, how often, and what saw it.

This is the one thing that ``tracer`` and ``prune`` share. Functions are named by object, section and symbol
of the production build. The file is strict on the way in, since a damaged profile would be a smaller
kernel, and the same profile is the same bytes on the way out. What can be done with profiles is in
:mod:`tracer.algebra`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from tracer.host import UserError, read_json, write_json
from tracer.references import References, references_of_json, references_to_json
from tracer.symbols import Identity

SCHEMA_VERSION = 5
#: Without ``references``, ``moved_from`` and the kernel's ``options``: not known, that is.
OLDER_VERSION = 4
WHAT = "profile"

T = TypeVar("T")


@dataclass(frozen=True)
class KernelId:
    """Which kernel a profile is of: the GNU build id, SHA-256 of the ``.config``, the hash and the version
    of the source, the hash of the configuration's ``options`` without what the compiler decides; each ""
    where it is not known."""

    build_id: str
    config: str
    source: str
    version: str
    options: str = ""


@dataclass(frozen=True, order=True)
class Seen:
    """``app`` (or ``boot``, ``start``, ``shutdown``, ``miss``) ran the function, says ``source``.

    ``boot`` ends, and ``start`` begins, when the kernel frees its init memory. Source ``stack``: a task slept
    in it when the first app started.
    ``count``: for ``ftrace`` the number of calls, None when a cut name hides which function it was; for
    ``blocks`` the number of runs in which the function ran in that phase; for ``heal`` the number of boots
    that missed it. ``caller``: for ``heal``, who called it, "" when the guest could not say.
    """

    app: str
    source: str
    count: int | None
    caller: str = ""


@dataclass(frozen=True)
class FunctionRecord:
    """One function, and who saw it. Bit ``i`` of ``runs`` (hexadecimal in the file): run ``i`` of the
    profile did; healed and imported functions need no run.

    ``ran``: the bytes of it that were executed, [start, end) from its first one, in order; empty when
    somebody saw it who cannot tell. Good for this very build alone.
    """

    object: str
    section: str
    symbol: str
    seen: tuple[Seen, ...]
    runs: int = 0
    ran: tuple[tuple[int, int], ...] = ()

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
    listed before it had seen; ``outside``: executed address ranges that lie in no known function;
    ``seed``: of the workload's own variation, 0 for none."""

    name: str
    source: str
    memory: int
    seed: int
    arguments: tuple[str, ...]
    outcome: str
    seconds: float
    functions: int
    new: int
    outside: int


@dataclass(frozen=True)
class Profile:
    """``kernel``: the production build that functions are named after. ``files``: object -> hash of the
    source file that it was compiled from, where that is known, for every object in ``functions``.
    ``ambiguous``: names that stand for more functions than ran (all were taken); ``unmatched``:
    traced functions, "object:symbol", that production has not, and names that no function has.
    ``references``: of the whole build, where they are known; ``moved_from``: the builds, by their ids, that
    functions in it were carried over from."""

    kernel: KernelId
    traced_build_id: str
    workload_name: str
    workload_hash: str
    apps: tuple[str, ...]
    sources: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    functions: tuple[FunctionRecord, ...]
    blind_spots: tuple[BlindSpot, ...]
    ambiguous: tuple[str, ...]
    unmatched: tuple[str, ...]
    runs: tuple[Run, ...]
    references: References | None = None
    moved_from: tuple[str, ...] = ()

    @property
    def objects(self) -> frozenset[str]:
        """The objects of its build that have functions, as far as they are known."""
        rows = self.references.functions if self.references else ()
        return frozenset({name for name, _ in rows} | {function.object for function in self.functions})


def records(
    seen: dict[Identity, list[Seen]],
    runs: Mapping[Identity, int] | None = None,
    ran: Mapping[Identity, tuple[tuple[int, int], ...]] | None = None,
) -> tuple[FunctionRecord, ...]:
    """Function records in the profile's order."""
    which, where = runs or {}, ran or {}
    return tuple(
        FunctionRecord(
            *function, tuple(_sorted(seen[function])), which.get(function, 0), where.get(function, ())
        )
        for function in sorted(seen)
    )


def _sorted(seen: list[Seen]) -> list[Seen]:
    return sorted(seen, key=lambda item: (item.app, item.source, item.caller))


def save_profile(profile: Profile, path: Path) -> None:
    """Write ``profile.json``, whole or not at all."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **to_json(profile)})


def to_json(profile: Profile) -> dict[str, Any]:
    """The profile as it stands in its file."""
    value = asdict(replace(profile, references=None))
    value["references"] = references_to_json(profile.references)
    value["files"] = dict(profile.files)
    for row in value["functions"]:
        row["runs"] = f"{row['runs']:x}"
        row["ran"] = [bound for bounds in row["ran"] for bound in bounds]
        for seen in row["seen"]:
            if not seen["caller"]:
                del seen["caller"]
    return value


def load_profile(path: Path) -> Profile:
    """Read and check a ``profile.json``.

    Raises:
        UserError: anything in it is not as described here.
    """
    raw = read_json(path, WHAT, SCHEMA_VERSION, OLDER_VERSION)
    try:
        if raw["schema_version"] == OLDER_VERSION:
            raw = {**raw, "kernel": {**raw["kernel"], "options": ""}, "references": None, "moved_from": []}
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
        kernel=_kernel(raw["kernel"]),
        traced_build_id=_is(raw["traced_build_id"], str),
        workload_name=_is(raw["workload_name"], str),
        workload_hash=_is(raw["workload_hash"], str),
        apps=_strings(raw["apps"]),
        sources=_strings(raw["sources"]),
        files=tuple((name, _is(digest, str)) for name, digest in _is(raw["files"], dict).items()),
        functions=functions,
        blind_spots=tuple(_blind_spot(item) for item in _list(raw["blind_spots"])),
        ambiguous=_strings(raw["ambiguous"]),
        unmatched=_strings(raw["unmatched"]),
        runs=tuple(_run(item) for item in _list(raw["runs"])),
        references=references_of_json(raw["references"]),
        moved_from=_strings(raw["moved_from"]),
    )


def _kernel(raw: Any) -> KernelId:
    _same_keys(raw, KernelId)
    return KernelId(**{key: _is(value, str) for key, value in raw.items()})


def _record(raw: Any) -> FunctionRecord:
    _same_keys(raw, FunctionRecord)
    seen = tuple(_seen(item) for item in _list(raw["seen"]))
    if not seen:
        raise ValueError(f"nobody has seen {raw['symbol']!r}")
    runs = _is(raw["runs"], str)
    if not re.fullmatch(r"[0-9a-f]{1,4096}", runs):
        raise ValueError(f"runs {runs[:40]!r} is not hexadecimal")
    names = Identity(*(_is(raw[key], str) for key in ("object", "section", "symbol")))
    return FunctionRecord(*names, seen, int(runs, 16), _ran(raw["ran"]))


def _ran(raw: Any) -> tuple[tuple[int, int], ...]:
    bounds = [_is(bound, int) for bound in _list(raw)]
    if len(bounds) % 2 or any(one >= other for one, other in pairwise([-1, *bounds])):
        raise ValueError(f"what ran, {str(bounds)[:40]}, is not ranges in order")
    return tuple(zip(bounds[::2], bounds[1::2], strict=True))


def _seen(raw: Any) -> Seen:
    _same_keys({"caller": "", **raw} if isinstance(raw, dict) else raw, Seen)
    count = raw["count"]
    if count is not None and _is(count, int) < 0:
        raise ValueError(f"count {count} is negative")
    return Seen(_is(raw["app"], str), _is(raw["source"], str), count, _is(raw.get("caller", ""), str))


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
        seed=_is(raw["seed"], int),
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
