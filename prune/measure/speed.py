"""What turns of two kernels say of their speed: numbers with intervals, and the ratio of pruned to base.

A turn gives one value of each kernel and their ratio. Rates, latencies and ratios are geometric means over
the turns with Student's t; times to boot are medians with order statistics (:mod:`prune.measure.estimate`).
Where a kernel failed there is no number of it, but what it failed of.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from prune.measure.cell import Cell, cell_of
from prune.measure.estimate import Estimate, geometric_mean, median
from tracer.sessions.measure import Measured, Seen

SCHEMA = 1
NO_LOAD = "the workload has no load"
SIDES = ("base", "pruned")


def _per_second(seen: Seen) -> float:
    return sum(window.requests for window in seen.windows) / sum(window.seconds for window in seen.windows)


def _p50(seen: Seen) -> float:
    return statistics.geometric_mean(window.p50_ms for window in seen.windows)


def _p99(seen: Seen) -> float:
    return statistics.geometric_mean(window.p99_ms for window in seen.windows)


Statistic = Callable[[Sequence[float]], Estimate]
#: Key -> what a guest is worth, and how the guests of all turns become one number.
_LOADS: Mapping[str, tuple[Callable[[Seen], float], Statistic]] = {
    "requests_per_second": (_per_second, geometric_mean),
    "latency_p50_ms": (_p50, geometric_mean),
    "latency_p99_ms": (_p99, geometric_mean),
}
_BOOTS: Mapping[str, tuple[Callable[[Seen], float], Statistic]] = {
    "hello_seconds": (lambda seen: seen.hello, median),
    "ready_seconds": (lambda seen: seen.ready, median),
}


def make_speed(measured: Measured, failure: str, loaded: bool) -> dict[str, Any]:
    """``base``, ``pruned`` and ``ratio``: key -> cell; and ``turns``, all that was measured, to count again.

    Args:
        failure: what is to be said of the kernel that failed, if one did.
        loaded: the workload has a load.
    """
    found: dict[str, dict[str, Any]] = {side: {} for side in (*SIDES, "ratio")}
    for key, (value, statistic) in {**_LOADS, **_BOOTS}.items():
        if key in _LOADS and not loaded:
            cells = [Cell(None, NO_LOAD)] * len(found)
        else:
            pairs = [(value(base), value(pruned)) for base, pruned in measured.turns]
            cells = _cells(pairs, statistic, measured.side, failure)
        for side, cell in zip(found, cells, strict=True):
            found[side][key] = cell.to_json()
    turns = [list(map(asdict, turn)) for turn in measured.turns]
    return {"schema_version": SCHEMA, **found, "turns": turns}


def _cells(pairs: Sequence[tuple[float, float]], statistic: Statistic, failed: int, why: str) -> list[Cell]:
    """Of base, pruned, and their ratio. ``failed``: the side that has no number, -1 for neither."""
    if not pairs:
        return [Cell(None, f"the {SIDES[failed]} kernel: {why}")] * 3
    cells = [cell_of(statistic([pair[side] for pair in pairs])) for side in range(len(SIDES))]
    if failed >= 0:
        cells[failed] = Cell(None, why)
        return [*cells, Cell(None, why)]
    return [*cells, cell_of(geometric_mean([pruned / base for base, pruned in pairs]))]
