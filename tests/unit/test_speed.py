"""From turns of two kernels to numbers with intervals."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from prune.measure.cell import Cell, read_cell
from prune.measure.speed import NO_LOAD, make_speed
from tracer.host import GuestFailed
from tracer.sessions.measure import Measured, Seen
from tracer.workloads.load import Window


def seen(ready: float, *rates: float) -> Seen:
    return Seen(ready - 0.5, ready, tuple(Window(round(100 * rate), 100.0, 9.0, 16.0) for rate in rates))


#: The pruned kernel is four times as fast in one turn and as fast in the other, on a host that slows down.
TURNS = ((seen(3.0, 10, 30), seen(1.5, 80)), (seen(6.0, 5), seen(6.0, 5)))


def cell(found: dict[str, Any], side: str, key: str) -> Cell:
    return read_cell(found[side][key])


def test_ratios_are_those_within_a_turn() -> None:
    found = make_speed(Measured(TURNS), "", loaded=True)
    rate = cell(found, "ratio", "requests_per_second")
    reach = 12.7062 * math.log(4) / math.sqrt(2) / math.sqrt(2)
    assert rate.value == pytest.approx(2.0) and rate.n == 2
    assert (rate.low, rate.high) == (
        pytest.approx(2 / math.exp(reach), rel=1e-4), pytest.approx(2 * math.exp(reach), rel=1e-4),
    )  # fmt: skip
    assert cell(found, "base", "requests_per_second").value == pytest.approx(10.0)
    assert cell(found, "ratio", "ready_seconds").value == pytest.approx(math.sqrt(0.5))
    assert cell(found, "pruned", "ready_seconds") == Cell(3.75, n=2)  # the median of two has no interval
    assert cell(found, "ratio", "latency_p99_ms").value == pytest.approx(1.0)


def test_what_was_measured_is_kept_and_is_json() -> None:
    found = json.loads(json.dumps(make_speed(Measured(TURNS), "", loaded=True)))
    assert found["turns"][0][0]["windows"][1]["requests"] == 3000
    assert found["schema_version"] == 1


def test_a_kernel_that_failed_has_a_reason_and_the_other_its_numbers() -> None:
    measured = Measured(TURNS, 1, GuestFailed("it panicked"))
    found = make_speed(measured, "missed tcp_close", loaded=True)
    for side in ("pruned", "ratio"):
        assert cell(found, side, "requests_per_second") == Cell(None, "missed tcp_close", n=0)
        assert cell(found, side, "ready_seconds") == Cell(None, "missed tcp_close", n=0)
    assert cell(found, "base", "requests_per_second").n == 2
    at_once = make_speed(Measured((), 1, GuestFailed("it panicked")), "missed x", loaded=True)
    assert cell(at_once, "base", "ready_seconds") == Cell(None, "the pruned kernel: missed x", n=0)


def test_a_workload_without_a_load_boots_all_the_same() -> None:
    turns = tuple((seen(3.0), seen(2.0)) for _ in range(8))
    found = make_speed(Measured(turns), "", loaded=False)
    assert cell(found, "pruned", "requests_per_second").why == NO_LOAD
    assert cell(found, "ratio", "latency_p50_ms").why == NO_LOAD
    assert cell(found, "base", "ready_seconds") == Cell(3.0, "", 3.0, 3.0, 8)
