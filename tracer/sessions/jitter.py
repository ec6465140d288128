"""How runs of one workload differ, so that chance shows more than it does in one run.

A function that runs only when a timer wins a race is seen in some runs and not in others. Run number ``n``
of a workload is always varied in the same way: memory, how fast the guest's time goes by, processors,
and a seed for what the workload itself may vary: the order of its apps and, through ``$KPRUNE_SEED``,
the order and the sizes of what its clients ask for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tracer.sessions.options import SessionOptions
from tracer.workloads.workload import Workload

#: Nanoseconds of the guest's time per instruction, as a power of two; None: real time. A slow guest
#: shows what else only chance shows: timers that run out, retransmissions, delayed acknowledgements,
#: connections that leave TIME_WAIT. Measured with examples/micro: two runs in real time differ by 0 to 5
#: functions of 6,870; the slowest one adds 30. In the fastest one the kernel has booted before much that it
#: put off: what runs then is not for booting alone.
SLOWNESS = (None, 7, None, 4, 0, 6)
SLOWEST = 7
#: The same for a machine with several processors, which do not run with -icount: more often in real time.
#: Where these take turns in one thread of the emulator's (:attr:`Jitter.single`), one waits for another for
#: as long as it is its turn, which never happens when each has a thread.
SLOWNESS_OF_SEVERAL = (None, 7, None, None, 0, None)
IN_TURNS = (False, False, True, False, False, True)
#: Memory in percent of the workload's, in turn; never less, for that would be another workload.
MEMORY = (100, 100, 150, 100, 200, 125, 300)
#: By how much longer the apps may take by the clock of a slow guest.
PATIENCE = 20
#: Numbers that a trace's runs and the boots of healing start from: no boot repeats a traced run.
FIRST_TRACED, FIRST_HEALED = 0, 1002


@dataclass(frozen=True)
class Jitter:
    """One variation; ``percent`` of the workload's memory, ``slowness`` as in :data:`SLOWNESS`; ``single``:
    all processors take turns in one thread."""

    percent: int = 100
    slowness: int | None = None
    cpus: int = 1
    seed: int = 0
    single: bool = False

    def arguments(self) -> tuple[str, ...]:
        """Words for QEMU."""
        words: tuple[str, ...] = ()
        if self.slowness is not None:
            # sleep=off: an idle guest jumps to its next timer, so that a minute of waiting takes no time.
            words += ("-icount", f"shift={self.slowness},sleep=off")
        return words + processors(self.cpus)

    def apply(self, options: SessionOptions, workload: Workload) -> SessionOptions:
        """``options`` of a run of ``workload``, varied."""
        return replace(
            options,
            memory=self._memory(options, workload),
            arguments=self.arguments(),
            single=options.single or self.single,
            patience=1 if self.slowness is None else PATIENCE,
            seed=self.seed,
        )

    def _memory(self, options: SessionOptions, workload: Workload) -> int:
        """Runs in real time are in the tight memory, if there is such, but for that of the workload as it is
        written and those of the traced kernel. A slow guest that reads pages over and over gets nowhere."""
        if workload.machine.tight and self.seed and self.slowness is None and not options.trace:
            return workload.machine.tight
        return (workload.machine.memory * self.percent // 100) >> 16 << 16

    def at_full_speed(self) -> Jitter:
        return replace(self, slowness=None)

    def describe(self, options: SessionOptions, workload: Workload) -> str:
        """The run that :meth:`apply` made ``options`` for, in words."""
        tight = options.memory == workload.machine.tight
        parts = ["tight memory" if tight else f"memory {self.percent}%"]
        parts += [f"icount shift {self.slowness}"] if self.slowness is not None else []
        parts += [f"{self.cpus} processors{' in turns' * self.single}"] if self.cpus > 1 else []
        return ", ".join([*parts, f"seed {self.seed}"])


def processors(cpus: int) -> tuple[str, ...]:
    """Words for QEMU."""
    return ("-smp", str(cpus)) if cpus > 1 else ()


def jitter(number: int, smp: bool, slowest: int = SLOWEST, cpus: int = 1) -> Jitter:
    """The variation of run ``number``; number 0 is the workload as it is written. ``smp``: the kernel can
    use a second processor, which it gets in every other run in real time. With -icount, QEMU 7.2 does not get
    a second one going. ``slowest``: what the machine can bear, where :data:`SLOWNESS` is more. ``cpus``: of
    the workload's machine, which has them whenever it is not slow."""
    turn, kind = divmod(number, len(SLOWNESS))
    several = smp and cpus > 1
    slowness = (SLOWNESS_OF_SEVERAL if several else SLOWNESS)[kind]
    if slowness is not None:
        slowness = min(slowness, slowest)
    if several and slowness is None:
        return Jitter(MEMORY[number % len(MEMORY)], None, cpus, number, IN_TURNS[kind])
    second = smp and slowness is None and (turn + kind // 2) % 2 == 1
    return Jitter(MEMORY[number % len(MEMORY)], slowness, 2 if second else 1, number)
