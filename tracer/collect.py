"""Collect a profile: run the workload on both kernels, see what ran, put it together.

    production kernel, N runs      block coverage of boot, every app, shutdown; memory and timing vary
                                   from run to run, because traces differ and one is never enough
    production kernel, misses      once booted, a hot function's first byte is made invalid: what runs
                                   from there on is the path that reports a miss
    traced kernel, 1 run           calls per function and app, from ftrace's function profiler

Block coverage knows the first time that something ran, so it attributes a function to the phase of that;
ftrace knows every app's functions, but neither boot nor shutdown nor what it cannot trace.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tracer.coverage import (
    BLOCKS,
    FTRACE,
    Coverage,
    RunPlan,
    block_runs,
    miss_runs,
    read_coverage,
    trace_run,
)
from tracer.ftrace import read_frames, resolve, rows_by_app
from tracer.host import UserError, say
from tracer.identity import Carrier
from tracer.outcome import AppFailed, GuestHung
from tracer.profile import BlindSpot, Profile, Run, Seen, records, total
from tracer.rootfs import build_initrd
from tracer.session import SessionResult, run_session
from tracer.symbols import Identity, Symbols, load_symbols
from tracer.vm import end_all
from tracer.workload import Workload

SOURCES = (FTRACE, BLOCKS, f"{FTRACE}+{BLOCKS}")


@dataclass(frozen=True)
class KernelBuild:
    """A bootable image and the ``symbols.json`` of the same build."""

    image: Path
    symbols: Path


@dataclass(frozen=True)
class CollectOptions:
    """``runs`` of block coverage, varied by :data:`tracer.coverage.JITTER`; ``sources``: one of
    :data:`SOURCES`; ``misses``: run the deliberate misses; ``jobs``: guests at a time, 0 for as many as there
    are processors; ``keep_logs``: keep the block logs (20 MB each)."""

    runs: int = 6
    sources: str = f"{FTRACE}+{BLOCKS}"
    misses: bool = True
    jobs: int = 0
    keep_logs: bool = False


def collect_profile(
    workload: Workload,
    production: KernelBuild,
    traced: KernelBuild,
    into: Path,
    cache: Path,
    options: CollectOptions | None = None,
    progress: Callable[[str], None] = say,
) -> Profile:
    """Collect the workload's profile. ``into`` gets the initrd and a folder per run, ``cache`` keeps
    downloaded packages.

    Raises:
        AppFailed, GuestPanicked, GuestHung, VmVanished, LostEvents: see :mod:`tracer.outcome`.
        UserError: a symbols file is missing or damaged, an option is out of range.
        HostError: the machine lacks something.
    """
    options = options or CollectOptions()
    if options.sources not in SOURCES or options.runs < 1:
        raise UserError(
            f"tracing {workload.name}: {options.runs} runs with sources {options.sources!r}",
            f"at least one run, and one of {', '.join(SOURCES)}",
        )
    sources = options.sources.split("+")
    production_symbols = load_symbols(production.symbols, "production")
    traced_symbols = load_symbols(traced.symbols, "traced")
    initrd = build_initrd(workload, into, cache)
    guests = _Guests(workload, initrd, into, production_symbols, options, progress)
    sightings = _Sightings(workload, production_symbols, traced_symbols)

    trace_plans = [trace_run(workload, traced.image)] if FTRACE in sources else []
    block_plans = block_runs(workload, production.image, into, options.runs) if BLOCKS in sources else []
    traces, coverages = guests.run_all(trace_plans, block_plans)
    for coverage in coverages:
        sightings.add_blocks(coverage)
    if coverages and options.misses:
        miss_plans = miss_runs(workload, production.image, into, production_symbols, coverages)
        for miss in guests.run_all([], miss_plans)[1]:
            sightings.add_blocks(miss)
    for plan, result in zip(trace_plans, traces, strict=True):
        sightings.add_trace(plan, result)
    return sightings.profile(sources)


@dataclass(frozen=True)
class _Guests:
    """Runs guests, several at a time."""

    workload: Workload
    initrd: Path
    into: Path
    symbols: Symbols
    options: CollectOptions
    progress: Callable[[str], None]

    def run_all(
        self, trace_plans: list[RunPlan], block_plans: list[RunPlan]
    ) -> tuple[list[SessionResult], list[Coverage]]:
        """Make the runs. The first failure ends them all."""
        jobs = self.options.jobs or len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(jobs) as pool:
            # The traced run takes longest: it goes first.
            traces = [pool.submit(self.session, plan) for plan in trace_plans]
            covers = [pool.submit(self.cover, plan) for plan in block_plans]
            every: list[Future[Any]] = [*traces, *covers]
            try:
                for run in wait(every, return_when=FIRST_EXCEPTION).done:
                    run.result()
                return [run.result() for run in traces], [run.result() for run in covers]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                while not all(run.done() for run in every):  # one may have been about to start
                    end_all()
                    time.sleep(0.1)
                raise

    def session(self, plan: RunPlan) -> SessionResult:
        result = run_session(plan.kernel, self.initrd, self.workload, plan.options, self.into / plan.name)
        self.progress(f"{plan.name}: {result.outcome} after {result.seconds:.1f} s")
        return result

    def cover(self, plan: RunPlan) -> Coverage:
        try:
            result = self.session(plan)
        except AppFailed as error:
            if not plan.options.arguments:
                raise
            # Some apps have time limits of their own, and a slow guest is only there to add to the rest.
            self.progress(f"{plan.name}: again at full speed, for in a slow guest {error.summary}")
            plan = replace(plan, options=replace(plan.options, arguments=(), patience=1))
            result = self.session(plan)
        except GuestHung as error:
            # Seen once in some two hundred runs, on a host with more guests than processors.
            self.progress(f"{plan.name}: once more, for {error.summary}")
            result = self.session(plan)
        return read_coverage(plan, result, self.workload, self.symbols, self.options.keep_logs)


class _Sightings:
    """Who has seen which function of the production build, as runs are added."""

    def __init__(self, workload: Workload, production: Symbols, traced: Symbols) -> None:
        self.workload = workload
        self.production = production
        self.traced = traced
        self.carrier = Carrier(production)
        self.seen: dict[Identity, dict[tuple[str, str], list[int | None]]] = {}
        self.runs: list[Run] = []
        self.ambiguous: set[str] = set()
        self.unmatched: set[str] = set()

    def add_blocks(self, coverage: Coverage) -> None:
        """Put a run's functions into what was seen, each under its phase, and the run into the list."""
        functions: dict[Identity, str] = {}
        for phase, flags in coverage.first.items():
            for row in np.flatnonzero(flags):
                functions.setdefault(self.production.functions[row], phase)
        self.add_run(coverage.plan, coverage.result, set(functions), coverage.outside)
        for function, phase in functions.items():
            self.add(function, phase, BLOCKS, 1)

    def add_trace(self, plan: RunPlan, result: SessionResult) -> None:
        """Put the traced run's functions into what was seen, carried to the production build."""
        found: dict[tuple[Identity, str], list[int | None]] = defaultdict(list)
        by_app = rows_by_app(read_frames(result.trace), len(self.workload.apps))
        for app, rows in zip(self.workload.apps, by_app, strict=True):
            resolved = resolve(rows, self.traced)
            self.ambiguous.update(resolved.ambiguous)
            self.unmatched.update(resolved.unknown)
            for function, hits in resolved.hits.items():
                carried = self.carrier.carry(function)
                if not carried:
                    self.unmatched.add(f"{function.object}:{function.symbol}")
                for target in carried:
                    found[target, app.name].append(hits)
        self.add_run(plan, result, {function for function, _ in found}, 0)
        for (function, name), counts in found.items():
            self.add(function, name, FTRACE, total(counts))

    def add(self, function: Identity, app: str, source: str, count: int | None) -> None:
        self.seen.setdefault(function, {}).setdefault((app, source), []).append(count)

    def add_run(self, plan: RunPlan, result: SessionResult, functions: set[Identity], outside: int) -> None:
        self.runs.append(
            Run(
                name=plan.name,
                source=plan.source,
                memory=plan.options.memory,
                arguments=plan.options.arguments,
                outcome=result.outcome,
                seconds=round(result.seconds, 2),
                functions=len(functions),
                new=len(functions - self.seen.keys()),
                outside=outside,
            )
        )

    def profile(self, sources: list[str]) -> Profile:
        seen = {
            function: [Seen(app, source, total(counts)) for (app, source), counts in by_app.items()]
            for function, by_app in self.seen.items()
        }
        return Profile(
            production_build_id=self.production.build_id,
            traced_build_id=self.traced.build_id,
            workload_name=self.workload.name,
            workload_hash=self.workload.content_hash(),
            apps=tuple(app.name for app in self.workload.apps),
            sources=tuple(sources),
            functions=records(seen),
            blind_spots=self.blind_spots() if FTRACE in sources else (),
            ambiguous=tuple(sorted(self.ambiguous)),
            unmatched=tuple(sorted(self.unmatched)),
            runs=tuple(self.runs),
        )

    def blind_spots(self) -> tuple[BlindSpot, ...]:
        """What ftrace cannot report; block coverage, where it is a source too, can."""
        traceable = [f for i, f in enumerate(self.traced.functions) if self.traced.traceable[i]]
        absent = set(self.carrier.missing_from(self.traced.functions))
        untraceable = set(self.carrier.missing_from(traceable)) - absent
        return (
            BlindSpot(FTRACE, "has no site for the function tracer", tuple(sorted(untraceable))),
            BlindSpot(FTRACE, "is not a function of the traced build", tuple(sorted(absent))),
        )
