"""What can be done with profiles of one kernel.

A function's attribution survives: who saw it, in which app, how often, in which runs.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tracer.host import UserError
from tracer.profiles.profile import BlindSpot, FunctionRecord, Profile, Run, Seen, records
from tracer.profiles.symbols import Identity, Symbols, union


def merge(profiles: Sequence[Profile]) -> Profile:
    """One profile that covers what all of them do; they must be of one production build.

    Counts of one app and source are added up; with an unknown one among them the sum is unknown.

    Raises:
        UserError: no profile, or profiles of different builds.
    """
    if not profiles:
        raise UserError("merging profiles: there are none")
    first = profiles[0]
    for other in profiles[1:]:
        same_kernel(first, other, "merging profiles")
    hashes = sorted({profile.workload_hash for profile in profiles})
    functions = _merged_functions(profiles)
    return Profile(
        kernel=first.kernel,
        traced_build_id=next((p.traced_build_id for p in profiles if p.traced_build_id), ""),
        workload_name="+".join(_once(profile.workload_name for profile in profiles)),
        workload_hash=hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        apps=_once(app for profile in profiles for app in profile.apps),
        sources=_once(source for profile in profiles for source in profile.sources),
        files=tuple(sorted({name: digest for profile in profiles for name, digest in profile.files}.items())),
        functions=functions,
        blind_spots=_merged_blind_spots(profiles),
        ambiguous=tuple(sorted({name for profile in profiles for name in profile.ambiguous})),
        unmatched=tuple(sorted({name for profile in profiles for name in profile.unmatched})),
        runs=_runs_in_order([run for profile in profiles for run in profile.runs], functions),
        references=next((profile.references for profile in profiles if profile.references), None),
        moved_from=tuple(sorted({build for profile in profiles for build in profile.moved_from})),
    )


def _runs_in_order(runs: Sequence[Run], functions: Iterable[FunctionRecord]) -> tuple[Run, ...]:
    """Runs with their ``new`` counted again: the functions that they are the first in the list to see."""
    first = Counter((f.runs & -f.runs).bit_length() - 1 for f in functions if f.runs)
    return tuple(replace(run, new=first[number]) for number, run in enumerate(runs))


def intersect(profiles: Sequence[Profile]) -> Profile:
    """The functions that are in all of the profiles, with what each of them says of these.

    Raises:
        UserError: as :func:`merge`.
    """
    merged = merge(profiles)
    common = set.intersection(*({f.identity for f in profile.functions} for profile in profiles))
    return _only(merged, lambda function: function.identity in common)


def subtract(first: Profile, others: Sequence[Profile]) -> Profile:
    """What is in the first profile and in no other.

    Raises:
        UserError: profiles of different builds.
    """
    for other in others:
        same_kernel(first, other, "subtracting profiles")
    gone = {function.identity for other in others for function in other.functions}
    return _only(first, lambda function: function.identity not in gone)


def without(profile: Profile, apps: Collection[str]) -> Profile:
    """What is left when these apps are no longer to be served; what only they ran goes.

    Raises:
        UserError: the profile has no such app.
    """
    for app in apps:
        if app not in profile.apps:
            known = ", ".join(profile.apps) or "none"
            raise UserError(
                f"leaving app {app} out of {profile.workload_name}: it has no such app", f"it has {known}"
            )
    kept = [
        function._replace(seen=left)
        for function in profile.functions
        if (left := tuple(seen for seen in function.seen if seen.app not in apps))
    ]
    smaller = replace(
        profile, apps=tuple(app for app in profile.apps if app not in apps), functions=tuple(kept)
    )
    return _only(smaller, lambda _: True)


def _only(profile: Profile, wanted: Callable[[FunctionRecord], bool]) -> Profile:
    functions = tuple(function for function in profile.functions if wanted(function))
    objects = {function.object for function in functions}
    return replace(
        profile, functions=functions, files=tuple(row for row in profile.files if row[0] in objects)
    )


@dataclass(frozen=True)
class Difference:
    """Functions of two profiles; ``apps``: app -> how many of its functions are (only in the first, only in
    the second, in both)."""

    only_first: tuple[Identity, ...]
    only_second: tuple[Identity, ...]
    both: tuple[Identity, ...]
    apps: Mapping[str, tuple[int, int, int]]


def diff(first: Profile, second: Profile) -> Difference:
    """Compare two profiles of one kernel.

    Raises:
        UserError: profiles of different builds.
    """
    same_kernel(first, second, "comparing profiles")
    one, two = by_app(first), by_app(second)
    everything, other = one.get("", set()), two.get("", set())
    apps = {
        app: (len(a - b), len(b - a), len(a & b))
        for app in _once([*one, *two])
        if app
        for a, b in [(one.get(app, set()), two.get(app, set()))]
    }
    return Difference(
        tuple(sorted(everything - other)),
        tuple(sorted(other - everything)),
        tuple(sorted(everything & other)),
        apps,
    )


def by_app(profile: Profile) -> dict[str, set[Identity]]:
    """App or phase -> the functions that it ran; "" -> all of the profile's."""
    found: dict[str, set[Identity]] = {"": {function.identity for function in profile.functions}}
    for function in profile.functions:
        for seen in function.seen:
            found.setdefault(seen.app, set()).add(function.identity)
    return found


