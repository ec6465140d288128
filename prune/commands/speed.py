"""``kprune speed OUT``: how fast the pruned kernel is beside its base, as ratios with intervals."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prune.measure.cell import read_cell
from prune.settings import load_settings
from prune.stages import occupy
from tracer.host import show

#: What is measured -> what it is called, and the places behind the point.
ROWS = {
    "requests_per_second": ("requests/s", 0),
    "latency_p50_ms": ("p50, ms", 2),
    "latency_p99_ms": ("p99, ms", 2),
    "hello_seconds": ("boot to the first process, s", 2),
    "ready_seconds": ("boot to ready, s", 2),
}


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "speed", help="how fast the pruned kernel is beside its base", description=__doc__
    )
    made.add_argument("out", type=Path, metavar="OUT")
    made.add_argument("--turns", type=int, metavar="N", help="turns of the two kernels (default 8)")
    made.add_argument("--seconds", type=float, metavar="S", help="of a window of load (default 2)")
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Measure, write ``OUT/speed.json`` and print it. What is missed under load is healed; then again.

    Raises:
        KpruneError: as ``kprune heal``, of a kernel that was healed.
    """
    from prune.run.measuring import SECONDS, TURNS, measure_speed
    from prune.run.pipeline import Pipeline

    pipeline = Pipeline(load_settings(options.out.absolute()))
    occupy(pipeline.folder.out)
    found = measure_speed(pipeline, options.turns or TURNS, options.seconds or SECONDS)
    show(json.dumps(found, indent=1) if options.json else table(found))
    return 0


def table(found: Mapping[str, Any]) -> str:
    """For a person: values and the ratio of pruned to base, each with its interval of 95 %."""
    lines = [f"{'':30}{'base':>24}{'pruned':>24}{'of its base':>24}"]
    for key, (label, places) in ROWS.items():
        cells = [
            _text(found[side][key], places if side != "ratio" else 2) for side in ("base", "pruned", "ratio")
        ]
        lines.append(f"{label:30}" + "".join(f"{cell:>24}" for cell in cells))
    lines.append(f"{len(found['turns'])} turns, windows of {found['window_seconds']:g} s")
    return "\n".join(lines)


def _text(raw: Any, places: int) -> str:
    cell = read_cell(raw)
    if cell.value is None:
        return cell.why
    interval = f" ({cell.low:,.{places}f}..{cell.high:,.{places}f})" if cell.low is not None else ""
    return f"{cell.value:,.{places}f}{interval}"
