"""Boot the pruned kernel, run the workload, say what was missed: the edge that starts the guests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prune.guests.graveyard import Graveyard, read_graveyard
from prune.guests.misses import Answered, Miss, find_answered, find_misses, missed_calls
from prune.guests.system_map import SystemMap, read_system_map
from prune.settings import cache_folder
from tracer.collecting.moved import how_far
from tracer.files.rootfs import Roots
from tracer.host import GuestFailed, GuestLost, ValidationFailed, say
from tracer.machines.machine import machine_kind
from tracer.machines.parallel import in_parallel
from tracer.phase_names import BOOT
from tracer.readers.boot_trace import BOOT_ENDS
from tracer.sessions.executed import executed_blocks
from tracer.sessions.jitter import Jitter, jitter
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import caller_during_boot, run_session
from tracer.workloads.workload import Workload

#: One in so many boots of a kernel with KASLR has it on; the others lie where vmlinux says.
MOVED = 5

#: What C libraries make of it (strerror(3)).
_ENOSYS = "Function not implemented"


@dataclass(frozen=True)
class Boot:
    """One boot of the pruned kernel: ``problem`` is "" when the whole workload ran.

    ``number``: which variation of the workload it was (:mod:`tracer.sessions.jitter`), ``variation``: in
    words. ``repeated``: why it is the second try, "" for the first. An emulator on a busy host can hang a
    guest; a kernel that hangs does it again. ``answered``: the dropped functions that were called, for which
    a policy answered; they fail no boot.
    """

    number: int
    variation: str
    seconds: float
    problem: str
    exit_code: int
    misses: tuple[Miss, ...]
    repeated: str = ""
    answered: tuple[Answered, ...] = ()


@dataclass(frozen=True)
class PrunedKernel:
    """What is booted: the image, its tombstones and its functions; ``moves``: it can choose where it lies."""

    image: Path
    graveyard: Graveyard
    system_map: SystemMap
    smp: bool
    moves: bool = False


def read_pruned(folder: Path, smp: bool, moves: bool = False) -> PrunedKernel:
    """The pruned kernel in ``OUT/pruned``.

    Raises:
        UserError: there is none.
    """
    graveyard = read_graveyard(folder / "tombstones.json")
    return PrunedKernel(folder / "bzImage", graveyard, read_system_map(folder / "System.map"), smp, moves)


def unpruned(image: Path, smp: bool, moves: bool = False) -> PrunedKernel:
    """A kernel that misses nothing, to be booted in the same way."""
    return PrunedKernel(image, Graveyard({}, {}), SystemMap(()), smp, moves)


def boot_pruned(
    workload: Workload, kernel: PrunedKernel, numbers: Sequence[int], into: Path, jobs: int = 0
) -> tuple[Boot, ...]:
    """Boot the pruned kernel once for each number of a variation; ``into`` gets a folder for each. ``jobs``:
    guests at a time, 0 for as many as there are processors."""
    initrd = Roots(workload, into, cache_folder()).of(kernel.image)

    def boot(number: int) -> Boot:
        made = _boot(workload, kernel, initrd, number, into / str(number))
        said = made.problem or f"ran the whole workload, powered off after {made.seconds:.1f} s"
        once_more = f" (once more, for {made.repeated})" if made.repeated else ""
        answered = f"; {', '.join(map(str, made.answered[:5]))}" if made.answered else ""
        say(f"boot {number} ({made.variation}): {said}{once_more}{answered}")
        return made

    return tuple(in_parallel([partial(boot, number) for number in numbers], jobs))


def _boot(workload: Workload, kernel: PrunedKernel, initrd: Path, number: int, into: Path) -> Boot:
    """One boot; a second time when the first was in vain for no fault of the kernel's."""
    how = jitter(number, kernel.smp, machine_kind(workload.arch).slowest, workload.machine.cpus)
    made = _boot_once(workload, kernel, initrd, how, number, into)
    if made.exit_code == ValidationFailed.exit_code and how.slowness is not None:
        # Some apps have time limits of their own.
        again = _boot_once(workload, kernel, initrd, how.at_full_speed(), number, into)
        made = replace(again, repeated=f"in a slow guest {made.problem}")
    elif made.exit_code == GuestLost.exit_code:
        again = _boot_once(workload, kernel, initrd, how, number, into)
        made = replace(again, repeated=made.problem)
    silent = made.misses and not made.misses[0].caller and made.misses[0].phase == BOOT
    if silent and _stone(made.misses[0])[:3] in kernel.graveyard.stones.values():
        misses = _with_callers(workload, kernel, initrd, how, made.misses, into)
        made = replace(made, misses=misses, problem=_missed(misses))
    calls = missed_calls(made.answered)
    if made.problem and not made.misses and calls:
        problem = f"{made.problem}; {_asked_for(calls)}"
        made = replace(made, misses=calls, problem=problem, exit_code=GuestFailed.exit_code)
    return made


def _asked_for(calls: Sequence[Miss]) -> str:
    """What may be why a boot failed that missed nothing else."""
    return f"it asked for system calls that are gone: {', '.join(call.function for call in calls[:5])}"


def _boot_once(
    workload: Workload, kernel: PrunedKernel, initrd: Path, how: Jitter, number: int, into: Path
) -> Boot:
    moved = kernel.moves and number % MOVED == 0
    options = replace(how.apply(SessionOptions(), workload), moved=moved)
    variation = how.describe(options, workload) + ", at a random address" * moved
    return boot_once(workload, kernel, initrd, options, number, variation, into)


