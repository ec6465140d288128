"""What can be done with profiles of one kernel.

A function's attribution survives: who saw it, in which app, how often, in which runs.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tracer.host import UserError
from tracer.profile import BlindSpot, FunctionRecord, Profile, Seen, records
from tracer.symbols import Identity


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
    return Profile(
        kernel=first.kernel,
        traced_build_id=next((p.traced_build_id for p in profiles if p.traced_build_id), ""),
        workload_name="+".join(_once(profile.workload_name for profile in profiles)),
        workload_hash=hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest(),
        apps=_once(app for profile in profiles for app in profile.apps),
        sources=_once(source for profile in profiles for source in profile.sources),
        files=tuple(sorted({name: digest for profile in profiles for name, digest in profile.files}.items())),
        functions=_merged_functions(profiles),
        blind_spots=_merged_blind_spots(profiles),
        ambiguous=tuple(sorted({name for profile in profiles for name in profile.ambiguous})),
        unmatched=tuple(sorted({name for profile in profiles for name in profile.unmatched})),
        runs=tuple(run for profile in profiles for run in profile.runs),
    )


def _merged_functions(profiles: Sequence[Profile]) -> tuple[FunctionRecord, ...]:
    counts: dict[Identity, dict[tuple[str, str, str], list[int | None]]]
    counts = defaultdict(lambda: defaultdict(list))
    runs: dict[Identity, int] = defaultdict(int)
    before = 0
    for profile in profiles:
        for function in profile.functions:
            runs[function.identity] |= function.runs << before
            for seen in function.seen:
                counts[function.identity][seen.app, seen.source, seen.caller].append(seen.count)
        before += len(profile.runs)
    seen_by = {
        function: [Seen(app, source, total(numbers), who) for (app, source, who), numbers in by_app.items()]
        for function, by_app in counts.items()
    }
    return records(seen_by, runs)


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
