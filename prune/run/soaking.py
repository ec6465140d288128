"""Soaking: the kernel of a run under load and trouble for as long as is asked for; what is missed is healed.

A guest that missed something is followed by a shorter soak of the kernel that has everything, with block
coverage; plan and link then run again, and another guest goes on for the time that is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prune.guests.boots import PrunedKernel, places_of, watched
from prune.guests.misses import Miss, find_answered, find_misses, missed_calls
from prune.guests.soaked import Guest
from prune.run import passes
from prune.run.kernels import kernel_of
from prune.run.pipeline import Pipeline
from prune.run.profiling import is_smp
from prune.settings import cache_folder
from tracer.collecting.collect import KernelBuild
from tracer.collecting.soak_coverage import collect_soak
from tracer.files.rootfs import Roots
from tracer.host import GuestFailed, GuestLost, ValidationFailed, say
from tracer.machines.vm import NOWHERE
from tracer.profiles.profile import save_profile
from tracer.sessions.executed import executed_blocks
from tracer.sessions.jitter import processors
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import open_session
from tracer.sessions.soak import SECONDS, Stretch, scripts, soaked
from tracer.workloads.workload import Workload

#: Guests in a row that may end without having missed anything: then something else is wrong.
_IN_VAIN = 3


def soak(
    pipeline: Pipeline, side: str, seconds: float, troubles: Sequence[str], wanted: int,
    so_far: Callable[[Sequence[Guest]], None],
) -> list[Guest]:  # fmt: skip
    """Soak one kernel, ``base`` or ``pruned``; every guest that it took.

    Args:
        seconds: in all, without what healing takes.
        wanted: requests after which it ends as well, 0 for no such number.
        so_far: is called after each stretch with all guests, the last of which may be at work.
    """
    began = time.monotonic()
    guests: list[Guest] = []
    healing, in_vain = 0.0, 0
    while in_vain < _IN_VAIN:
        answered = sum(guest.requests for guest in guests)
        left = began + healing + seconds - time.monotonic()
        if left < SECONDS or (wanted and answered >= wanted):
            break
        guest = soak_once(
            pipeline.workload, kernel_of(pipeline.folder, side), pipeline.folder.path("soak"),
            began + healing, time.monotonic() + left, tuple(troubles), max(wanted - answered, 0),
            lambda at_work: so_far([*guests, at_work]),
        )  # fmt: skip
        guests.append(guest)
        so_far(guests)
        if not guest.problem:
            break
        say(f"soak: after {guest.requests:,} requests: {guest.problem}")
        in_vain += not guest.misses
        if guest.misses and side == "pruned":
            stopped = time.monotonic()
            if not pipeline.settings.heal or not heal(pipeline, guest.misses, troubles):
                break
            healing += time.monotonic() - stopped
    return guests


def soak_once(
    workload: Workload, kernel: PrunedKernel, into: Path, began: float, until: float,
    troubles: tuple[str, ...], wanted: int, so_far: Callable[[Guest], None],
) -> Guest:  # fmt: skip
    """One guest, until it ends or it is time; ``so_far``: is called after each stretch."""
    root = Roots(workload, into, cache_folder(), scripts(workload)).of(kernel.image)
    log = into / "misses.log"
    log.unlink(missing_ok=True)
    arguments = (*processors(workload.machine.cpus), *NOWHERE)
    options = watched(SessionOptions(arguments=arguments), workload, kernel, log)
    stretches: list[Stretch] = []
    problem, console = "", ""
    phases: tuple[tuple[int, str], ...] = ()
    try:
        with open_session(kernel.image, root, workload, options, into) as session:
            if options.boot_ends:
                session.watch_boot_end()
            try:
                for stretch in soaked(session, began, until, troubles, wanted):
                    stretches.append(stretch)
                    so_far(Guest(tuple(stretches), ()))
                    say(_line(stretch))
            finally:
                phases = tuple((mark.offset, mark.phase) for mark in session.marks)
                console = session.vm.console_text()
    except (GuestFailed, GuestLost, ValidationFailed) as error:
        problem, at = str(getattr(error, "summary", error)), getattr(error, "at", ())
        if at and kernel.graveyard.stones:  # of the whole kernel nothing here knows the symbols
            problem = f"{places_of(kernel, at)}: {problem}"
    executed = executed_blocks(log.read_bytes() if log.is_file() else b"")
    misses = find_misses(kernel.graveyard, executed, console, phases)
    answered = find_answered(kernel.graveyard, executed, phases)
    if answered:
        say(f"soak: {', '.join(map(str, answered[:5]))}")
    if misses:
        problem = "missed " + "; ".join(map(str, misses[:5]))
    elif problem:
        misses = missed_calls(answered)
    return Guest(tuple(stretches), misses, problem)


def _line(stretch: Stretch) -> str:
    trouble = f", {stretch.trouble}" if stretch.trouble else ""
    lost = f", {stretch.unanswered:,} unanswered" if stretch.unanswered else ""
    lost += f"; lost: {stretch.lost}" if stretch.lost else ""
    return (
        f"soak: {stretch.at:.0f} s{trouble}: {stretch.requests:,} requests in {stretch.seconds:.1f} s{lost}"
    )


def heal(pipeline: Pipeline, misses: Sequence[Miss], troubles: Sequence[str]) -> bool:
    """Take misses over into the profile, and what a soak of the whole kernel runs; link again. False when
    none of them is new."""
    new = passes.learn(pipeline.folder, misses)
    if not new:
        return False
    say(f"heal: {', '.join(each.function for each in new)}, missed in the soak")
    try:
        rehearse(pipeline, SECONDS * 2 * max(len(troubles), 1), troubles, f"soak-{new[0].round}")
    except (GuestFailed, GuestLost, ValidationFailed) as error:
        say(f"soak of the whole kernel: {getattr(error, 'summary', error)}")
        pipeline.renew()
    return True


def rehearse(pipeline: Pipeline, seconds: float, troubles: Sequence[str], name: str = "") -> None:
    """Soak the kernel that has everything with block coverage, and link again with what it ran.

    Args:
        name: of the round; "" for the next one without a miss.

    Raises:
        GuestFailed, GuestLost, ValidationFailed: the whole kernel did not get through it.
    """
    folder, into = pipeline.folder, pipeline.folder.path("heal")
    kernel = KernelBuild(folder.base("bzImage"), folder.base("symbols.json"), is_smp(folder.base(".config")))
    profile = collect_soak(pipeline.workload, kernel, into / "soak", cache_folder(), seconds, troubles)
    earlier = [path for path in folder.retraced if "rehearsal" in path.name]
    name = name or f"rehearsal-{len(earlier) + 1}"
    save_profile(profile, into / f"round-{name}.json")
    pipeline.renew()