@dataclass(frozen=True)
class Share:
    """What one app or phase ran, in functions and bytes of text; ``marginal``: what nothing else in the
    profile ran, and what dropping the app would save. Bytes are None without the kernel's symbols."""

    app: str
    functions: int
    bytes: int | None
    marginal_functions: int
    marginal_bytes: int | None


def shares(profile: Profile, sizes: Mapping[Identity, int] | None) -> tuple[Share, ...]:
    """The share of every phase and app, in the order boot, start, apps, shutdown, others; then the total, "".

    Args:
        sizes: bytes of each function; an alias of another one has 0.
    """
    ran = by_app(profile)
    everything = ran.pop("")
    times = Counter(function for functions in ran.values() for function in functions)
    alone = {function for function, number in times.items() if number == 1}
    order = [*dict.fromkeys(["boot", "start", *profile.apps, "shutdown", *sorted(ran)])]

    def size(functions: Iterable[Identity]) -> int | None:
        return None if sizes is None else sum(sizes.get(function, 0) for function in functions)

    def share(app: str, functions: set[Identity], only: set[Identity]) -> Share:
        return Share(app, len(functions), size(functions), len(only), size(only))

    found = [share(app, ran[app], ran[app] & alone) for app in order if app in ran]
    return (*found, share("", everything, everything))


def function_sizes(symbols: Symbols) -> dict[Identity, int]:
    """Bytes of each function of a build; of several names for one place only the first has any."""
    first = np.ones(len(symbols.starts), bool)
    first[1:] = symbols.starts[1:] != symbols.starts[:-1]
    lengths = np.where(first, symbols.ends - symbols.starts, 0).tolist()
    return dict(zip(symbols.functions, lengths, strict=True))


def _merged_functions(profiles: Sequence[Profile]) -> tuple[FunctionRecord, ...]:
    counts: dict[Identity, dict[tuple[str, str, str], list[int | None]]]
    counts = defaultdict(lambda: defaultdict(list))
    runs: dict[Identity, int] = defaultdict(int)
    ran: dict[Identity, tuple[tuple[int, int], ...]] = {}
    before = 0
    for profile in profiles:
        for function in profile.functions:
            runs[function.identity] |= function.runs << before
            known = ran.get(function.identity, function.ran)
            # Where one cannot tell what ran, nobody can.
            ran[function.identity] = _joined([*known, *function.ran]) if known and function.ran else ()
            for seen in function.seen:
                counts[function.identity][seen.app, seen.source, seen.caller].append(seen.count)
        before += len(profile.runs)
    seen_by = {
        function: [Seen(app, source, total(numbers), who) for (app, source, who), numbers in by_app.items()]
        for function, by_app in counts.items()
    }
    return records(seen_by, runs, ran)


def _joined(ranges: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    bounds = np.array(ranges, np.uint64)
    joined = union(bounds[:, 0], bounds[:, 1])
    return tuple(zip(joined.starts.tolist(), joined.ends.tolist(), strict=True))


def same_kernel(first: Profile, other: Profile, doing: str) -> None:
    """Functions are named after a build; of two builds one name may be two functions.

    Raises:
        UserError: the profiles are of different builds.
    """
    if other.kernel.build_id != first.kernel.build_id:
        raise UserError(
            f"{doing}: {other.workload_name} is of build {other.kernel.build_id[:12]}, "
            f"{first.workload_name} of build {first.kernel.build_id[:12]}",
            "trace all of them with one kernel",
        )


def total(counts: list[int | None]) -> int | None:
    """The sum, or None when one of them is unknown."""
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _merged_blind_spots(profiles: Sequence[Profile]) -> tuple[BlindSpot, ...]:
    functions: dict[tuple[str, str], set[Identity]] = defaultdict(set)
    for profile in profiles:
        for spot in profile.blind_spots:
            functions[spot.source, spot.reason].update(spot.functions)
    return tuple(BlindSpot(*key, tuple(sorted(functions[key]))) for key in sorted(functions))


def _once(items: Any) -> tuple[str, ...]:
    """Each item once, in order of first appearance."""
    return tuple(dict.fromkeys(items))
