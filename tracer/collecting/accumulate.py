"""Who has seen which function of the production build, as runs are added: a profile in the making."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from tracer.collecting.coverage import Coverage, RunPlan
from tracer.phase_names import BOOT, SHUTDOWN, START
from tracer.profiles.algebra import total
from tracer.profiles.builds import blind_spots, files_of, kernel_id
from tracer.profiles.identity import Carrier
from tracer.profiles.phases import BLOCKS, FTRACE, STACK
from tracer.profiles.profile import Profile, Run, Seen, records
from tracer.profiles.symbols import Identity, Ranges, Symbols, union
from tracer.readers.boot_trace import BootTrace, functions_at, has_beginning
from tracer.readers.ftrace import Frame, read_frames, resolve, rows_by_app, stack_names
from tracer.sessions.runner import SessionResult
from tracer.workloads.workload import Workload


class Sightings:
    """What all runs so far have seen."""

    def __init__(self, workload: Workload, production: Symbols, traced: Symbols | None) -> None:
        """``traced`` is None when no traced kernel runs."""
        self.workload = workload
        self.production = production
        self.traced = traced
        self.carrier = Carrier(production)
        self.seen: dict[Identity, dict[tuple[str, str], list[int | None]]] = {}
        self.seen_in: dict[Identity, int] = defaultdict(int)
        nothing = np.empty(0, np.uint64)
        self.executed = Ranges(nothing, nothing)
        self.runs: list[Run] = []
        self.ambiguous: set[str] = set()
        self.unmatched: set[str] = set()

    def add_blocks(self, coverage: Coverage) -> None:
        """Put a run's functions into what was seen, each under its phases, and the run into the list."""
        functions = {
            phase: [self.production.functions[row] for row in np.flatnonzero(flags)]
            for phase, flags in coverage.ran.items()
        }
        for phase, found in coverage.modules.items():
            functions.setdefault(phase, []).extend(sorted(found))
        everything = {function for part in functions.values() for function in part}
        self.add_run(coverage.plan, coverage.result, everything, coverage.outside)
        both = (self.executed, coverage.executed)
        self.executed = union(
            *(np.concatenate([getattr(r, end) for r in both]) for end in ("starts", "ends"))
        )
        for phase, part in functions.items():
            for function in part:
                self.add(function, phase, BLOCKS, 1)

    def add_trace(self, plan: RunPlan, result: SessionResult) -> None:
        """Put the traced run's functions into what was seen, carried to the production build."""
        assert self.traced is not None
        found: dict[tuple[Identity, str], list[int | None]] = defaultdict(list)
        windows = [*(app.name for app in self.workload.apps), START, SHUTDOWN]
        frames = read_frames(result.trace)
        by_window = rows_by_app(frames, len(windows))
        for name, rows in zip(windows, by_window, strict=True):
            resolved = resolve(rows, self.traced)
            self.ambiguous.update(resolved.ambiguous)
            self.unmatched.update(resolved.unknown)
            for function, hits in resolved.hits.items():
                carried = self.carrier.carry(function)
                if not carried:
                    self.unmatched.add(f"{function.object}:{function.symbol}")
                for target in carried:
                    found[target, name].append(hits)
        self.add_run(plan, result, {function for function, _ in found}, 0)
        for (function, name), counts in found.items():
            self.add(function, name, FTRACE, total(counts))
        self._add_sleepers(frames)

    def add_stacks(self, plan: RunPlan, result: SessionResult) -> None:
        """Put the functions that tasks sleep in into what was seen."""
        before = set(self.seen)
        sleepers = self._add_sleepers(read_frames(result.trace))
        made = replace(run_of(plan, result, len(sleepers), 0), new=len(sleepers - before))
        for function in sleepers:
            self.seen_in[function] |= 1 << len(self.runs)
        self.runs.append(made)

    def _add_sleepers(self, frames: list[Frame]) -> set[Identity]:
        """The functions on the stacks of tasks, by name; of one name, all."""
        assert self.traced is not None
        names = stack_names(frames)
        found = {
            target
            for function in self.traced.functions
            if function.symbol in names
            for target in self.carrier.carry(function)
        }
        self.add_sleepers(found)
        return found

    def add_sleepers(self, functions: Iterable[Identity]) -> None:
        """Put production functions that tasks sleep in into what was seen."""
        for function in functions:
            self.add(function, START, STACK, 1)

    def add_boot(self, plan: RunPlan, result: SessionResult, trace: BootTrace) -> None:
        """Put what the function tracer saw of a boot into what was seen. A boot that lost events adds what it
        has, and does not count as watched (its outcome says so)."""
        assert self.traced is not None
        found: dict[Identity, list[int | None]] = defaultdict(list)
        functions = functions_at(trace.calls, self.traced)
        phases = {
            phase: {
                target
                for function in functions_at(dict.fromkeys(addresses, 1), self.traced)
                for target in self.carrier.carry(function)
            }
            for phase, addresses in ((BOOT, trace.before), (START, trace.after))
        }
        for function, hits in functions.items():
            for target in self.carrier.carry(function):
                found[target].append(None if trace.lost else hits)
        outcome = f"lost {trace.lost} events" if trace.lost else result.outcome
        if not has_beginning(functions):
            outcome = "lost the beginning"
        self.add_run(plan, replace(result, outcome=outcome), set(found), 0)
        for function, counts in found.items():
            for phase, ran in phases.items():
                if function in ran:
                    self.add(function, phase, FTRACE, total(counts))

    def add(self, function: Identity, app: str, source: str, count: int | None) -> None:
        self.seen.setdefault(function, {}).setdefault((app, source), []).append(count)

    def add_run(self, plan: RunPlan, result: SessionResult, functions: set[Identity], outside: int) -> None:
        for function in functions:
            self.seen_in[function] |= 1 << len(self.runs)
        made = run_of(plan, result, len(functions), outside)
        self.runs.append(replace(made, new=len(functions - self.seen.keys())))

    def calls(self) -> dict[str, int]:
        """Symbol -> how often ftrace saw its functions called, as far as it is known."""
        known: dict[str, int] = defaultdict(int)
        for function, by_app in self.seen.items():
            for (_, source), counts in by_app.items():
                if source == FTRACE:
                    known[function.symbol] += sum(count or 0 for count in counts)
        return known

    def _ran(self) -> dict[Identity, tuple[tuple[int, int], ...]]:
        """Function -> the bytes of it that block coverage saw."""
        rows = zip(
            self.production.functions,
            self.production.starts.tolist(),
            self.production.ends.tolist(),
            strict=True,
        )
        return {
            function: self.executed.within(start, end)
            for function, start, end in rows
            if function in self.seen
        }

    def profile(self, sources: list[str]) -> Profile:
        seen = {
            function: [Seen(app, source, total(counts)) for (app, source), counts in by_app.items()]
            for function, by_app in self.seen.items()
        }
        return Profile(
            kernel=kernel_id(self.production),
            traced_build_id=self.traced.build_id if self.traced else "",
            workload_name=self.workload.name,
            workload_hash=self.workload.content_hash(),
            apps=tuple(app.name for app in self.workload.apps),
            sources=tuple(sources),
            files=files_of(seen, self.production),
            functions=records(seen, self.seen_in, self._ran()),
            blind_spots=blind_spots(self.carrier, self.traced) if self.traced and FTRACE in sources else (),
            ambiguous=tuple(sorted(self.ambiguous)),
            unmatched=tuple(sorted(self.unmatched)),
            runs=tuple(self.runs),
        )


def run_of(plan: RunPlan, result: SessionResult, functions: int, outside: int) -> Run:
    """A run as the profile lists it, without what was new in it."""
    return Run(
        name=plan.name,
        source=plan.source,
        memory=plan.options.memory,
        seed=plan.options.seed,
        arguments=plan.options.arguments,
        outcome=result.outcome,
        seconds=round(result.seconds, 2),
        functions=functions,
        new=0,
        outside=outside,
    )