def boot_once(
    workload: Workload, kernel: PrunedKernel, initrd: Path, options: SessionOptions, number: int,
    variation: str, into: Path,
) -> Boot:  # fmt: skip
    """One boot, and what it missed; ``options`` but for what sees misses."""
    into.mkdir(parents=True, exist_ok=True)
    log = into / "misses.log"
    log.unlink(missing_ok=True)
    stones = kernel.graveyard
    options = watched(options, workload, kernel, log)
    seconds, problem, code, at = 0.0, "", 0, ()
    try:
        result = run_session(kernel.image, initrd, workload, options, into)
        console, seconds = result.console, result.seconds
        phases = tuple((mark.offset, mark.phase) for mark in result.marks)
    except (GuestFailed, GuestLost, ValidationFailed) as error:
        problem, code, console = str(error), error.exit_code, getattr(error, "console", "")
        at, phases = getattr(error, "at", ()), getattr(error, "phases", ())
    executed = executed_blocks(log.read_bytes() if log.is_file() else b"")
    if options.moved:
        executed = _moved_back(kernel, executed)
        log.unlink(missing_ok=True)  # tens of megabytes
    misses = find_misses(stones, executed, console, phases)
    if misses:
        problem, code = _missed(misses), GuestFailed.exit_code
    elif at and not options.moved:
        problem = f"{places_of(kernel, at)}: {problem}"
    answered = find_answered(stones, executed, phases)
    return Boot(number, variation, round(seconds, 2), problem, code, misses, answered=answered)


def watched(options: SessionOptions, workload: Workload, kernel: PrunedKernel, log: Path) -> SessionOptions:
    """What of a boot is logged: the tombstones that it executes; and, on a processor that executes what has
    been freed, that as well, and the moment when it is. All of it where the kernel chooses its addresses."""
    stones = kernel.graveyard
    if options.moved:
        return replace(options, block_log=log)
    if not stones.stones and not stones.freed:
        return options  # With no filter, all of the kernel would be logged.
    ranges = (stones.range,) if stones.stones else ()
    options = replace(options, misses=frozenset(stones.stones.keys() - stones.answers.keys()))
    if machine_kind(workload.arch).no_execute or not stones.freed:
        return replace(options, block_log=log, block_filter=ranges) if ranges else options
    ends = tuple(address for address, name in kernel.system_map.functions if name == BOOT_ENDS)
    return replace(
        options, block_log=log, block_filter=(*ranges, stones.freed_range), boot_ends=ends,
        freed=tuple(unit[:2] for unit in stones.freed),
    )  # fmt: skip


def _moved_back(kernel: PrunedKernel, executed: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Of all that a boot with KASLR executed, the tombstones, where ``vmlinux`` has them."""
    functions = [address for address, _ in kernel.system_map.functions]
    rows = [row for row in executed if row[0] >= functions[0]]
    if not rows:
        return ()  # it did not get as far as that
    try:
        far = how_far(np.array([at for at, _ in rows], np.uint64), np.array(functions, np.uint64))
    except ValidationFailed:
        return ()  # too little ran; what ended it is the boot's problem
    first, size = kernel.graveyard.range
    return tuple((at - far, offset) for at, offset in rows if first <= at - far < first + size)


def _missed(misses: Sequence[Miss]) -> str:
    return "missed " + "; ".join(map(str, misses[:5]))


def _with_callers(
    workload: Workload, kernel: PrunedKernel, initrd: Path, how: Jitter, misses: Sequence[Miss], into: Path
) -> tuple[Miss, ...]:
    """The misses with the caller of the first, which the VM knows when the guest went down in silence."""
    first, *others = misses
    address = next(
        at
        for at, stone in kernel.graveyard.stones.items()
        if (*stone, kernel.graveyard.offsets.get(at, -1)) == _stone(first)
    )
    options = how.apply(SessionOptions(), workload)
    back = caller_during_boot(kernel.image, initrd, workload, options, address, into / "caller")
    return (replace(first, caller=first.caller or kernel.system_map.name_of(back)), *others)


def _stone(miss: Miss) -> tuple[str, str, str, int]:
    return miss.function, miss.object, miss.section, miss.offset


def places_of(kernel: PrunedKernel, at: Sequence[int]) -> str:
    """Where the processors stood, for a guest that went without a word."""
    words = [f"{kernel.system_map.name_of(address) or 'outside the kernel'} ({address:#x})" for address in at]
    return f"the processor stood in {', '.join(words)}"


def way_out(boot: Mapping[str, Any]) -> str:
    """What may help a boot of ``boots.json`` that failed: where pruned system calls have no place of their
    own (a kernel that checks what it calls), nobody but programs says that one answered ENOSYS."""
    if boot["misses"] or _ENOSYS not in boot["problem"]:
        return ""
    return "nothing was missed: a system call that no traced run made is gone; trace more, or a rule keeps it"


def summary(boots: Sequence[Boot]) -> dict[str, Any]:
    """``boots``, ``passed``, ``repeated``, ``misses`` and ``answered`` as the report has them, a function
    once."""
    misses = {(miss.function, miss.object): miss for boot in boots for miss in boot.misses}
    answered = {(each.function, each.object): each for boot in boots for each in boot.answered}
    return {
        "boots": len(boots),
        "passed": sum(not boot.problem for boot in boots),
        "repeated": sum(bool(boot.repeated) for boot in boots),
        "misses": [asdict(miss) for miss in misses.values()],
        "answered": [asdict(each) for each in answered.values()],
    }
