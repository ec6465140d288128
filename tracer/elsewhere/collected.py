"""The tar that ``collect.sh`` writes on the machine that ran the apps, proved whole while it is read.

    kprune/manifest            comes first, see :mod:`tracer.elsewhere.manifest`
    kprune/facts/NAME          what kernel it was
    kprune/apps/N/NAME         app N's scripts
    kprune/runs/N.R/NAME       run R of app N: a table of the profiler's per processor, `capacity`, `said`

It comes from a machine that need not be trusted: members that ``collect.sh`` would not write are refused,
nothing is unpacked, and memory is bounded by the largest member that is allowed.

    UserError   not such a tar, or made to do harm
    LostEvents  truncated, damaged, or the profiler had no room for all that ran
"""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from tracer.elsewhere.manifest import DOING, MANIFEST, ROOT, Manifest, checksum, read_manifest, read_members
from tracer.host import UserError, printable
from tracer.notes import read_build_id
from tracer.outcome import AppFailed, LostEvents
from tracer.readers.common import MAX_SIGHTINGS
from tracer.readers.ftrace import NAME_WIDTH, parse_rows
from tracer.readers.sightings import Sighting

MAX_CONFIG = 1 << 22
MAX_NOTES = 1 << 16
#: Functions of one kernel, and so rows of one processor: more than any has.
MAX_FUNCTIONS = 1 << 20
_MAX_ROW = 200
_SAID = 2000
#: Rows that the profiler has room for when it does not know how many functions there are (ftrace.c,
#: ftrace_profile_pages_init).
STATIC_CAPACITY = 20000


@dataclass(frozen=True)
class Facts:
    """What the machine said of its kernel; "" or empty where it did not. ``config``: SHA-256 of its
    ``.config``; ``functions`` that ftrace can report; ``symbols``: functions outside modules."""

    uname: str = ""
    version: str = ""
    cmdline: str = ""
    build_id: str = ""
    config: str = ""
    functions: frozenset[str] = frozenset()
    symbols: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AppRun:
    """Run ``run``, from 0, of an app. ``outcome``: "ok", or what failed; ``said``: the end of its output."""

    app: str
    run: int
    outcome: str
    said: str
    sightings: tuple[Sighting, ...]


@dataclass(frozen=True)
class Collected:
    """All of the tar. ``repeats``: runs that were asked for; ``scripts``: SHA-256 of what was run."""

    apps: tuple[str, ...]
    repeats: int
    scripts: str
    facts: Facts
    runs: tuple[AppRun, ...]


def is_collected(path: Path) -> bool:
    """Whether the file begins as these tars do."""
    try:
        with path.open("rb") as stream:
            return stream.read(len(MANIFEST) + 1) == MANIFEST.encode() + b"\0"
    except OSError:
        return False


def read_collected(path: Path) -> Collected:
    """Read and prove the tar.

    Raises:
        AppFailed: an app failed, and it was not collected with --keep-going.
        UserError, LostEvents: see above.
    """
    try:
        with path.open("rb") as stream:
            return _collected(stream)
    except OSError as error:
        raise UserError(f"{DOING}: {path}: {error.strerror}") from error
    except AppFailed as error:
        raise AppFailed(f"{path}: {error.summary}", remedy=_MEND) from error
    except LostEvents as error:
        raise LostEvents(f"{path}: {error}", remedy="fetch it, or collect, again") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


_MEND = "mend the app, or collect with --keep-going to do without it"


def _collected(stream: BinaryIO) -> Collected:
    members = read_members(stream)
    name, data = next(members, ("", b""))
    if name != MANIFEST:
        raise UserError(f"{DOING}: it does not begin with a manifest; it is not a tar of collect.sh's")
    manifest = read_manifest(data)
    reader = _Reader(manifest)
    for name, data in members:
        reader.take(name.removeprefix(ROOT), data)
    return reader.collected()


@dataclass
class _Tables:
    """The profiler's tables of one run, added up. ``bearers``: how many functions share the name, or what is
    left of it: each has a row, so as many as the most rows that a processor has. ``most``: rows of any."""

    totals: Counter[str] = field(default_factory=Counter)
    bearers: Counter[str] = field(default_factory=Counter)
    tables: int = 0
    most: int = 0
    capacity: int = STATIC_CAPACITY

    def add(self, data: bytes) -> int:
        """One processor's; how many sightings more that makes. A processor that was not there has no rows."""
        if data.count(b"\n") > MAX_FUNCTIONS:
            raise UserError(f"{DOING}: a table of more than {MAX_FUNCTIONS} functions; no kernel has so many")
        if any(len(line) > _MAX_ROW for line in data.splitlines()) or not data.endswith(b"\n"):
            raise LostEvents(f"{DOING}: a function profile is damaged")
        rows = [row for row in parse_rows(data) if row.hits]
        before = self.bearers.total()
        self.bearers |= Counter(row.name for row in rows)
        for row in rows:
            self.totals[row.name] += row.hits
        self.tables += 1
        self.most = max(self.most, len(rows))
        return self.bearers.total() - before

    def sightings(self, app: str) -> Iterator[Sighting]:
        """Which of one processor's rows goes with which of another's is not known, so nor are counts."""
        for name, number in self.bearers.items():
            for _ in range(number):
                count = self.totals[name] if number == 1 else None
                yield Sighting(app, count, name, cut=len(name) == NAME_WIDTH)


