"""One conversation with a guest: orders go out, answers come in, and how the guest is shows meanwhile.

An app that fails, a panic, a guest that hangs and an emulator that vanishes are different errors
(:mod:`tracer.outcome`); a panic shows at once, in QEMU's events, not when time runs out.
"""

from __future__ import annotations

import re
import time
from collections import deque

from tracer.host import check_room
from tracer.machines.vm import RESET, VANISHED, Vm
from tracer.outcome import GuestHung, GuestPanicked, VmVanished, check_unpacked, panic_headline
from tracer.phase_names import BOOT, START
from tracer.sessions.executed import executed_blocks
from tracer.sessions.options import Mark, SessionOptions

#: Lines of an app's output that are kept; its errors come last.
_MOST_OUTPUT = 1000


class Conversation:
    """With the agent of one guest. ``marks``: the phases so far, the one that goes on last."""

    def __init__(self, vm: Vm, options: SessionOptions) -> None:
        self.vm = vm
        self.options = options
        self.marks = [Mark(BOOT, 0)]
        self._lines: list[str] = []
        self._missed_at: float | None = None
        self._log_read = 0

    def ask(self, order: str, seconds: float) -> tuple[str, int]:
        """Give one order; the answer's verb and status. Lines of output come before it and are dropped."""
        verb, status, _ = self.converse(order, seconds)
        return verb, status

    def converse(self, order: str, seconds: float) -> tuple[str, int, list[str]]:
        allowed = seconds + self.options.grace
        deadline = time.monotonic() + allowed
        output: deque[str] = deque(maxlen=_MOST_OUTPUT)
        self.vm.send(order)
        while True:
            for line in self.take_lines():
                verb, _, rest = line.partition(" ")
                if verb in ("done", "died") and re.fullmatch(r"[0-9]{1,9}", rest.strip()):
                    if self.options.watch:
                        self.options.watch(self.vm)
                    return verb, int(rest), list(output)
                output.append(line.removeprefix("| "))
            self.pump(0.5, deadline, f'the guest did not answer "{order}" in {allowed:g} seconds')

    def take_lines(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def pump(self, seconds: float, deadline: float = float("inf"), overdue: str = "") -> None:
        """Take in what the guest says for up to ``seconds``, and find out how it is.

        What it says excuses it for being late, but not for ever: lines need not be the answer.
        """
        self._lines += self.vm.receive(seconds)
        if self.missed_deadline() < deadline:
            deadline, overdue = self.missed_deadline(), ""
        check_room(self.vm.console.parent)
        if self._lines and time.monotonic() <= deadline + self.options.grace:
            return
        if self.vm.ending:
            raise self.gone()
        if time.monotonic() > deadline:
            console = self.vm.console_text()
            if "Kernel panic" in console:  # it went down, but could not even reset
                raise GuestPanicked(f"the guest panicked: {panic_headline(console)}", console)
            why = overdue or f"after a miss, it said nothing for {self.options.grace:g} seconds"
            raise GuestHung(f"the guest hung: {why}", console, at=self.vm.processors_at())

    def missed_deadline(self) -> float:
        """After a miss a guest need not be waited for as long."""
        watched = self.options.misses or self.options.boot_ends
        if watched and self._missed_at is None and self._missed():
            self._missed_at = time.monotonic()
        return float("inf") if self._missed_at is None else self._missed_at + self.options.grace

    def _missed(self) -> bool:
        """Whether what the block log has now, and did not have the last time, tells of a miss."""
        begin, new = self._log_read, self.vm.log_from(self._log_read)
        freed_from = next((mark.offset for mark in self.marks if mark.phase == START), float("inf"))
        for address, at in executed_blocks(new):
            self._log_read = begin + at + 1
            # Between what is freed lies init code that free_initmem() begins with.
            freed = self.options.freed if begin + at >= freed_from else ()
            if address in self.options.misses or any(first <= address <= last for first, last in freed):
                return True
        return False

    def gone(self) -> Exception:
        """The machine ended when nobody asked it to: as an error."""
        console = self.vm.console_text()
        check_unpacked(console)
        during = f"in phase {self.marks[-1].phase}"
        if self.vm.ending == RESET:
            headline = panic_headline(console) or "it reset without a word"
            return GuestPanicked(f"the guest panicked {during}: {headline}", console, at=self.vm.ended_at)
        if self.vm.ending == VANISHED:
            said = self.vm.qemu_said() or "it said nothing"
            return VmVanished(f"QEMU vanished {during}: {said}", console)
        return VmVanished(f"the guest switched itself off {during}", console)
