"""What pruning costs: plan + edit + script + pruned link, as a ratio to a plain link of the same objects.

Both sides are measured in one run, in turn, by the same kbuild, kallsyms passes included; the medians
are compared. ``python -m prune.bench OUT [ROUNDS]`` on a folder that ``kprune run`` has filled.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prune import passes
from prune.kbuild import relink
from prune.pipeline import Pipeline
from prune.settings import load_settings
from tracer.host import KpruneError


def main() -> None:
    """Print one line of JSON: seconds of each side and their ratio."""
    try:
        out = Path(sys.argv[1] if len(sys.argv) > 1 else "out/micro")
        rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
        print(json.dumps(measure_ratio(out.absolute(), rounds)))
    except KpruneError as error:
        print(f"kprune: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def measure_ratio(out: Path, rounds: int) -> dict[str, object]:
    """Medians of ``rounds`` plain and pruned links, made in turn, and their ratio."""
    pipeline = Pipeline(load_settings(out))
    build = pipeline.production
    scratch = out / "bench"
    shutil.rmtree(scratch, ignore_errors=True)

    def plain() -> None:
        relink(build, None, scratch / "plain", scratch / "plain.log", image=False)

    def pruned() -> None:
        # As `kprune plan` and `kprune link` do, from the objects on; nothing is kept from the round before.
        shutil.rmtree(build.objtree / ".kprune", ignore_errors=True)
        fresh = Pipeline(load_settings(out))
        passes.plan(fresh.settings, fresh.folder, fresh.model)
        relink(
            build, fresh.folder.plan, scratch / "pruned", scratch / "pruned.log", image=False,
            before=lambda: passes.prepare_for(build, fresh.folder, fresh.model),
        )  # fmt: skip

    plain_seconds, pruned_seconds = [], []
    for _ in range(rounds):
        plain_seconds.append(_timed(plain))
        pruned_seconds.append(_timed(pruned))
    plain_median, pruned_median = statistics.median(plain_seconds), statistics.median(pruned_seconds)
    return {
        "plain_link_seconds": round(plain_median, 2),
        "plan_edit_link_seconds": round(pruned_median, 2),
        "ratio": round(pruned_median / plain_median, 2),
        "rounds": rounds,
    }


def _timed(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
