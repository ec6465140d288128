"""How healing copes with a poor profile, and what comes of it: one short run, then boots under jitter.

``python -m prune.bench.heal WORKLOAD OUT [BOOTS]``: traces once, heals until a round of BOOTS (50) boots
misses nothing (or the rounds are used up), then boots as many times again, each in a variation of its own,
and prints one line of JSON. ``round_seconds``: the longest round, from the profile to the boot image.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prune.guests.boots import Boot
from prune.run import passes
from prune.run.pipeline import Pipeline
from prune.settings import Settings
from prune.stages import stage_seconds
from tracer.host import KpruneError, command_line
from tracer.sessions.jitter import FIRST_HEALED

#: Boots of the bench begin here, so that none repeats one that healing has made.
FIRST_BOOT = FIRST_HEALED + 6000
_ROUND = ("gather", "plan", "link")


class _Timed(Pipeline):
    """A pipeline that remembers how long each round of healing took."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.rounds: list[float] = []

    def link(self) -> None:
        super().link()
        seconds = stage_seconds(self.settings.out, _ROUND)
        self.rounds.append(sum(seconds.values()))


def main() -> None:
    """Command line; exits 1 when healing did not converge or a boot of the bench failed."""
    with command_line():
        workload, out = Path(sys.argv[1]), Path(sys.argv[2])
        boots = int(sys.argv[3]) if len(sys.argv) > 3 else 50
        result = measure(Settings(workload.absolute(), out.absolute(), trace_runs=1, boots=boots), boots)
    print(json.dumps(result))
    sys.exit(0 if result["converged"] and result["passed"] == boots else 1)


def measure(settings: Settings, boots: int) -> dict[str, Any]:
    """Heal from one run, then boot; nothing is kept from an earlier bench but the kernels."""
    for stale in ("heal", "trace", ".stages"):
        shutil.rmtree(settings.out / stale, ignore_errors=True)
    (settings.out / "heal.json").unlink(missing_ok=True)
    pipeline = _Timed(settings)
    try:
        heal = pipeline.run()["heal"]
    except KpruneError:
        heal = json.loads((settings.out / "report.json").read_text())["heal"]
    last = _boot(pipeline, range(FIRST_BOOT, FIRST_BOOT + boots))
    return {
        "rounds": heal["rounds"],
        "converged": heal["converged"],
        "added": [each["function"] for each in heal["added"]],
        "round_seconds": round(max(pipeline.rounds[1:], default=0.0), 2),
        "boots": boots,
        "passed": sum(not boot.problem for boot in last),
        "missed": sorted({miss.function for boot in last for miss in boot.misses}),
    }


def _boot(pipeline: Pipeline, numbers: Sequence[int]) -> tuple[Boot, ...]:
    return passes.boot(pipeline.workload, pipeline.folder, numbers)


if __name__ == "__main__":
    main()
