"""What a load prints: what is read of it, and what a mistake in it says."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from tracer.host import UserError
from tracer.workloads.load import Window, quantile, read_load
from tracer.workloads.workload_file import load_workload

EXAMPLE = load_workload(Path(__file__).parents[2] / "examples" / "micro")
WEB = next(app for app in EXAMPLE.apps if app.name == "web")
GOOD = {"requests": 4, "seconds": 2.0, "latencies_ms": [1, 2.5, 3, 40]}


def test_latencies_become_quantiles() -> None:
    assert read_load(WEB, f"warming up\n{json.dumps(GOOD)}\nbye\n") == Window(4, 2.0, 2.5, 40)
    found = read_load(WEB, json.dumps(GOOD))
    assert found.requests / found.seconds == 2.0


def test_a_client_that_knows_quantiles_only() -> None:
    said = '{"requests": 9, "seconds": 3, "quantiles_ms": {"50": 1.5, "90": 2, "99": 4}}'
    assert read_load(WEB, said) == Window(9, 3.0, 1.5, 4.0)


def test_a_soak_does_without_latencies_and_a_measurement_does_not() -> None:
    """wrk with many requests at once gives 0 as the 99th percentile."""
    said = '{"requests": 9, "seconds": 3, "lost": 2}'
    found = read_load(WEB, said, timed=False)
    assert (found.requests, found.seconds, found.lost) == (9, 3.0, 2) and math.isnan(found.p99_ms)
    for timed, more in (True, ""), (False, ', "quantiles_ms": {"50": 36.6, "99": 0}'):
        with pytest.raises(UserError):
            read_load(WEB, said.replace("}", f"{more}}}", 1), timed)


def test_quantiles_are_values_that_were_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [quantile(values, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1, 50, 99, 100]
    assert quantile([7.0], 0.99) == 7


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("", "printed no line of JSON but nothing"),
        ("Connection refused", "printed no line of JSON but Connection refused"),
        ('{"requests": 4', "printed no JSON"),
        ({**GOOD, "requests": 0}, "requests 0, which"),
        ({**GOOD, "requests": True}, "requests True, which"),
        ({**GOOD, "requests": "4"}, "requests '4', which"),
        ({**GOOD, "requests": 5}, "4 latencies of 5 requests"),
        ({**GOOD, "seconds": 0}, "seconds 0, which"),
        ({**GOOD, "seconds": float("inf")}, "seconds inf, which"),
        ({"requests": 1, "latencies_ms": [1]}, "seconds None, which"),
        ({**GOOD, "latencies_ms": []}, "no list of numbers"),
        ({**GOOD, "latencies_ms": [1, 2, 3, "4"]}, "no list of numbers"),
        ({"requests": 1, "seconds": 1}, "not one of latencies_ms and quantiles_ms"),
        ({**GOOD, "quantiles_ms": {"50": 1, "99": 1}}, "not one of latencies_ms and quantiles_ms"),
        ({"requests": 1, "seconds": 1, "quantiles_ms": {"50": 1}}, 'without numbers for "50" and "99"'),
        ({**GOOD, "latency_ms": []}, "unknown key latency_ms"),
        ({**GOOD, "lost": 3}, "lost 3 of its requests, so how fast"),
        ({**GOOD, "lost": -1}, "lost -1, which"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(said: object, why: str) -> None:
    with pytest.raises(UserError) as caught:
        read_load(WEB, said if isinstance(said, str) else json.dumps(said))
    assert why in str(caught.value) and str(caught.value).startswith("measuring app web: its load")
    assert "\n" not in str(caught.value)
