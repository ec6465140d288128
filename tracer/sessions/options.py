"""What a session with a guest is told (:mod:`tracer.sessions.session`), and the marks that it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.machines.vm import Vm

#: Between two readiness checks, in seconds.
POLL_INTERVAL = 0.2


@dataclass(frozen=True)
class Poke:
    """Bytes to write at a kernel address just before the order that starts a phase is given."""

    address: int
    data: bytes
    before_phase: str


@dataclass(frozen=True)
class SessionOptions:
    """What differs between runs of a workload.

    ``trace``: the kernel is the traced one; ``block_log``: log translated blocks, only those within
    ``block_filter`` (address, length) if given; ``misses``: the addresses among them that tell of a miss, and
    with ``boot_ends`` those in ``freed`` (first and last address of each) once that is freed;
    ``flush``: forget translations when a phase begins, so that the log shows a block again in each phase that
    runs it; ``memory``: bytes instead of the workload's;
    ``arguments``: more words for QEMU; ``oops_panic``: an oops is a panic at once; ``expect_panic``: a panic
    (or, when the guest cannot go on, a hang) is the outcome that is wanted. Times in seconds:
    ``boot_timeout`` that a guest may print nothing before the agent says hello
    (:mod:`tracer.sessions.booting`), ``grace`` on top of each of the apps' own limits before the
    guest counts as hung. ``patience``: by how much the apps' limits are longer by the guest's clock, where
    that runs fast. ``seed``: of what the workload lets vary, 0 for nothing. ``boot_trace``: names that the
    function tracer leaves out; it runs from the start, the workload does not
    (:mod:`tracer.readers.boot_trace`). ``single``: processors take turns in one thread. ``boot_ends``:
    addresses of :data:`tracer.readers.boot_trace.BOOT_ENDS`; the phase ``start`` begins when the guest gets
    to one. ``idle``: no app runs. ``moved``: the kernel chooses where it lies, if it can. ``poll``: seconds
    between two readiness checks. ``watch`` is called whenever the guest has carried out an order.
    """

    trace: bool = False
    block_log: Path | None = None
    block_filter: tuple[tuple[int, int], ...] = ()
    misses: frozenset[int] = frozenset()
    freed: tuple[tuple[int, int], ...] = ()
    flush: bool = False
    memory: int = 0
    arguments: tuple[str, ...] = ()
    oops_panic: bool = True
    poke: Poke | None = None
    expect_panic: bool = False
    boot_timeout: float = 60.0
    grace: float = 20.0
    patience: int = 1
    seed: int = 0
    boot_trace: tuple[str, ...] | None = None
    single: bool = False
    boot_ends: tuple[int, ...] = ()
    idle: bool = False
    moved: bool = False
    poll: float = POLL_INTERVAL
    watch: Callable[[Vm], None] | None = None


@dataclass(frozen=True)
class Mark:
    """A phase, and the size of the block log when it began."""

    phase: str
    offset: int
