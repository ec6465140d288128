"""Collect a profile: run the workload on both kernels, see what ran, put it together.

    production kernel, runs        block coverage of boot, every app, shutdown; each run is varied
                                   (:mod:`tracer.sessions.jitter`), because traces differ and one is never
                                   enough; until some runs in a row add nothing
    production kernel, misses      once booted, a hot function's first byte is made invalid: what runs
                                   from there on is the path that reports a miss
    traced kernel, 1 run           calls per function and app, from ftrace's function profiler; with no
                                   other source, as many runs as above, and
    traced kernel, boots           all calls from the first moments on (:mod:`tracer.readers.boot_trace`)

A traced run also tells which functions are on the stacks of sleeping tasks when the first app starts: they go
on some time, whether or not that is seen. Who knows these already needs no traced kernel for block coverage.

What ftrace cannot see, early boot above all, is listed as blind spots; block coverage sees everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tracer.collecting.accumulate import Sightings
from tracer.collecting.coverage import (
    Coverage,
    RunPlan,
    block_run,
    boot_ends,
    boot_run,
    miss_runs,
    moved_run,
    read_coverage,
    stack_run,
    trace_run,
    what_moving_adds,
)  # fmt: skip
from tracer.files.rootfs import Roots
from tracer.host import UserError, say
from tracer.machines.parallel import in_parallel
from tracer.machines.vm import POWERED_OFF
from tracer.outcome import AgentFailed, AppFailed, GuestHung
from tracer.profiles.module_blocks import load_module_code
from tracer.profiles.phases import BLOCKS, FTRACE, STACK
from tracer.profiles.profile import Profile
from tracer.profiles.symbols import Identity, Symbols, load_symbols
from tracer.readers import boot_trace
from tracer.readers.ftrace import read_frames
from tracer.sessions.jitter import FIRST_TRACED, SLOWNESS
from tracer.sessions.runner import SessionResult, run_session
from tracer.workloads.workload import Workload

#: Boots until one has lost no call.
_MOST_BOOTS = 5
#: Runs of a kernel with KASLR that have it on: it takes other ways then, and where it lies changes no more.
_MOVED_RUNS = 2
SOURCES = (FTRACE, BLOCKS, f"{FTRACE}+{BLOCKS}")


@dataclass(frozen=True)
class KernelBuild:
    """A bootable image, the ``symbols.json`` of the same build, whether it can use two processors, and
    whether it chooses where it lies (KASLR)."""

    image: Path
    symbols: Path
    smp: bool = False
    moves: bool = False


@dataclass(frozen=True)
class CollectOptions:
    """``runs``: so many, or 0 for as many as it takes: until the last ``quiet`` runs added nothing and every
    speed of :mod:`tracer.sessions.jitter` was tried, or ``most`` were made. ``sources``: one of
    :data:`SOURCES`; ``misses``: run the deliberate misses; ``jobs``: guests at a time, 0 for as many as there
    are processors; ``keep_logs``: keep the block logs (40 MB each); ``sleepers``: production functions that
    tasks sleep in, None when they are to be looked for."""

    runs: int = 0
    quiet: int = 2
    most: int = 40
    sources: str = f"{FTRACE}+{BLOCKS}"
    misses: bool = True
    jobs: int = 0
    keep_logs: bool = False
    sleepers: tuple[Identity, ...] | None = None


def collect_profile(
    workload: Workload,
    production: KernelBuild,
    traced: KernelBuild | None,
    into: Path,
    cache: Path,
    options: CollectOptions | None = None,
    progress: Callable[[str], None] = say,
) -> Profile:
    """Collect the workload's profile. ``into`` gets the initrd and a folder per run, ``cache`` keeps
    downloaded packages. There is no ``traced`` kernel when neither sources nor sleepers need one.

    Raises:
        AppFailed, GuestPanicked, GuestHung, VmVanished, LostEvents: see :mod:`tracer.outcome`.
        UserError: a symbols file is missing or damaged, an option is out of range.
        HostError: the machine lacks something.
    """
    options = options or CollectOptions()
    sources = _checked(workload, options, traced)
    production_symbols = load_symbols(production.symbols, "production")
    traced_symbols = load_symbols(traced.symbols, "traced") if traced else None
    guests = Guests(workload, Roots(workload, into, cache), into, production_symbols, options, progress)
    sightings = Sightings(workload, production_symbols, traced_symbols)
    coverages: list[Coverage] = []
    ends = boot_ends(production_symbols)

    def make_runs(numbers: range) -> None:
        """Run these on the kernel that the sources ask for, and see what ran."""
        blocks, traces = [], []
        for number in numbers:
            if BLOCKS in sources:
                folder = into / f"{BLOCKS}-{number + 1}"
                blocks.append(block_run(workload, production.image, folder, number, production.smp, ends))
            if traced and FTRACE in sources and (number == 0 or BLOCKS not in sources):
                folder = into / f"{FTRACE}-{number + 1}"
                traces.append(trace_run(workload, traced.image, folder, FIRST_TRACED + number, traced.smp))
        results, covered = guests.run_all(traces, blocks)
        for coverage in covered:
            sightings.add_blocks(coverage)
        for plan, result in results:
            sightings.add_trace(plan, result)
        coverages.extend(covered)

    _until_quiet(make_runs, sightings, options, BLOCKS if BLOCKS in sources else FTRACE, progress)
    if production.moves and BLOCKS in sources:
        _run_moved(guests, production, sightings, coverages)
    sightings.add_sleepers(options.sleepers or ())
    if traced and BLOCKS not in sources:
        _watch_boot(guests, traced, sightings)
    if traced and FTRACE not in sources and options.sleepers is None:
        stack_plan = stack_run(workload, traced.image, into / STACK, traced.smp)
        sightings.add_stacks(stack_plan, guests.session(stack_plan)[1])
    if coverages and options.misses:
        miss_plans = miss_runs(workload, production.image, into, production_symbols, coverages)
        for miss in guests.run_all([], miss_plans)[1]:
            sightings.add_blocks(miss)
    if not all(coverage.flushed for coverage in coverages):
        progress("warning: this emulator keeps its translations: apps get only what no earlier one had run")
    return sightings.profile(sources)


def _checked(workload: Workload, options: CollectOptions, traced: KernelBuild | None) -> list[str]:
    """The sources, if what is asked for can be done."""
    if options.sources not in SOURCES or options.runs < 0 or options.quiet < 1 or options.most < 1:
        raise UserError(
            f"tracing {workload.name}: {options.runs} runs with sources {options.sources!r}",
            f"at least one run, and one of {', '.join(SOURCES)}",
        )
    sources = options.sources.split("+")
    if traced is None and (FTRACE in sources or options.sleepers is None):
        raise UserError(f"tracing {workload.name}: there is no traced kernel", "build it: kprune build")
    return sources


def collect_runs(
    workload: Workload,
    production: KernelBuild,
    into: Path,
    cache: Path,
    numbers: Sequence[int],
    traced: KernelBuild | None = None,
    progress: Callable[[str], None] = say,
) -> Profile:
    """These variations of the workload alone: their block coverage, or, with the traced kernel, what ftrace
    sees; what it raises is as above."""
    symbols = load_symbols(production.symbols, "production")
    guests = Guests(workload, Roots(workload, into, cache), into, symbols, CollectOptions(), progress)
    sightings = Sightings(workload, symbols, load_symbols(traced.symbols, "traced") if traced else None)
    folders = {number: into / f"again-{number}" for number in numbers}
    if traced:
        traces = [trace_run(workload, traced.image, folders[n], n, traced.smp) for n in numbers]
        for plan, result in guests.run_all(traces, [])[0]:
            sightings.add_trace(plan, result)
        return sightings.profile([FTRACE])
    ends = boot_ends(symbols)
    plans = [block_run(workload, production.image, folders[n], n, production.smp, ends) for n in numbers]
    for coverage in guests.run_all([], plans)[1]:
        sightings.add_blocks(coverage)
    return sightings.profile([BLOCKS])


def _until_quiet(
    make_runs: Callable[[range], None],
    sightings: Sightings,
    options: CollectOptions,
    source: str,
    progress: Callable[[str], None],
) -> None:
    """Make runs, as many at a time as there are processors, until they add nothing."""
    if options.runs:
        make_runs(range(options.runs))
        return
    jobs = options.jobs or len(os.sched_getaffinity(0))
    made, wanted = 0, min(len(SLOWNESS), options.most)
    while True:
        make_runs(range(made, wanted))
        made = wanted
        new = [run.new for run in sightings.runs if run.source == source]
        if not any(new[-options.quiet :]) and len(new) > options.quiet:
            progress(f"saturated: the last {options.quiet} of {made} runs added no function")
            return
        if made >= options.most:
            progress(
                f"warning: not saturated: run {made}, the last that is allowed, added {new[-1]} functions"
            )
            return
        wanted = min(made + jobs, options.most)


def _run_moved(
    guests: Guests, production: KernelBuild, sightings: Sightings, coverages: list[Coverage]
) -> None:
    """What only a kernel runs that chooses where it lies."""
    folders = [guests.into / f"moved-{number + 1}" for number in range(_MOVED_RUNS)]
    plans = [moved_run(guests.workload, production.image, each, n) for n, each in enumerate(folders)]
    for coverage in guests.run_all([], plans)[1]:
        sightings.add_blocks(what_moving_adds(coverage, coverages))


def _watch_boot(guests: Guests, traced: KernelBuild, sightings: Sightings) -> None:
    """Boot the traced kernel until a boot was seen without a gap."""
    symbols = sightings.traced
    assert symbols is not None
    left_out = boot_trace.leave_out(sightings.calls(), symbols, room=boot_trace.MAX_LEFT_OUT // _MOST_BOOTS)
    ends = boot_trace.boot_end_ranges(symbols)
    for number in range(1, _MOST_BOOTS + 1):
        into = guests.into / f"{boot_trace.SOURCE}-{number}"
        plan = boot_run(guests.workload, traced.image, into, left_out, traced.smp)
        result = guests.once(plan)
        trace = boot_trace.read_boot_trace(read_frames(result.trace), ends)
        (guests.into / plan.name / "trace.bin").unlink()  # some hundred megabytes
        sightings.add_boot(plan, result, trace)
        if not trace.lost:
            break
        names = {f.symbol: hits for f, hits in boot_trace.functions_at(trace.calls, symbols).items()}
        room = boot_trace.MAX_LEFT_OUT * (number + 1) // _MOST_BOOTS
        left_out = boot_trace.leave_out(names, symbols, left_out, room)
        guests.progress(
            f"{plan.name}: {trace.lost:,} calls had no room; again without {len(left_out)} functions"
        )
    if sightings.runs[-1].outcome != POWERED_OFF:
        guests.progress(f"warning: no boot was seen without a gap ({sightings.runs[-1].outcome})")


@dataclass(frozen=True)
class Guests:
    """Runs guests, several at a time."""

    workload: Workload
    roots: Roots
    into: Path
    symbols: Symbols
    options: CollectOptions
    progress: Callable[[str], None]

    def run_all(
        self, trace_plans: list[RunPlan], block_plans: list[RunPlan]
    ) -> tuple[list[tuple[RunPlan, SessionResult]], list[Coverage]]:
        """Make the runs. The first failure ends them all."""
        # The traced run takes longest: it goes first.
        traces = [partial(self.session, plan) for plan in trace_plans]
        covers = [partial(self.cover, plan) for plan in block_plans]
        work: list[Callable[[], Any]] = [*traces, *covers]
        results = in_parallel(work, self.options.jobs)
        return results[: len(traces)], results[len(traces) :]

    def once(self, plan: RunPlan) -> SessionResult:
        root = self.roots.of(plan.kernel)
        result = run_session(plan.kernel, root, self.workload, plan.options, self.into / plan.name)
        self.progress(f"{plan.name}: {result.outcome} after {result.seconds:.1f} s")
        return result

    def session(self, plan: RunPlan) -> tuple[RunPlan, SessionResult]:
        """Make the run, once more if it was in vain for no fault of the workload's; as it was made."""
        hung = False
        while True:
            try:
                return plan, self.once(plan)
            except (AgentFailed, AppFailed) as error:
                if plan.jitter.slowness is None:
                    raise
                # Some apps have time limits of their own, and in the slowest guest a virtio port may not come
                # up; but such a guest is only there to add to the rest.
                self.progress(f"{plan.name}: again at full speed, for in a slow guest {error.summary}")
                plan = plan.at_full_speed(self.workload)
            except GuestHung as error:
                # Seen once in some two hundred runs, on a host with more guests than processors.
                if hung:
                    raise
                hung = True
                self.progress(f"{plan.name}: once more, for {error.summary}")

    def cover(self, plan: RunPlan) -> Coverage:
        plan, result = self.session(plan)
        listed = self.workload.rootfs.modules and not plan.options.moved
        modules = load_module_code(plan.kernel) if listed else None
        return read_coverage(plan, result, self.workload, self.symbols, self.options.keep_logs, modules)
