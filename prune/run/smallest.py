"""The guests of ``kprune minram``: one kernel, in machines of different sizes, watched from outside.

In less memory than any traced run had, a kernel runs code that none of them ran. What the pruned one misses
there may be healed while the search goes on. Where a machine serves then, that is kept; where it does not, it
is undone, for what a kernel runs that has no memory left is nothing to keep: one that looks for a process to
kill is not healed at all. It is then searched again, until one search kept nothing, so that what is found is
true of one kernel.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from prune.folder import Folder
from prune.guests.boots import Boot, PrunedKernel, boot_once
from prune.guests.breakdown import Breakdown, break_down, tightest
from prune.guests.counters import Counters, KernelFile, find_counters, part_sizes, read_kernel_file
from prune.guests.heal import Healed, load_healed, save_healed
from prune.guests.memory import console_of
from prune.guests.minram import Search, Trial, search, short
from prune.guests.misses import Miss
from prune.model.buildid import build_id
from prune.model.image import matches
from prune.model.knowledge import read_knowledge
from prune.run import passes
from prune.run.kernels import kernel_of
from prune.run.pipeline import Pipeline
from tracer.files.rootfs import Roots
from tracer.host import say
from tracer.machines.machine import machine_kind
from tracer.machines.vm import Vm
from tracer.outcome import RootTooLarge
from tracer.sessions.options import SessionOptions
from tracer.workloads.workload import Workload

#: A guest that boots so many times as long as the first one, or this many seconds, does not do.
PATIENCE, AT_LEAST = 3.0, 20.0
GRACE = 10.0


class Healer:
    """Healing for the kernel of a run, that may be undone. Nothing repeats what happened on the whole kernel,
    which has no such memory."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.identity = build_id(pipeline.folder.base("vmlinux"))
        self.none_left = read_knowledge(pipeline.workload.arch).closure["no_memory"]["files"]
        self.before = self._known()

    def begin(self) -> None:
        """What is healed from here on can be undone."""
        self.before = self._known()

    def heal(self, misses: tuple[Miss, ...]) -> bool:
        """Take misses over into the profile and link again; False when none of them is new, or no memory was
        left."""
        if any(matches(each.object, self.none_left) for each in misses):
            return False
        new = passes.learn(self.pipeline.folder, misses)
        if new:
            say(f"heal: {', '.join(each.function for each in new)}, missed in little memory")
            self.pipeline.renew()
        return bool(new)

    def undo(self) -> None:
        """The kernel is again what it was at :meth:`begin`."""
        self.forget("it does not do all the same")
        self.pipeline.renew()

    def forget(self, why: str) -> None:
        """The same of the profile alone: the next command that needs the kernel links it."""
        if undone := [each.function for each in self._known()[len(self.before) :]]:
            say(f"heal: {', '.join(undone)}: not kept, since {why}")
            save_healed(self.before, self.pipeline.folder.healed, self.identity)

    def _known(self) -> tuple[Healed, ...]:
        return load_healed(self.pipeline.folder.healed, self.identity)


@dataclass
class _Guests:
    """One kernel's guests. ``samples``: what each that served said of its pages, by memory; ``healed``: how
    often the kernel became another one; ``hopeless``: the last guest of each size where healing failed."""

    side: str
    workload: Workload
    out: Folder
    roots: Roots
    healer: Healer | None = None
    boot_timeout: float = 60.0
    samples: dict[int, tuple[Mapping[str, int], ...]] = field(default_factory=dict)
    healed: int = 0
    hopeless: dict[int, Trial] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.load()

    def load(self) -> None:
        """The kernel as it lies in the run's folder."""
        self.kernel: PrunedKernel = kernel_of(self.out, self.side)
        whole = read_kernel_file(self.out.base("vmlinux"))
        base = self.side == "base"
        self.file: KernelFile = whole if base else read_kernel_file(self.out.pruned("vmlinux"))
        self.counters: Counters = find_counters(whole, self.file)

    def try_with(self, memory: int, again: bool) -> Trial:
        """One guest, and others as long as something can be healed."""
        if memory in self.hopeless:
            return self.hopeless[memory]
        trial, misses = self._one(memory, again)
        if not misses or not self.healer:
            return trial
        self.healer.begin()
        changed = False
        try:
            while misses and self.healer.heal(misses):
                changed = True
                self.load()
                trial, misses = self._one(memory, again)
        except BaseException:
            self.healer.forget("the search was ended")
            raise
        if changed and trial.fits:
            self.healed += 1
        elif changed:
            self.healer.undo()
            self.load()
            self.hopeless[memory] = trial = replace(trial, final=True)
        return trial

    def _one(self, memory: int, again: bool) -> tuple[Trial, tuple[Miss, ...]]:
        seen: list[Mapping[str, int]] = []
        options = SessionOptions(
            memory=memory, boot_timeout=self.boot_timeout, grace=GRACE,
            watch=lambda vm: seen.append(self._read(vm)),
        )  # fmt: skip
        folder, root = self.folder(memory), self.roots.of(self.kernel.image)
        shutil.rmtree(folder, ignore_errors=True)
        size = f"{memory >> 10}K"
        try:
            made = boot_once(self.workload, self.kernel, root, options, 0, size, folder)
        except RootTooLarge as error:  # so little memory is what is looked for
            made = Boot(0, size, 0.0, str(error.summary), error.exit_code, ())
        trial = Trial(memory, made.problem, made.seconds, again)
        tell(self.side, trial)
        if trial.fits:
            self.samples[memory] = tuple(seen)
            self.boot_timeout = min(self.boot_timeout, max(AT_LEAST, PATIENCE * made.seconds))
        return trial, made.misses

    def folder(self, memory: int) -> Path:
        return self.out.path("minram") / self.side / f"{memory >> 10}K"

    def _read(self, vm: Vm) -> Mapping[str, int]:
        offset = machine_kind(self.workload.arch).identity_offset
        vm.pause()
        counts = self.counters.read(lambda address, size: vm.physical_memory(address - offset, size))
        vm.resume()
        return counts


@dataclass(frozen=True)
class Found:
    """Of one kernel: the search, and the memory of the smallest guest at its tightest moment."""

    search: Search
    memory: Breakdown


def smallest_of(
    side: str, workload: Workload, folder: Folder, roots: Roots, grain: int, healer: Healer | None = None
) -> Found:
    """Search for the kernel of one side; with ``healer``, until a search kept nothing new.

    Raises:
        UserError: there is no such kernel, or it does not run in the workload's own memory.
    """
    kind = machine_kind(workload.arch)
    guests = _Guests(side, workload, folder, roots, healer)
    while True:
        healed, guests.samples = guests.healed, {}
        least = guests.file.symbol("__bss_stop")[0] - kind.identity_offset
        found = search(guests.try_with, least, workload.machine.memory, grain)
        if guests.healed == healed:
            break
        say("minram: searching again, with what was healed meanwhile")
    console = console_of(guests.folder(found.smallest))
    made: Breakdown = break_down(
        found.smallest, part_sizes(guests.file), console, tightest(guests.samples[found.smallest]),
        kind.page_size,
    )  # fmt: skip
    return Found(found, made)


def tell(side: str, trial: Trial) -> None:
    """To the person at the terminal, as it goes."""
    said = f"does not do: {short(trial.reason)}" if trial.reason else f"serves ({trial.seconds:.1f} s)"
    say(f"minram: {side} with {trial.memory >> 10:,}K {said}{', again' if trial.again else ''}")
