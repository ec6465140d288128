"""The guests of ``kprune minram``: one kernel, in machines of different sizes, watched from outside."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prune.folder import Folder
from prune.guests.boots import Boot, PrunedKernel, boot_once, read_pruned, unpruned
from prune.guests.breakdown import Breakdown, break_down, tightest
from prune.guests.counters import Counters, find_counters, part_sizes, read_kernel_file
from prune.guests.minram import Search, Trial, search, short
from prune.run.profiling import is_smp
from tracer.host import say
from tracer.machine import machine_kind
from tracer.rootfs import Roots
from tracer.session_options import SessionOptions
from tracer.vm import Vm
from tracer.workload import Workload

#: A guest that boots so many times as long as the first one, or this many seconds, does not do.
PATIENCE, AT_LEAST = 3.0, 20.0
GRACE = 10.0


@dataclass
class _Guests:
    """One kernel's guests. ``samples``: what each that served said of its pages, by memory."""

    side: str
    workload: Workload
    kernel: PrunedKernel
    root: Path
    into: Path
    counters: Counters
    boot_timeout: float = 60.0
    samples: dict[int, tuple[Mapping[str, int], ...]] = field(default_factory=dict)

    def try_with(self, memory: int, again: bool) -> Trial:
        """One guest."""
        seen: list[Mapping[str, int]] = []
        options = SessionOptions(
            memory=memory, boot_timeout=self.boot_timeout, grace=GRACE,
            watch=lambda vm: seen.append(self._read(vm)),
        )  # fmt: skip
        folder = self.folder(memory)
        shutil.rmtree(folder, ignore_errors=True)
        made: Boot = boot_once(self.workload, self.kernel, self.root, options, 0, f"{memory >> 10}K", folder)
        trial = Trial(memory, made.problem, made.seconds, again)
        tell(self.side, trial)
        if trial.fits:
            self.samples[memory] = tuple(seen)
            self.boot_timeout = min(self.boot_timeout, max(AT_LEAST, PATIENCE * made.seconds))
        return trial

    def folder(self, memory: int) -> Path:
        return self.into / f"{memory >> 10}K"

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


def smallest_of(side: str, workload: Workload, folder: Folder, roots: Roots, grain: int) -> Found:
    """Search for the kernel of one side.

    Raises:
        UserError: there is no such kernel, or it does not run in the workload's own memory.
    """
    kind = machine_kind(workload.arch)
    whole = read_kernel_file(folder.base("vmlinux"))
    file = whole if side == "base" else read_kernel_file(folder.pruned("vmlinux"))
    smp = is_smp(folder.base(".config"))
    kernel = (
        unpruned(folder.base("bzImage"), smp) if side == "base" else read_pruned(folder.path("pruned"), smp)
    )
    into = folder.path("minram") / side
    guests = _Guests(side, workload, kernel, roots.of(kernel.image), into, find_counters(whole, file))
    least = file.symbol("__bss_stop")[0] - kind.identity_offset
    found = search(guests.try_with, least, workload.machine.memory, grain)
    console = (guests.folder(found.smallest) / "console.log").read_text(errors="replace")
    parts = part_sizes(file)
    made: Breakdown = break_down(
        found.smallest, parts, console, tightest(guests.samples[found.smallest]), kind.page_size
    )
    return Found(found, made)


def tell(side: str, trial: Trial) -> None:
    """To the person at the terminal, as it goes."""
    said = f"does not do: {short(trial.reason)}" if trial.reason else f"serves ({trial.seconds:.1f} s)"
    say(f"minram: {side} with {trial.memory >> 10:,}K {said}{', again' if trial.again else ''}")
