"""A profile from a trace that was made elsewhere, with what is not known of it said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from tracer.elsewhere.collected import AppRun, Collected, Facts, is_collected, read_collected
from tracer.elsewhere.manifest import OK
from tracer.elsewhere.matching import ANOTHER, FTRACE_LIKE, PRODUCTION, TRACED, Kernels, Matched, match
from tracer.host import file_hash
from tracer.phase_names import BOOT, START
from tracer.profiles.algebra import total
from tracer.profiles.builds import blind_spots, files_of, kernel_id
from tracer.profiles.identity import Carrier, base_symbol
from tracer.profiles.profile import BlindSpot, Profile, Run, Seen, records
from tracer.profiles.symbols import Identity, Symbols
from tracer.readers.boot_trace import SOURCE as WATCHED_BOOT
from tracer.readers.boot_trace import has_beginning
from tracer.readers.formats import read_foreign
from tracer.readers.sightings import ForeignTrace

#: The format that is collect.sh's, and the profile's word for what saw it.
COLLECT, FTRACE = "collect", "ftrace"


@dataclass(frozen=True)
class Imported:
    """``kernel``: which one ran (:mod:`tracer.elsewhere.matching`); ``version``: what it says of itself, ""
    if nothing; ``names`` in the trace; ``failed``: "app: what failed" of each run that went on without it."""

    profile: Profile
    kernel: str
    version: str
    names: int
    failed: tuple[str, ...] = ()


def import_file(path: Path, kernels: Kernels, app: str = "", format: str = "", of: str = "") -> Imported:
    """Read a file of any format that is known and match it.

    Raises:
        UserError: it cannot be read or matched.
        LostEvents, AppFailed: it is not complete.
    """
    if format == COLLECT or (not format and is_collected(path)):
        return import_collected(path, kernels, of)
    return import_trace(read_foreign(path, app, format), kernels, path.stem, file_hash(path), of)


def import_trace(trace: ForeignTrace, kernels: Kernels, name: str, content: str, of: str = "") -> Imported:
    """Match a trace; ``name`` and ``content`` (a hash) stand for the workload, which nobody knows. All that
    ftrace saw of the app "boot" is a boot that was watched."""
    matched = match(trace, kernels, of)
    runs: tuple[Run, ...] = ()
    failed: tuple[str, ...] = ()
    if trace.apps == (BOOT,) and trace.source in FTRACE_LIKE:
        functions = {function for function, _ in matched.hits}
        failed = () if has_beginning(functions) else ("boot: its beginning",)
        outcome = OK if not failed else "lost the beginning"
        runs = (Run(name, WATCHED_BOOT, 0, 0, (), outcome, 0.0, len(functions), len(functions), 0),)
        trace = replace(trace, apps=())
    profile = _profile(trace, [matched], kernels, (name, content), runs)
    return Imported(profile, matched.kernel, "", len(matched.names), failed)


def import_collected(
    path: Path, kernels: Kernels, of: str = "", workload: tuple[str, str] | None = None
) -> Imported:
    """Read and match a tar of collect.sh's; ``workload``: its name and hash, where they are known."""
    collected = read_collected(path)
    facts, by_run = collected.facts, _by_run(collected)
    traces = [_trace(collected, runs) for runs in by_run]
    matches = [match(trace, kernels, of, facts.functions) for trace in traces]
    known: set[Identity] = set()
    runs = []
    for each, matched in zip(by_run, matches, strict=True):
        functions = {function for function, _ in matched.hits}
        runs.append(_run(each, len(functions), len(functions - known)))
        known |= functions
    everything = _trace(collected, collected.runs)
    profile = _profile(
        everything, matches, kernels, workload or (path.stem, collected.scripts), tuple(runs), facts
    )
    names = frozenset().union(*(matched.names for matched in matches))
    failed = tuple(f"{run.app}: {run.outcome}" for run in collected.runs if run.outcome != OK)
    return Imported(profile, matches[0].kernel, facts.version, len(names), failed)