class _Reader:
    """Takes the files in as they come, each checked against the manifest; keeps what is needed of them."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._seen: set[str] = set()
        self._facts: dict[str, bytes] = {}
        self._scripts: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._tables: dict[str, _Tables] = defaultdict(_Tables)
        self._sightings = 0

    def take(self, name: str, data: bytes) -> None:
        """One file, checked."""
        size, total = self._manifest.files.get(name, (-1, ""))
        if size < 0:
            raise UserError(f"{DOING}: {name!r} is not in its manifest")
        if name in self._seen:
            raise UserError(f"{DOING}: it holds {name!r} twice")
        if len(data) != size:
            raise LostEvents(f"{DOING}: {name} is truncated: {len(data)} of {size} bytes")
        if checksum(self._manifest.values["sum"], data) != total:
            raise LostEvents(f"{DOING}: {name} is damaged: its checksum differs")
        self._seen.add(name)
        folder, _, leaf = name.rpartition("/")
        if folder == "facts":
            self._facts[leaf] = data
        elif folder.startswith("apps/"):
            self._scripts[name] = hashlib.sha256(data).hexdigest()
        elif leaf == "said":
            self._said[folder] = printable(data[-_SAID:])
        elif leaf == "capacity":
            self._tables[folder].capacity = _first_number(data)
        elif leaf.startswith("function"):
            self._sightings += self._tables[folder].add(data)
            if self._sightings > MAX_SIGHTINGS:
                raise UserError(f"{DOING}: more than {MAX_SIGHTINGS} functions of all apps and runs")

    def collected(self) -> Collected:
        """Everything, once it is all there."""
        manifest = self._manifest
        missing = sorted(manifest.files.keys() - self._seen)
        if missing:
            raise LostEvents(f"{DOING}: {missing[0]} is missing, and {len(missing) - 1} more files")
        runs = tuple(self._run(*key, outcome) for key, outcome in manifest.ran.items())
        if manifest.failed and manifest.values["keep-going"] == "no":
            failed = runs[-1]
            tail = " | ".join(failed.said.strip().splitlines()[-5:]) or "nothing"
            raise AppFailed(f"running app {failed.app}: {failed.outcome}; it said: {tail}")
        scripts = hashlib.sha256(repr(sorted(self._scripts.items())).encode()).hexdigest()
        return Collected(
            tuple(manifest.apps), int(manifest.values["runs"]), scripts, _read_facts(self._facts), runs
        )

    def _run(self, app: int, run: int, outcome: str) -> AppRun:
        name, folder = self._manifest.apps[app], f"runs/{app}.{run}"
        tables, cpus = self._tables[folder], int(self._manifest.values["cpus"])
        if tables.tables != cpus or not tables.most:
            raise LostEvents(
                f"{DOING}: app {name} has no functions, or those of {cpus} processors are not all"
            )
        if tables.most >= tables.capacity:
            raise LostEvents(
                f"{DOING}: app {name} has {tables.most} rows of at most {tables.capacity}; more may have run"
            )
        return AppRun(
            name, run, printable(outcome), self._said.get(folder, ""), tuple(tables.sightings(name))
        )


def _first_number(data: bytes) -> int:
    """Of ``dyn_ftrace_total_info``: how many functions ftrace knows; 0 when it does not say."""
    first = data.split(maxsplit=1)[:1]
    return int(first[0]) if first and re.fullmatch(rb"\d{1,9}", first[0]) else 0


def _read_facts(files: dict[str, bytes]) -> Facts:
    def text(name: str) -> str:
        return printable(files.get(name, b"")).strip()

    def first_words(name: str) -> frozenset[str]:
        lines = islice(io.BytesIO(files.get(name, b"")), MAX_FUNCTIONS)
        words = (line.split(maxsplit=1)[:1] for line in lines)
        return frozenset(word[0].decode(errors="replace") for word in words if word)

    return Facts(
        text("uname"), text("version"), text("cmdline"), read_build_id(files.get("notes", b"")[:MAX_NOTES]),
        _config_hash(files.get("config.gz", b"")), first_words("functions"), first_words("symbols"),
    )  # fmt: skip


def _config_hash(packed: bytes) -> str:
    try:
        unpacked = zlib.decompressobj(wbits=31).decompress(packed, MAX_CONFIG) if packed else b""
    except zlib.error:
        return ""
    return hashlib.sha256(unpacked).hexdigest() if unpacked else ""
