"""The ways in which a run of a workload can fail; each is told from the others.

Every one holds the guest's whole console in ``console``, and the end of it in its message.
"""

from __future__ import annotations

import re

from tracer.host import GuestFailed, GuestLost, HostError, KpruneError, UserError, ValidationFailed
from tracer.oops import Oops, find_oopses

TAIL_LINES = 15
_NO_ROOM = "Initramfs unpacking failed: write error"


class _WithConsole(KpruneError):
    """``console`` is all that the guest printed, ``summary`` the message without it; ``at``: where its
    processors were (instruction pointers), as far as the emulator could say; ``phases``: (size of the block
    log when it began, name) of each phase so far."""

    def __init__(self, message: str, console: str = "", remedy: str = "", at: tuple[int, ...] = ()) -> None:
        super().__init__(message + console_end(console), remedy)
        self.summary = message
        self.console = console
        self.at = at
        self.phases: tuple[tuple[int, str], ...] = ()


class AppFailed(_WithConsole, ValidationFailed):
    """An app, its readiness check or its client failed (exit 1)."""


class AgentFailed(_WithConsole, HostError):
    """The guest's agent has not what it needs (exit 3)."""


class LostEvents(_WithConsole, ValidationFailed):
    """Trace data is incomplete or damaged (exit 1)."""


class GuestPanicked(_WithConsole, GuestFailed):
    """The guest's kernel panicked (exit 5)."""


class GuestHung(_WithConsole, GuestLost):
    """The guest stopped answering (exit 6)."""


class VmVanished(_WithConsole, GuestLost):
    """The emulator ended, or the guest switched off, when neither was asked for (exit 6)."""


class RootTooLarge(_WithConsole, UserError):
    """The guest has no memory for its root file system (exit 2)."""


def check_unpacked(console: str) -> None:
    """Whether the kernel found room for the whole archive (init/initramfs.c): in a tmpfs, it has half of the
    memory. What came first may be there, and the agent with it.

    Raises:
        RootTooLarge: it did not.
    """
    if _NO_ROOM in console:
        raise RootTooLarge(
            f"unpacking the root file system: it does not fit into the guest's memory ({_NO_ROOM})",
            console,
            "give it more memory, or leave out some of the packages' files (omit)",
        )


def console_end(console: str) -> str:
    """The last lines of the console on one line, without their time stamps."""
    lines = [re.sub(r"^\[ *\d+\.\d+\] ?", "", line).strip() for line in console.splitlines()]
    tail = [line for line in lines if line][-TAIL_LINES:]
    return f"; the console ended: {' | '.join(tail)}" if tail else ""


def panic_headline(console: str) -> str:
    """What the kernel said first when it went down, and where: one line, or ""."""
    reports = [report for report in find_oopses(console) if report.died or not report.own]
    first = next((report for report in reports if report.died), reports[0] if reports else Oops(0))
    panic = next((report.panic for report in reports if report.panic), "")
    parts = [first.what, f"at {first.place}" if first.place else "", panic]
    return ", ".join(part for part in parts if part)
