"""The contenders of ``make bench`` measured, in rounds that take turns.

Wall time is compared within a round, where the machine was the same for all; what is told is the median of
such ratios.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from prune.bench.links import Contender
from prune.measure.cost import NOTHING, Cost, program_cost
from prune.measure.estimate import Estimate, spread
from tracer.host import say


def ratios(values: Sequence[float], others: Sequence[float]) -> Estimate:
    """Of the same rounds; what ran in fewer of them ran in the first."""
    return spread([value / other for value, other in zip(values, others, strict=False)])


def run_rounds(contenders: Sequence[Contender], rounds: int, log: Path) -> dict[str, list[Cost]]:
    """Label -> costs, a round each. All run once before, unmeasured, but those that run in few rounds only.

    Raises:
        BuildFailed: a command failed.
    """
    costs: dict[str, list[Cost]] = {contender.label: [] for contender in contenders}
    for contender in contenders:
        if contender.rounds >= rounds:
            measure(contender, log)
    for number in range(1, rounds + 1):
        for contender in contenders:
            if number <= contender.rounds:
                say(f"bench: round {number} of {rounds}: {contender.label}")
                costs[contender.label].append(measure(contender, log))
    return costs


def measure(contender: Contender, log: Path) -> Cost:
    """Run the commands of a contender into an empty folder.

    Raises:
        BuildFailed: one of them failed.
    """
    home = contender.vmlinux.parent
    for folder in (home, *([contender.forget] if contender.forget else [])):
        shutil.rmtree(folder, ignore_errors=True)
    home.mkdir(parents=True)
    doing = f"measuring {contender.label}"
    costs = [program_cost(words, doing=doing, cwd=contender.cwd, log=log) for words in contender.commands]
    return sum(costs, NOTHING)
