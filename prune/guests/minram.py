"""Search the smallest memory in which a kernel boots and serves: bisection over guests, nothing else.

What is between a size that is too small and one that is enough is halved, by ratio, until both are a grain
apart. A guest that fails is tried once more, since on a busy host a guest can be late. Near the border chance
decides: the result is a size that was enough, beside one that twice was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tracer.host import UserError


@dataclass(frozen=True)
class Trial:
    """One guest: ``memory`` in bytes; ``reason`` why it does not do, "" when it does; wall-clock ``seconds``;
    ``again``: it is the second try; ``final``: the last of several between which was healed."""

    memory: int
    reason: str
    seconds: float
    again: bool = False
    final: bool = False

    @property
    def fits(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Search:
    """``smallest``: bytes that were enough; ``too_small``: those a grain below that were not."""

    smallest: int
    too_small: int
    trials: tuple[Trial, ...]


def search(try_with: Callable[[int, bool], Trial], low: int, high: int, grain: int) -> Search:
    """Bisect between ``low`` and ``high`` bytes, rounded outwards to multiples of ``grain``.

    Args:
        try_with: starts a guest with so many bytes; the flag says that it is the second try.
        low: is known to be too small, and not tried.
        high: must do.

    Raises:
        UserError: ``high`` does not do, or is not above ``low``.
    """
    low, high = low // grain * grain, -(-high // grain) * grain
    if high <= low:
        raise UserError(
            f"searching the smallest memory: {high >> 10}K is no more than what the kernel itself takes",
            "give the workload more: [machine] memory",
        )
    trials: list[Trial] = []

    def fits(memory: int) -> bool:
        trials.append(try_with(memory, False))
        if not trials[-1].fits and not trials[-1].final:
            trials.append(try_with(memory, True))
        return trials[-1].fits

    if not fits(high):
        raise UserError(
            f"searching the smallest memory: it does not run in {high >> 10}K: {trials[-1].reason}",
            "begin with a workload that runs: kprune boot",
        )
    while high - low > grain:
        middle = min(max(math.isqrt(low * high) // grain * grain, low + grain), high - grain)
        if fits(middle):
            high = middle
        else:
            low = middle
    return Search(high, low, tuple(trials))


def short(reason: str, most: int = 160) -> str:
    """A reason for one line."""
    return reason if len(reason) <= most else f"{reason[:most]}..."
