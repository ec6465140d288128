"""In which phases of a kernel's life a function ran."""

from __future__ import annotations

from tracer.phase_names import BOOT, SHUTDOWN
from tracer.profiles.profile import FunctionRecord, Profile

RUN = "run"
#: What sees functions run: ftrace's counts, QEMU's log of blocks, the stacks of tasks that sleep.
FTRACE, BLOCKS, STACK = "ftrace", "blocks", "stack"


def phases(record: FunctionRecord) -> frozenset[str]:
    """``boot`` (until the kernel frees its init memory), ``run`` and ``shutdown``, as far as a function ran
    in them or a task slept in it."""
    return frozenset(phase_of(seen.app) for seen in record.seen)


def phase_of(app: str) -> str:
    """The phase that an app, or what stands in its place, is a part of."""
    return app if app in (BOOT, SHUTDOWN) else RUN


def sleepers(profile: Profile) -> tuple[FunctionRecord, ...]:
    """The functions that tasks sleep in, as far as somebody looked at their stacks."""
    return tuple(f for f in profile.functions if any(seen.source == STACK for seen in f.seen))
