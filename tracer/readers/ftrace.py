"""ftrace coverage: which functions ran while an app's window was open, and how often.

The agent sends the profiler's ``trace_stat/functionN`` files in frames:

    kprune 1
    frame APP-NUMBER NAME BYTES MD5
    ...the file...
    end

Every frame is checked, so that a profile is never quietly smaller than what the guest saw. The
profiler cuts names at 30 characters and gives no addresses; names are resolved against the functions
of the traced kernel, and what stays ambiguous is kept in full and said.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from tracer.outcome import LostEvents
from tracer.profiles.symbols import Identity, Symbols

NAME_WIDTH = 30
_FRAME = re.compile(rb"frame (\d{1,6}) (\S{1,99}) (\d{1,10}) ([0-9a-f]{32})\n")
_STACKED = re.compile(r"^\[<[0-9a-f]+>\] ([\w.]+)\+0x", re.M)
#: A function of a module that is not there any more has no name.
_NAMELESS = re.compile(r" {32,}\d{1,20}(?:\s.*)?")
_ROW = re.compile(r"  (\S+)\s+(\d{1,20})(?:\s.*)?")


@dataclass(frozen=True)
class Frame:
    """One file of the guest's, as it was there."""

    app: int
    name: str
    data: bytes


@dataclass(frozen=True)
class Row:
    """One line of the profiler's: a name, perhaps cut, and how often it was entered."""

    name: str
    hits: int


@dataclass(frozen=True)
class Resolved:
    """Functions of the traced kernel with hits (None where a name stands for several functions);
    names that stand for more functions than ran; names that no function has."""

    hits: dict[Identity, int | None]
    ambiguous: tuple[str, ...]
    unknown: tuple[str, ...]


def read_frames(data: bytes) -> list[Frame]:
    """Take the trace port's bytes apart.

    Raises:
        LostEvents: anything is missing, damaged or not as described above.
    """
    greeting, end = b"kprune 1\n", b"end\n"
    if not data.startswith(greeting):
        raise LostEvents("reading the trace: the guest sent none, or its beginning is lost")
    frames: list[Frame] = []
    at = len(greeting)
    while data[at:] != end:
        match = _FRAME.match(data, at)
        if not match:
            raise LostEvents(f"reading the trace: frame {len(frames) + 1} is damaged or the end is lost")
        body = data[match.end() : match.end() + int(match[3])]
        at = match.end() + len(body) + 1
        label = f"reading the trace: frame {match[2].decode(errors='replace')} of app {int(match[1])}"
        if len(body) != int(match[3]) or data[at - 1 : at] != b"\n":
            raise LostEvents(f"{label} is truncated: {len(body)} of {int(match[3])} bytes")
        if hashlib.md5(body).hexdigest().encode() != match[4]:
            raise LostEvents(f"{label} is damaged: its checksum differs")
        frames.append(Frame(int(match[1]), match[2].decode(errors="replace"), body))
    return frames


def stack_names(frames: list[Frame]) -> frozenset[str]:
    """The functions on the stacks of all tasks (``/proc/PID/stack``: ``[<0>] worker_thread+0x4c/0x3d0``).

    Raises:
        LostEvents: the guest sent no stacks; there is always a kernel thread that sleeps.
    """
    text = b"".join(frame.data for frame in frames if frame.name == "stacks").decode(errors="replace")
    names = frozenset(_STACKED.findall(text))
    if not names:
        raise LostEvents("reading the trace: the stacks of the tasks are missing")
    return names


def rows_by_app(frames: list[Frame], apps: int) -> list[list[Row]]:
    """The profiler's rows of each app, all processors together.

    Raises:
        LostEvents: an app has no frame, a frame is malformed, or the profiler was full.
    """
    result = []
    for app in range(apps):
        mine = [frame for frame in frames if frame.app == app]
        counts = [frame for frame in mine if frame.name.startswith("function")]
        capacity = next((_capacity(frame) for frame in mine if frame.name == "capacity"), 0)
        if not counts or not capacity:
            raise LostEvents(f"reading the trace: the frames of app {app} are missing")
        for frame in counts:
            found = len(parse_rows(frame.data))
            if not 0 < found < capacity:
                raise LostEvents(f"reading the trace: app {app} has {found} rows of at most {capacity}")
        result.append([row for frame in counts for row in parse_rows(frame.data)])
    return result


def _capacity(frame: Frame) -> int:
    """How many functions ftrace knows: the first number of ``dyn_ftrace_total_info``."""
    first = frame.data.split(maxsplit=1)[:1]
    return int(first[0]) if first and re.fullmatch(rb"\d{1,9}", first[0]) else 0


def parse_rows(data: bytes) -> list[Row]:
    """Rows of one ``trace_stat/functionN`` (with or without the graph tracer's times), but for functions
    whose module has been unloaded since.

    Raises:
        LostEvents: not such a file.
    """
    lines = data.decode(errors="replace").splitlines()
    if len(lines) < 2 or lines[0].split()[:2] != ["Function", "Hit"]:
        raise LostEvents("reading the trace: a function profile without its heading")
    rows = []
    for line in lines[2:]:
        if _NAMELESS.fullmatch(line):
            continue
        match = _ROW.fullmatch(line)
        if not match:
            raise LostEvents(f"reading the trace: a function profile with the line {line[:60]!r}")
        rows.append(Row(match[1], int(match[2])))
    return rows


def resolve(rows: list[Row], symbols: Symbols) -> Resolved:
    """Find the functions that the rows stand for.

    A name of 30 characters stands for every traceable function that begins so. One row and one function
    are a match; as many rows as functions mean that all of them ran; fewer rows mean that some of them
    did, and all are taken.
    """
    by_name: dict[str, list[Identity]] = defaultdict(list)
    seen_at: dict[str, set[int]] = defaultdict(set)
    for i, function in enumerate(symbols.functions):
        name = function.symbol[:NAME_WIDTH]
        if symbols.traceable[i]:
            by_name[name].append(function)
            seen_at[name].add(int(symbols.starts[i]))
    hits: dict[Identity, int | None] = {}
    ambiguous, unknown = [], []
    totals: Counter[str] = Counter()
    for row in rows:
        totals[row.name] += row.hits
    number = Counter(row.name for row in rows)
    for name, total in totals.items():
        if name not in by_name:
            unknown.append(name)
            continue
        # Aliases are several names for one place.
        places = len(seen_at[name])
        if number[name] < places:
            ambiguous.append(name)
        for function in by_name[name]:
            hits[function] = total if places == 1 else None
    return Resolved(hits, tuple(sorted(ambiguous)), tuple(sorted(unknown)))
