"""What ``observe.sh`` wrote: how often a running kernel called functions that a plan would drop.

kprune-observe 1
build ID                     of the production kernel that the plan is of
kernel RELEASE MACHINE       that was watched
from SECONDS to SECONDS      since 1970
watched NUMBER               of functions
lost NUMBER                  of events
NAME COUNT                   a function that was called; the count is within a factor of two
end CRC BYTES                as cksum(1) says of all lines before
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.host import HostError, UserError, read_at_most
from tracer.outcome import LostEvents
from tracer.profiles.builds import files_of, kernel_id
from tracer.profiles.identity import base_symbol
from tracer.profiles.profile import Profile, Seen, records
from tracer.profiles.symbols import Identity, Symbols

SOURCE = "observe"
MAX_SIZE = 64 << 20
_HEAD = re.compile(
    r"kprune-observe 1\nbuild (?P<build>\S+)\nkernel (?P<kernel>.*)\n"
    r"from (?P<start>\d{1,12}) to (?P<stop>\d{1,12})\n"
    r"watched (?P<watched>\d{1,9})\nlost (?P<lost>\d{1,18})\n"
)
_ROW = re.compile(r"([\w.$]{1,512}) (\d{1,18})")
_END = re.compile(rb"end ([0-9a-f]{32})\n\Z")


@dataclass(frozen=True)
class Observed:
    """``counts``: name -> calls, most first; ``seconds``: how long it was watched; ``watched``: how many
    functions were."""

    build_id: str
    kernel: str
    seconds: int
    watched: int
    counts: dict[str, int]


def read_observed(path: Path) -> Observed:
    """Read and check a result.

    Raises:
        UserError: not such a file, or damaged.
        LostEvents: the kernel lost events while it was watched.
    """
    doing = f"reading the observation {path}"
    try:
        data = read_at_most(path, MAX_SIZE)
    except FileNotFoundError:
        raise UserError(f"{doing}: it does not exist") from None
    except OSError as error:
        raise HostError(f"{doing}: {error.strerror}") from error
    again = "copy it again from where observe.sh wrote it"
    end = _END.search(data[-64:])
    body = data[: -len(end[0])] if end else b""
    if not end or hashlib.md5(body).hexdigest().encode() != end[1] or len(data) > MAX_SIZE:
        raise UserError(f"{doing}: it is cut short, damaged, or no observation", again)
    text = body.decode("ascii", errors="replace")
    head = _HEAD.match(text)
    if not head:
        raise UserError(f"{doing}: its beginning is not that of an observation", again)
    if int(head["lost"]):
        raise LostEvents(f"{doing}: the kernel lost {int(head['lost'])} events", remedy="observe again")
    counts: dict[str, int] = {}
    for line in text[head.end() :].splitlines():
        row = _ROW.fullmatch(line)
        if not row or row[1] in counts:
            raise UserError(f"{doing}: the line {line[:60]!r} is none of observe.sh's", again)
        counts[row[1]] = int(row[2])
    seconds = max(0, int(head["stop"]) - int(head["start"]))
    return Observed(head["build"], head["kernel"], seconds, int(head["watched"]), counts)


def filter_names(symbols: Symbols, dropped: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """(names to watch, names that a kept function has too and that ftrace could not tell apart).

    Args:
        dropped: (object, section) of what the plan drops.
    """
    gone = set(dropped)
    by_name: dict[str, set[bool]] = defaultdict(set)
    for function in symbols.functions:
        by_name[function.symbol].add((function.object, function.section) in gone)
    watched = sorted(name for name, fates in by_name.items() if fates == {True})
    return watched, sorted(name for name, fates in by_name.items() if len(fates) == 2)


def observed_profile(observed: Observed, symbols: Symbols, dropped: Iterable[tuple[str, str]]) -> Profile:
    """The functions that were called, as a profile of the build; all of those that share a name.

    Raises:
        UserError: another build was observed.
    """
    if observed.build_id != symbols.build_id:
        raise UserError(
            f"reading the observation: the plan that it watched for is of build {observed.build_id[:12]}, "
            f"this kernel is {symbols.build_id[:12]}",
            "observe with this folder's filter: kprune observe",
        )
    gone = set(dropped)
    by_name: dict[str, list[Identity]] = defaultdict(list)
    for function in symbols.functions:
        if (function.object, function.section) in gone:
            by_name[function.symbol].append(function)
    seen: dict[Identity, list[Seen]] = {}
    unmatched, ambiguous = [], []
    for name, count in observed.counts.items():
        functions = by_name.get(name) or by_name.get(base_symbol(name), [])
        unmatched += [] if functions else [name]
        ambiguous += [name] if len(functions) > 1 else []
        for function in functions:
            seen[function] = [Seen(SOURCE, SOURCE, count if len(functions) == 1 else None)]
    return Profile(
        kernel=kernel_id(symbols),
        traced_build_id="",
        workload_name=SOURCE,
        workload_hash="",
        apps=(SOURCE,),
        sources=(SOURCE,),
        files=files_of(seen, symbols),
        functions=records(seen),
        blind_spots=(),
        ambiguous=tuple(sorted(ambiguous)),
        unmatched=tuple(sorted(unmatched)),
        runs=(),
    )


def filter_text(build_id: str, names: Sequence[str]) -> str:
    """The file ``filter``."""
    return "\n".join([f"# build {build_id}", *names]) + "\n"
