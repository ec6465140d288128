"""What a profile says of units: which ran, which were missed, in which phases, whether blocks are known."""

from __future__ import annotations

from collections.abc import Sequence

from prune.bootonly import Phases
from prune.closure import SEES_ALL
from prune.heal import SOURCE as HEALED
from tracer.host import UserError, say
from tracer.phase_names import BOOT
from tracer.phases import boot_is_known, phases
from tracer.profile import Profile

#: Before it is said of a function that it never runs again.
_ENOUGH_RUNS = 3


def ran_units(profile: Profile) -> dict[tuple[str, str], str]:
    """(object, section) -> the apps that ran it and the sources that saw it, for the plan's reasons."""
    apps: dict[tuple[str, str], dict[str, None]] = {}
    sources: dict[tuple[str, str], set[str]] = {}
    for record in profile.functions:
        place = (record.object, record.section)
        apps.setdefault(place, {}).update(dict.fromkeys(seen.app for seen in record.seen))
        sources.setdefault(place, set()).update(seen.source for seen in record.seen)
    return {place: f"{', '.join(apps[place])} ({'+'.join(sorted(sources[place]))})" for place in apps}


def missed_units(profile: Profile) -> dict[tuple[str, str], str]:
    """(object, section) -> who missed it, of what only healing has seen."""
    return {
        (record.object, record.section): f"missed by a boot, called by {record.seen[0].caller or 'unknown'}"
        for record in profile.functions
        if all(seen.source == HEALED for seen in record.seen)
    }


def boot_phases(profile: Profile) -> Phases | None:
    """Which units ran in boot, and which of them never again; None when nobody can tell."""
    if not boot_is_known(profile):
        say(
            "nothing is freed after boot: the profile does not tell where tasks sleep; trace with this kprune"
        )
        return None
    if not _enough_runs(profile, "nothing is freed after boot"):
        return None
    ran: dict[tuple[str, str], set[str]] = {}
    for record in profile.functions:
        ran.setdefault((record.object, record.section), set()).update(phases(record))
    boot = {place: when for place, when in ran.items() if BOOT in when}
    return Phases(frozenset(boot), frozenset(place for place, when in boot.items() if when == {BOOT}))


def knows_blocks(profile: Profile, moved: Sequence[Profile]) -> bool:
    """Whether the profile tells which blocks of functions never run.

    Raises:
        UserError: it has seen functions only, or has some of them from another build.
    """
    if moved:
        raise UserError(
            f"planning with --grain block: the profile is of build {moved[0].kernel.build_id[:12]} in part, "
            "and blocks of other builds are not those of this one",
            "trace this build with --sources blocks or ftrace+blocks",
        )
    if not any(record.ran for record in profile.functions):
        raise UserError(
            "planning with --grain block: the profile does not say which blocks of this build ran",
            "trace this build with --sources blocks or ftrace+blocks",
        )
    return _enough_runs(profile, "no function loses its cold blocks")


def _enough_runs(profile: Profile, consequence: str) -> bool:
    whole = sum(run.source in SEES_ALL and run.outcome == "powered off" for run in profile.runs)
    if whole < _ENOUGH_RUNS:
        say(f"{consequence}: {whole} whole runs are too few to say what never runs")
    return whole >= _ENOUGH_RUNS
