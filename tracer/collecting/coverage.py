"""The guests that a profile takes, and the coverage of each: what is run and what it saw.

Runs differ as :mod:`tracer.sessions.jitter` says. Translations are forgotten at the beginning of each phase,
so the block log shows what each app ran, not only what it was the first to run. The deliberate misses write
an invalid instruction over a function that will run at once; from there on the log has the path that
reports a miss, which no healthy guest takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tracer.collecting.blocks import Blocks, read_blocks
from tracer.host import UserError, ValidationFailed
from tracer.machines.machine import machine_kind
from tracer.phase_names import BOOT, START
from tracer.profiles.module_blocks import Block, ModuleCode, by_phase
from tracer.profiles.phases import BLOCKS, FTRACE, STACK
from tracer.profiles.symbols import Flags, Identity, Ranges, Symbols, union
from tracer.readers import boot_trace
from tracer.readers.boot_trace import BOOT_ENDS
from tracer.sessions.jitter import Jitter, jitter
from tracer.sessions.options import Poke, SessionOptions
from tracer.sessions.runner import SessionResult
from tracer.sessions.session import PANICKED
from tracer.workloads.workload import Workload

MISS = "miss"
#: With QEMU 7.2, x86_64 and a shift of 7 the trace port does not come up, with one of 6 it does.
_TRACED_FASTER = 1
#: Seconds until process 1 runs when every call is written down, and the buffer is sent.
_TRACED_BOOT = 300.0


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
    jitter: Jitter
    options: SessionOptions

    def at_full_speed(self, workload: Workload) -> RunPlan:
        """The same run in real time."""
        how = self.jitter.at_full_speed()
        return replace(self, jitter=how, options=how.apply(self.options, workload))


@dataclass(frozen=True)
class Coverage:
    """One block run. ``ran``: per phase (:data:`MISS` for a deliberate one) the function rows that ran in it;
    ``executed``: all addresses that ran; ``outside``: how many of its ranges lie in no known function;
    ``modules``: per phase the functions of modules that ran in it;
    ``flushed``: later phases show again what earlier ones ran, so that ``ran`` is exact for each."""

    plan: RunPlan
    result: SessionResult
    ran: dict[str, Flags]
    executed: Ranges
    outside: int
    flushed: bool = True
    modules: Mapping[str, frozenset[Identity]] = field(default_factory=dict)


def trace_run(workload: Workload, kernel: Path, into: Path, number: int, smp: bool) -> RunPlan:
    """Run ``number`` on the traced kernel, which needs more instructions for the same."""
    how = jitter(number, smp, machine_kind(workload.arch).slowest - _TRACED_FASTER, workload.machine.cpus)
    # With a thread for each, a processor may meet an int3 of ftrace's that is gone already.
    options = SessionOptions(trace=True, single=how.cpus > 1)
    return RunPlan(into.name, FTRACE, kernel, how, how.apply(options, workload))


def boot_run(workload: Workload, kernel: Path, into: Path, leave_out: tuple[str, ...], smp: bool) -> RunPlan:
    """A boot of the traced kernel, with two processors if it can, and the function tracer on from the start;
    no app runs."""
    how = Jitter(cpus=2 if smp else 1)
    options = SessionOptions(trace=True, boot_trace=leave_out, boot_timeout=_TRACED_BOOT, single=smp)
    memory = workload.machine.memory + (how.cpus + 1) * boot_trace.BUFFER
    return RunPlan(
        into.name, boot_trace.SOURCE, kernel, how, replace(how.apply(options, workload), memory=memory)
    )


def stack_run(workload: Workload, kernel: Path, into: Path, smp: bool) -> RunPlan:
    """A boot of the traced kernel that runs no app: for the stacks of the tasks alone."""
    how = Jitter(cpus=2 if smp else 1)
    options = SessionOptions(trace=True, idle=True, single=smp)
    return RunPlan(into.name, STACK, kernel, how, how.apply(options, workload))


def block_run(
    workload: Workload, kernel: Path, into: Path, number: int, smp: bool, boot_ends: tuple[int, ...] = ()
) -> RunPlan:
    """Run ``number`` on the production kernel, with block coverage; ``boot_ends`` as in the session."""
    options = SessionOptions(flush=True, boot_ends=boot_ends)
    how = jitter(number, smp, machine_kind(workload.arch).slowest, workload.machine.cpus)
    return _block_run(workload, kernel, into, how, options)


def moved_run(workload: Workload, kernel: Path, into: Path, seed: int) -> RunPlan:
    """A run in which the kernel chooses where it lies (KASLR). No breakpoint is set, so nobody knows when it
    has booted, and translations are not forgotten."""
    return _block_run(workload, kernel, into, Jitter(seed=seed), SessionOptions(moved=True))


def boot_ends(symbols: Symbols) -> tuple[int, ...]:
    """Where the kernel is when it has booted; a weak function of the name may be there, too.

    Raises:
        UserError: this kernel never frees its init memory.
    """
    found = boot_trace.boot_end_ranges(symbols)
    if not found:
        raise UserError(f"tracing: this kernel has no {BOOT_ENDS}, so nobody can say when it has booted")
    return tuple(sorted({start for start, _ in found}))


def miss_runs(
    workload: Workload, kernel: Path, into: Path, symbols: Symbols, coverages: Sequence[Coverage]
) -> list[RunPlan]:
    """The deliberate misses, in functions that ran in every one of ``coverages``.

    Raises:
        ValidationFailed: none of a miss's candidates did.
    """
    ran = np.logical_and.reduce([np.logical_or.reduce(list(each.ran.values())) for each in coverages])
    address = {
        function.symbol: int(symbols.starts[i]) for i, function in enumerate(symbols.functions) if ran[i]
    }
    trap = machine_kind(workload.arch).trap
    how = Jitter(cpus=workload.machine.cpus)
    plans = []
    for miss in MISSES:
        name = next((each for each in miss.candidates if each in address), None)
        if name is None:
            raise ValidationFailed(f"causing {miss.name}: none of {', '.join(miss.candidates)} ran")
        poke = Poke(address[name], trap, before_phase=workload.apps[0].name)
        # What ran before is forgotten: much of the path ran in boot, and is freed unless it is seen here.
        options = SessionOptions(poke=poke, expect_panic=True, oops_panic=miss.oops_panic, flush=True)
        plans.append(_block_run(workload, kernel, into / miss.name, how, options))
    return plans


def _block_run(workload: Workload, kernel: Path, into: Path, how: Jitter, options: SessionOptions) -> RunPlan:
    options = replace(how.apply(options, workload), block_log=into / "blocks.log")
    return RunPlan(into.name, BLOCKS, kernel, how, options)


def read_coverage(
    plan: RunPlan,
    result: SessionResult,
    workload: Workload,
    symbols: Symbols,
    keep_log: bool,
    modules: ModuleCode | None = None,
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
    end = int(symbols.ends.max()) if modules and modules.areas else None
    moved = plan.options.moved
    functions = symbols.starts if moved else None
    blocks = read_blocks(
        log, result.marks, kind.kernel_start, kind.identity_offset, symbols.entry, end, functions
    )  # fmt: skip
    if not keep_log:
        with contextlib.suppress(OSError):
            log.unlink()
    ran = {MISS: touched_from(blocks, symbols, poke.before_phase)} if poke else touched(blocks, symbols)
    if moved:
        # What began in boot may have gone on later: a block is in the log once.
        ran[START] = ran.pop(BOOT) | ran.get(START, np.zeros(len(symbols.functions), bool))
    executed = blocks.executed_by(len(blocks.phase_names))
    again = len(np.unique(blocks.starts)) < len(blocks.starts) * 0.9
    flushed = again or poke is not None
    if modules is None or poke:
        return Coverage(plan, result, ran, executed, symbols.outside(executed), flushed)
    in_modules, strange = _in_modules(blocks, modules)
    image = executed.starts < np.uint64(symbols.ends.max())
    outside = symbols.outside(Ranges(executed.starts[image], executed.ends[image])) + strange
    return Coverage(plan, result, ran, executed, outside, flushed, in_modules)


def what_moving_adds(moved: Coverage, others: Sequence[Coverage]) -> Coverage:
    """A run at a random address without what it ran in boot and others saw: these know when that was."""
    seen = np.logical_or.reduce([flags for each in others for flags in each.ran.values()])
    return replace(moved, ran={**moved.ran, START: moved.ran[START] & ~seen})


def _in_modules(blocks: Blocks, modules: ModuleCode) -> tuple[dict[str, frozenset[Identity]], int]:
    """(per phase, the functions of modules that ran in it; how many blocks lie in no module)."""
    phases: dict[int, list[Block]] = {}
    for row, code in blocks.codes.items():
        phases.setdefault(int(blocks.phases[row]), []).append(Block(int(blocks.starts[row]), code))
    return by_phase(phases, blocks.phase_names, modules)


def touched(blocks: Blocks, symbols: Symbols) -> dict[str, Flags]:
    """Per phase, the function rows that were translated, and so ran, in it."""
    return {
        phase: symbols.touched(union(blocks.starts[blocks.phases == i], blocks.ends[blocks.phases == i]))
        for i, phase in enumerate(blocks.phase_names)
    }


def touched_from(blocks: Blocks, symbols: Symbols, phase: str) -> Flags:
    """The function rows of all blocks that first ran in a phase or later."""
    later = blocks.phases >= blocks.phase_names.index(phase)
    return symbols.touched(union(blocks.starts[later], blocks.ends[later]))
