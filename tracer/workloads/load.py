"""What a load says of the service that it puts load on: read, and checked.

A load is a command of the host's (``load`` in workload.toml) that puts load on the service for
``$KPRUNE_LOAD_SECONDS`` seconds, and then prints one line of JSON:

    {"requests": 312, "seconds": 2.01, "latencies_ms": [5.1, 6.3, ...]}
    {"requests": 312, "seconds": 2.01, "quantiles_ms": {"50": 5.9, "99": 31.2}}

``requests`` were answered in ``seconds``; ``latencies_ms`` has how long each of them took, ``quantiles_ms``
at least the median and the 99th percentile of that, for clients that tell no more. A soak needs neither.
``lost``, if it is there: how many were not answered, in whatever way. What is timed must lose none.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from tracer.host import UserError
from tracer.workloads.workload import App


@dataclass(frozen=True)
class Window:
    """What a load saw: ``requests`` answered in ``seconds``; median and 99th percentile of how long it took
    to answer one, in milliseconds (nan: not said); how many were ``lost``."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    lost: int = 0


def read_load(app: App, said: str, timed: bool = True) -> Window:
    """What a load printed; only the last line that begins with a brace counts.

    Args:
        timed: it must say how long requests took.

    Raises:
        UserError: there is none, or it is not as the top of this file says.
    """

    def wrong(what: str) -> NoReturn:
        remedy = 'one line like {"requests": 9, "seconds": 2.0, "latencies_ms": [...]} is wanted'
        raise UserError(f"measuring app {app.name}: its load {what}", remedy)

    line = next((line for line in reversed(said.splitlines()) if line.startswith("{")), None)
    if line is None:
        wrong(f"printed no line of JSON but {' | '.join(said.strip().splitlines()[-3:]) or 'nothing'}")
    try:
        value: dict[str, Any] = json.loads(line)
    except (ValueError, RecursionError) as error:
        wrong(f"printed no JSON: {error}")
    keys = {"requests", "seconds", "latencies_ms", "quantiles_ms", "lost"}
    unknown = sorted(set(value) - keys)
    if unknown:
        wrong(f"printed the unknown key {unknown[0]}")
    requests, seconds = value.get("requests"), value.get("seconds")
    if not isinstance(requests, int) or isinstance(requests, bool) or requests < 1:
        wrong(f"printed requests {requests!r}, which is not a whole number of at least 1")
    lost = value.get("lost", 0)
    if not isinstance(lost, int) or isinstance(lost, bool) or lost < 0:
        wrong(f"printed lost {lost!r}, which is not a whole number")
    if timed and lost:
        wrong(f"lost {lost} of its requests, so how fast the others were says nothing")
    if not _is_positive(seconds):
        wrong(f"printed seconds {seconds!r}, which is not a number above 0")
    told = ("latencies_ms" in value) + ("quantiles_ms" in value)
    if not timed and not told:
        return Window(requests, float(seconds), math.nan, math.nan, lost)
    if told != 1:
        wrong("printed not one of latencies_ms and quantiles_ms")
    if "quantiles_ms" in value:
        quantiles = value["quantiles_ms"]
        if not isinstance(quantiles, dict) or not all(
            _is_positive(quantiles.get(key)) for key in ("50", "99")
        ):
            wrong('printed quantiles_ms without numbers for "50" and "99"')
        return Window(requests, float(seconds), float(quantiles["50"]), float(quantiles["99"]), lost)
    latencies = value["latencies_ms"]
    if not isinstance(latencies, list) or not latencies or not all(map(_is_positive, latencies)):
        wrong("printed latencies_ms that is no list of numbers above 0")
    if len(latencies) != requests:
        wrong(f"printed {len(latencies)} latencies of {requests} requests")
    return Window(requests, float(seconds), quantile(latencies, 0.5), quantile(latencies, 0.99), lost)


def _is_positive(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values do not exceed."""
    ordered = sorted(values)
    return float(ordered[max(math.ceil(share * len(ordered)) - 1, 0)])
