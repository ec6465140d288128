"""What a profile says of units: which ran, which were missed, in which phases, whether blocks are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from prune.model.image import Image
from prune.plan.bootonly import Phases
from prune.plan.closure import SEES_ALL
from tracer.host import UserError, say
from tracer.phase_names import BOOT, HEALED
from tracer.profiles.phases import STACK, phase_of
from tracer.profiles.profile import Profile
from tracer.profiles.signatures import Signatures

#: Before it is said of a function that it never runs again.
_ENOUGH_RUNS = 3


@dataclass(frozen=True)
class Evidence:
    """What a profile says of units. ``masks``: who saw it, as in
    :class:`tracer.profiles.signatures.Signatures`; ``ran``: the apps that ran it and the sources that saw it,
    for the plan's reasons; ``missed``: who missed it, of what only healing has seen."""

    masks: Mapping[int, int]
    ran: Mapping[int, str]
    missed: Mapping[int, str]


def evidence(profile: Profile, kinds: Signatures, image: Image) -> Evidence:
    """Go through the functions once.

    Args:
        kinds: of the profile.

    Raises:
        UserError: the profile speaks of a unit that this image does not have.
    """
    healing = kinds.mask_of([HEALED])
    masks: dict[int, int] = {}
    missed: dict[int, str] = {}
    units = _units(profile, image)
    for record, unit, mask in zip(profile.functions, units, kinds.masks, strict=True):
        masks[unit] = masks.get(unit, 0) | mask
        if not mask & ~healing:
            missed[unit] = f"missed by a boot, called by {record.seen[0].caller or 'unknown'}"
    why = {
        mask: f"{', '.join(kinds.apps(mask))} ({'+'.join(sorted(kinds.sources(mask)))})"
        for mask in set(masks.values())
    }
    return Evidence(masks, {unit: why[mask] for unit, mask in masks.items() if unit not in missed}, missed)


def _units(profile: Profile, image: Image) -> list[int]:
    """The unit of each function."""
    units_of = image.units_of
    try:
        return [units_of[record.object][record.section] for record in profile.functions]
    except KeyError:
        lost = next(each for each in profile.functions if image.unit_at(each.object, each.section) < 0)
        raise UserError(
            f"making the plan: the profile knows {lost.object}:{lost.section}, this kernel does not",
            "the profile is of another build: trace this one",
        ) from None


def boot_phases(profile: Profile, kinds: Signatures, known: Evidence) -> Phases | None:
    """Which units ran in boot, and which of them never again; None when nobody can tell."""
    if not kinds.mask_of([STACK]):
        say(
            "nothing is freed after boot: the profile does not tell where tasks sleep; trace with this kprune"
        )
        return None
    if not _enough_runs(profile, "nothing is freed after boot"):
        return None
    phases = {mask: set(map(phase_of, kinds.apps(mask))) for mask in set(known.masks.values())}
    boot = [unit for unit, mask in known.masks.items() if BOOT in phases[mask]]
    return Phases(boot, [unit for unit in boot if len(phases[known.masks[unit]]) == 1])


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
