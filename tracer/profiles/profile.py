"""The profile: for every function that ran, which app ran it, how often, and what saw it.

This is the one thing that ``tracer`` and ``prune`` share. Functions are named by object, section and symbol
of the production build. The file is strict on the way in, since a damaged profile would be a smaller
kernel, and the same profile is the same bytes on the way out. What can be done with profiles is in
:mod:`tracer.profiles.algebra`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tracer.host import UserError, read_json, uncollected, write_json
from tracer.profiles.references import References, references_of_json, references_to_json
from tracer.profiles.symbols import Identity

SCHEMA_VERSION = 5
#: Without ``references``, ``moved_from`` and the kernel's ``options``: not known, that is.
OLDER_VERSION = 4
WHAT = "profile"

_HEXADECIMAL = re.compile(r"[0-9a-f]{1,4096}")


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


# Thousands are made for every plan; a frozen dataclass takes several times as long.
class FunctionRecord(NamedTuple):
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
    value = asdict(replace(profile, functions=(), references=None))
    value["references"] = references_to_json(profile.references)
    value["files"] = dict(profile.files)
    value["functions"] = [
        record._asdict()
        | {
            "seen": [_seen_to_json(seen) for seen in record.seen],
            "runs": f"{record.runs:x}",
            "ran": [bound for bounds in record.ran for bound in bounds],
        }
        for record in profile.functions
    ]
    return value


def _seen_to_json(seen: Seen) -> dict[str, Any]:
    return {key: value for key, value in asdict(seen).items() if key != "caller" or value}


# Rows as they must stand in the file: every field, of its type, and no other.


class _Seen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    app: str
    source: str
    count: int | None
    caller: str = ""


class _Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    object: str
    section: str
    symbol: str
    seen: msgspec.Raw  # _Seen rows; thousands of functions have the same, which are read once
    runs: str
    ran: msgspec.Raw  # numbers, read for those who ask


class _BlindSpot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    reason: str
    functions: tuple[tuple[str, str, str], ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    kernel: dict[str, str]
    traced_build_id: str
    workload_name: str
    workload_hash: str
    apps: tuple[str, ...]
    sources: tuple[str, ...]
    files: dict[str, str]
    functions: list[_Function]
    blind_spots: list[_BlindSpot]
    ambiguous: tuple[str, ...]
    unmatched: tuple[str, ...]
    runs: list[dict[str, Any]]
    # Not in older files.
    references: msgspec.Raw = msgspec.Raw(b"null")
    moved_from: tuple[str, ...] = ()


def load_profile(path: Path, references: bool = True, ran: bool = True) -> Profile:
    """Read and check a ``profile.json``; without ``references`` these are passed over, without ``ran`` the
    bytes of functions that ran.

    Raises:
        UserError: anything in it is not as described here.
    """
    try:
        with uncollected():
            return _profile(msgspec.json.decode(path.read_bytes(), type=_File), references, ran)
    except (OSError, msgspec.MsgspecError, TypeError, ValueError, RecursionError) as error:
        read_json(path, WHAT, SCHEMA_VERSION, OLDER_VERSION)  # not there, no JSON, of another version
        raise UserError(f"reading the {WHAT}: {path} is damaged: {error}", "make it again") from error


def _profile(raw: _File, references: bool, ran: bool) -> Profile:
    if raw.schema_version not in (SCHEMA_VERSION, OLDER_VERSION):
        raise ValueError(f"schema_version {raw.schema_version}")
    seen, runs = _Seers(), _Runs()
    functions = tuple(
        [
            FunctionRecord(
                item.object, item.section, item.symbol, seen[bytes(item.seen)],
                runs[item.runs], _ranges(item.ran) if ran else (),
            )
            for item in raw.functions
        ]
    )  # fmt: skip
    identities = {(item.object, item.section, item.symbol) for item in raw.functions}
    if len(identities) != len(functions):
        raise ValueError("a function is listed twice")
    kernel = {"options": "", **raw.kernel} if raw.schema_version == OLDER_VERSION else raw.kernel
    return Profile(
        kernel=msgspec.convert(kernel, KernelId, strict=True)
        if _whole(kernel, KernelId)
        else _wrong(KernelId),
        traced_build_id=raw.traced_build_id,
        workload_name=raw.workload_name,
        workload_hash=raw.workload_hash,
        apps=raw.apps,
        sources=raw.sources,
        files=tuple(raw.files.items()),
        functions=functions,
        blind_spots=tuple(
            BlindSpot(spot.source, spot.reason, tuple(Identity(*function) for function in spot.functions))
            for spot in raw.blind_spots
        ),
        ambiguous=raw.ambiguous,
        unmatched=raw.unmatched,
        runs=tuple(msgspec.convert(run, Run) if _whole(run, Run) else _wrong(Run) for run in raw.runs),
        references=references_of_json(msgspec.json.decode(raw.references)) if references else None,
        moved_from=raw.moved_from,
    )


class _Seers(dict[bytes, tuple[Seen, ...]]):
    """What a function's ``seen`` says, by its text: the same objects for all functions that have the same."""

    _decode = msgspec.json.Decoder(tuple[_Seen, ...]).decode

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[_Seen, Seen] = {}

    def __missing__(self, text: bytes) -> tuple[Seen, ...]:
        known = self._known
        self[text] = made = tuple([known.get(row) or self._seen(row) for row in self._decode(text)])
        if not made:
            raise ValueError("nobody has seen a function that is listed")
        return made

    def _seen(self, row: _Seen) -> Seen:
        if row.count is not None and row.count < 0:
            raise ValueError(f"count {row.count} is negative")
        self._known[row] = made = Seen(row.app, row.source, row.count, row.caller)
        return made


class _Runs(dict[str, int]):
    """What a function's ``runs`` says, by its text."""

    def __missing__(self, text: str) -> int:
        if not _HEXADECIMAL.fullmatch(text):
            raise ValueError(f"runs {text[:40]!r} is not hexadecimal")
        self[text] = made = int(text, 16)
        return made


def _ranges(text: msgspec.Raw) -> tuple[tuple[int, int], ...]:
    bounds = msgspec.json.decode(text, type=list[int])
    if len(bounds) % 2 or (bounds and (bounds[0] < 0 or bounds != sorted(set(bounds)))):
        raise ValueError(f"what ran, {str(bounds)[:40]}, is not ranges in order")
    return tuple(zip(bounds[::2], bounds[1::2], strict=True))


def _whole(raw: Mapping[str, Any], kind: type) -> bool:
    return raw.keys() == {field.name for field in fields(kind)}


def _wrong(kind: type) -> Any:
    raise ValueError(f"a {kind.__name__} has keys too many or too few")
