"""How long a guest that boots is waited for: as long as it has something to say, within limits.

A kernel that checks itself (KASAN, lockdep, page debugging) takes minutes to boot under emulation, and
prints all the while; one that hangs is silent, or repeats the watchdogs' complaints for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

#: A guest that goes on printing is waited for this many times as long as a silent one.
TALKING = 5


@dataclass
class BootWait:
    """``silence``: how long a guest may print nothing; ``began``: when it was switched on; both by the
    caller's clock."""

    silence: float
    began: float

    def __post_init__(self) -> None:
        self._printed = 0
        self._spoke = self.began

    def deadline(self, printed: int, now: float) -> float:
        """When to give up on a guest that has printed so many bytes by ``now``."""
        if printed > self._printed:
            self._printed, self._spoke = printed, now
        return min(self._spoke + self.silence, self.began + TALKING * self.silence)

    def overdue(self) -> str:
        """What to say of it at the deadline."""
        silent = self._spoke - self.began < (TALKING - 1) * self.silence
        if silent:
            return f"the console has had nothing new for {self.silence:g} seconds"
        return f"no end in {TALKING * self.silence:g} seconds, though it goes on printing"