def _by_run(collected: Collected) -> list[list[AppRun]]:
    return [list(runs) for _, runs in groupby(collected.runs, key=lambda each: each.run)]


def _trace(collected: Collected, runs: Iterable[AppRun]) -> ForeignTrace:
    sightings = tuple(sighting for run in runs for sighting in run.sightings)
    return ForeignTrace(FTRACE, collected.apps, sightings, collected.facts.build_id)


def _run(apps: list[AppRun], functions: int, new: int) -> Run:
    outcome = "; ".join(f"{each.app}: {each.outcome}" for each in apps if each.outcome != OK) or OK
    number = apps[0].run
    return Run(f"{COLLECT}-{number + 1}", FTRACE, 0, number, (), outcome, 0.0, functions, new, 0)


def _profile(
    trace: ForeignTrace,
    matches: list[Matched],
    kernels: Kernels,
    workload: tuple[str, str],
    runs: tuple[Run, ...],
    facts: Facts | None = None,
) -> Profile:
    """``matches``: of each run, if there are ``runs``, else of the whole trace."""
    counts: dict[Identity, dict[str, list[int | None]]] = defaultdict(lambda: defaultdict(list))
    seen_in: dict[Identity, int] = defaultdict(int)
    for number, matched in enumerate(matches):
        for (function, app), hits in matched.hits.items():
            counts[function][app].append(hits)
            seen_in[function] |= 1 << number if runs else 0
    seen = {
        function: [
            Seen(phase, trace.source, total(hits)) for app, hits in by_app.items() for phase in _phases(app)
        ]
        for function, by_app in counts.items()
    }
    return Profile(
        kernel=kernel_id(kernels.production),
        traced_build_id=trace.build_id,
        workload_name=workload[0],
        workload_hash=workload[1],
        apps=trace.apps,
        sources=(trace.source,),
        files=files_of(seen, kernels.production),
        functions=records(seen, seen_in),
        blind_spots=_blind_spots(trace.source, matches[0].kernel, kernels, facts or Facts()),
        ambiguous=_sorted(matched.ambiguous for matched in matches),
        unmatched=_sorted(matched.unmatched | matched.lost for matched in matches),
        runs=runs,
    )


def _phases(app: str) -> tuple[str, ...]:
    """A boot that was traced elsewhere goes on until somebody stopped the tracer: nobody says what of it ran
    after the kernel had freed its init memory."""
    return (BOOT, START) if app == BOOT else (app,)


def _sorted(sets: Iterable[frozenset[str]]) -> tuple[str, ...]:
    return tuple(sorted({name for names in sets for name in names}))


def _blind_spots(source: str, kernel: str, kernels: Kernels, facts: Facts) -> tuple[BlindSpot, ...]:
    """What the function tracer of the kernel that ran could not report. Of a kernel that does not say what it
    can, the traced build speaks, which has the same source at best."""
    if source not in FTRACE_LIKE or kernel == PRODUCTION:
        return ()
    if kernel == ANOTHER and facts.functions:
        return _spots_of_names(source, kernels.production, facts)
    if kernels.traced is None:
        return ()
    like = "" if kernel == TRACED else " in the traced build; the kernel that ran did not say"
    spots = blind_spots(Carrier(kernels.production), kernels.traced)
    return tuple(replace(spot, source=source, reason=spot.reason + like) for spot in spots)


def _spots_of_names(source: str, production: Symbols, facts: Facts) -> tuple[BlindSpot, ...]:
    """By the names of the functions that ftrace knew there, and of all that there were, if they are known."""
    traceable = {base_symbol(name) for name in facts.functions}
    present = {base_symbol(name) for name in facts.symbols}
    blind = [function for function in production.functions if base_symbol(function.symbol) not in traceable]
    absent = {function for function in blind if present and base_symbol(function.symbol) not in present}
    return (
        BlindSpot(source, "has no site for the function tracer", tuple(sorted(set(blind) - absent))),
        BlindSpot(source, "is not a function of the kernel that ran", tuple(sorted(absent))),
    )
