"""``kprune speed``: what it says of turns, and of a kernel that failed."""

from __future__ import annotations

from prune.commands.speed import table
from prune.measure.speed import make_speed
from tracer.host import GuestFailed
from tracer.sessions.measure import Measured, Seen
from tracer.workloads.load import Window


def _seen(rate: int, ready: float) -> Seen:
    return Seen(ready / 2, ready, (Window(rate * 2, 2.0, 3.0, 20.0), Window(rate * 2, 2.0, 3.0, 20.0)))


def test_ratios_stand_beside_both_kernels() -> None:
    measured = Measured(tuple((_seen(1000 + 10 * n, 2.0), _seen(2000 + 20 * n, 1.0)) for n in range(6)))
    lines = table({**make_speed(measured, "", True), "window_seconds": 2.0}).splitlines()
    assert lines[0].split() == ["base", "pruned", "of", "its", "base"]
    assert lines[1].split()[0] == "requests/s" and lines[1].endswith("2.00 (2.00..2.00)")
    assert lines[-1] == "6 turns, windows of 2 s"


def test_a_kernel_that_failed_has_no_number() -> None:
    measured = Measured(((_seen(1000, 2.0), _seen(1000, 2.0)),), 1, GuestFailed("it went down"))
    lines = table({**make_speed(measured, "missed x", True), "window_seconds": 2.0}).splitlines()
    assert lines[1].split()[1] == "1,000" and lines[1].endswith("missed x")
