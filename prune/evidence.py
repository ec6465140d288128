"""What a profile says of units: which ran, which were missed, in which phases, whether blocks are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prune.bootonly import Phases, Place
from prune.closure import SEES_ALL
from tracer.host import UserError, say
from tracer.phase_names import BOOT, HEALED
from tracer.phases import boot_is_known, phase_of
from tracer.profile import Profile
from tracer.signatures import signatures

#: Before it is said of a function that it never runs again.
_ENOUGH_RUNS = 3


@dataclass(frozen=True)
class Evidence:
    """What a profile says of units, by (object, section). ``ran``: the apps that ran it and the sources that
    saw it, for the plan's reasons; ``missed``: who missed it, of what only healing has seen; ``phases``: in
    which phases of the kernel's life it ran."""

    ran: Mapping[Place, str]
    missed: Mapping[Place, str]
    phases: Mapping[Place, frozenset[str]]


def evidence(profile: Profile) -> Evidence:
    """Go through the functions once."""
    kinds = signatures(profile)
    healing = kinds.mask_of([HEALED])
    masks: dict[Place, int] = {}
    missed: dict[Place, str] = {}
    for record, mask in zip(profile.functions, kinds.masks, strict=True):
        place = (record.object, record.section)
        masks[place] = masks.get(place, 0) | mask
        if not mask & ~healing:
            missed[place] = f"missed by a boot, called by {record.seen[0].caller or 'unknown'}"
    every = set(masks.values())
    why = {mask: f"{', '.join(kinds.apps(mask))} ({'+'.join(sorted(kinds.sources(mask)))})" for mask in every}
    when = {mask: frozenset(map(phase_of, kinds.apps(mask))) for mask in every}
    return Evidence(
        {place: why[mask] for place, mask in masks.items()},
        missed,
        {place: when[mask] for place, mask in masks.items()},
    )


def boot_phases(profile: Profile, known: Evidence) -> Phases | None:
    """Which units ran in boot, and which of them never again; None when nobody can tell."""
    if not boot_is_known(profile):
        say(
            "nothing is freed after boot: the profile does not tell where tasks sleep; trace with this kprune"
        )
        return None
    if not _enough_runs(profile, "nothing is freed after boot"):
        return None
    boot = [place for place, when in known.phases.items() if BOOT in when]
    return Phases(frozenset(boot), frozenset(place for place in boot if len(known.phases[place]) == 1))


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
