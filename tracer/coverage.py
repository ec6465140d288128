"""The guests that a profile takes, and the coverage of each: what is run, how runs differ, what they saw.

Runs of the production kernel differ in memory and in how time passes, since a function that runs only when
a timer wins a race is seen in some runs and not in others. The deliberate misses write an
invalid instruction over a function that will run at once; from there on the log has the path that
reports a miss, which no healthy guest takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tracer.blocks import Blocks, read_blocks
from tracer.host import ValidationFailed
from tracer.machine import machine_kind
from tracer.session import PANICKED, Poke, SessionOptions, SessionResult
from tracer.symbols import Flags, Symbols, union
from tracer.workload import Workload

FTRACE, BLOCKS = "ftrace", "blocks"
MISS = "miss"


@dataclass(frozen=True)
class Jitter:
    """How a block run differs: memory in percent of the workload's, nanoseconds of the guest's time per
    instruction as a power of two (None: real time). A slow guest shows what else only chance shows: timers
    that run out, retransmissions, delayed acknowledgements, connections that leave TIME_WAIT."""

    percent: int = 100
    slowness: int | None = None

    def arguments(self) -> tuple[str, ...]:
        # sleep=off: an idle guest jumps to its next timer, so that a minute of waiting takes no time.
        return () if self.slowness is None else ("-icount", f"shift={self.slowness},sleep=off")


#: Measured with examples/micro: two runs like the first differ by 0 to 5 functions of 6,870; the slowest
#: one adds 30.
JITTER = (Jitter(), Jitter(slowness=7), Jitter(150), Jitter(slowness=4), Jitter(200), Jitter(slowness=6))
#: By how much longer the apps may take by the clock of a slow guest.
PATIENCE = 20


@dataclass(frozen=True)
class Miss:
    """A deliberate miss: in the first of ``candidates`` that runs, with or without oops=panic."""

    name: str
    candidates: tuple[str, ...]
    oops_panic: bool


# What process 1 runs whenever it answers an order: without oops=panic the oops kills it, and the panic
# that follows is covered too.
_ANSWERING = ("vfs_write", "ksys_write", "__x64_sys_write", "tty_write", "vfs_read", "ksys_read")
# What every timer tick runs: a miss on the interrupt's stack.
_TICKING = ("update_process_times", "tick_periodic", "hrtimer_interrupt", "run_local_timers")
MISSES = (
    Miss("miss-oops", _ANSWERING, oops_panic=True),
    Miss("miss-exit", _ANSWERING, oops_panic=False),
    Miss("miss-interrupt", _TICKING, oops_panic=False),
)


@dataclass(frozen=True)
class RunPlan:
    """One run to make: its name, what sees, the bootable image, how."""

    name: str
    source: str
    kernel: Path
    options: SessionOptions


@dataclass(frozen=True)
class Coverage:
    """One block run: per phase (:data:`MISS` for a deliberate one) the function rows that were touched then
    for the first time; ``outside``: executed ranges that lie in no known function."""

    plan: RunPlan
    result: SessionResult
    first: dict[str, Flags]
    outside: int


def trace_run(workload: Workload, kernel: Path) -> RunPlan:
    return RunPlan(FTRACE, FTRACE, kernel, SessionOptions(trace=True, memory=workload.machine.memory))


def block_runs(workload: Workload, kernel: Path, into: Path, runs: int) -> list[RunPlan]:
    """So many production runs; what varies comes round again after the last of :data:`JITTER`."""
    return [
        _block_run(workload, kernel, into / f"blocks-{number + 1}", JITTER[number % len(JITTER)])
        for number in range(runs)
    ]


def miss_runs(
    workload: Workload, kernel: Path, into: Path, symbols: Symbols, coverages: Sequence[Coverage]
) -> list[RunPlan]:
    """The deliberate misses, in functions that ran in every one of ``coverages``.

    Raises:
        ValidationFailed: none of a miss's candidates did.
    """
    ran = np.logical_and.reduce([np.logical_or.reduce(list(each.first.values())) for each in coverages])
    address = {
        function.symbol: int(symbols.starts[i]) for i, function in enumerate(symbols.functions) if ran[i]
    }
    trap = machine_kind(workload.arch).trap
    plans = []
    for miss in MISSES:
        name = next((each for each in miss.candidates if each in address), None)
        if name is None:
            raise ValidationFailed(f"causing {miss.name}: none of {', '.join(miss.candidates)} ran")
        poke = Poke(address[name], trap, before_phase=workload.apps[0].name)
        plans.append(_block_run(workload, kernel, into / miss.name, Jitter(), poke, miss.oops_panic))
    return plans


def _block_run(
    workload: Workload, kernel: Path, into: Path, jitter: Jitter, poke: Poke | None = None,
    oops_panic: bool = True,
) -> RunPlan:  # fmt: skip
    options = SessionOptions(
        block_log=into / "blocks.log",
        memory=(workload.machine.memory * jitter.percent // 100) >> 20 << 20,
        arguments=jitter.arguments(),
        patience=1 if jitter.slowness is None else PATIENCE,
        poke=poke,
        expect_panic=poke is not None,
        oops_panic=oops_panic,
    )
    return RunPlan(into.name, BLOCKS, kernel, options)


def read_coverage(
    plan: RunPlan, result: SessionResult, workload: Workload, symbols: Symbols, keep_log: bool
) -> Coverage:
    """What a block run saw; its log is removed unless it is to be kept.

    Raises:
        HostError: the log cannot be read.
        ValidationFailed: a deliberate miss did not end in a panic, or no kernel code is in the log.
    """
    log, poke = plan.options.block_log, plan.options.poke
    assert log is not None
    if poke and result.outcome != PANICKED:
        raise ValidationFailed(
            f"causing {plan.name}: the guest {result.outcome} instead of panicking",
            f"its console is {log.with_name('console.log')}",
        )
    kind = machine_kind(workload.arch)
    entry = int(symbols.starts[0])
    blocks = read_blocks(log, result.marks, kind.kernel_start, kind.identity_offset, entry)
    if not keep_log:
        with contextlib.suppress(OSError):
            log.unlink()
    if poke:
        first = {MISS: touched_from(blocks, symbols, poke.before_phase)}
    else:
        first = first_touched(blocks, symbols)
    return Coverage(plan, result, first, symbols.outside(blocks.executed_by(len(blocks.phase_names))))


def first_touched(blocks: Blocks, symbols: Symbols) -> dict[str, Flags]:
    """Per phase, the function rows that were touched then for the first time."""
    first: dict[str, Flags] = {}
    before: Flags = np.zeros(len(symbols.functions), dtype=np.bool_)
    for i, phase in enumerate(blocks.phase_names):
        by_now = symbols.touched(blocks.executed_by(i))
        first[phase] = by_now & ~before
        before = by_now
    return first


def touched_from(blocks: Blocks, symbols: Symbols, phase: str) -> Flags:
    """The function rows of all blocks that first ran in a phase or later."""
    later = blocks.phases >= blocks.phase_names.index(phase)
    return symbols.touched(union(blocks.starts[later], blocks.ends[later]))
