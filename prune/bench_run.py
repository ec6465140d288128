"""Commands measured: seconds, processor time, memory (:mod:`prune.bench_child`), in rounds that take turns.

Wall time is compared within a round, where the machine was the same for all; what is told is the median of
such ratios.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prune.bench_links import Contender
from tracer.host import BuildFailed, say

_CHILD = Path(__file__).with_name("bench_child.py")


@dataclass(frozen=True)
class Cost:
    """``wall`` and ``cpu`` in seconds, ``peak`` resident memory in MiB."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Spread:
    """Median, least and most of some rounds."""

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], others: Sequence[float]) -> Spread:
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
    """Run the commands of a contender into an empty folder; times add up, memory does not.

    Raises:
        BuildFailed: one of them failed.
    """
    home = contender.vmlinux.parent
    for folder in (home, *([contender.forget] if contender.forget else [])):
        shutil.rmtree(folder, ignore_errors=True)
    home.mkdir(parents=True)
    costs = [_measure(words, contender, log) for words in contender.commands]
    return Cost(
        sum(cost.wall for cost in costs), sum(cost.cpu for cost in costs), max(cost.peak for cost in costs)
    )


def _measure(words: Sequence[str], contender: Contender, log: Path) -> Cost:
    command = [sys.executable, "-I", "-S", str(_CHILD), *words]
    with log.open("wb") as stream:
        done = subprocess.run(
            command, cwd=contender.cwd, check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=stream,
        )  # fmt: skip
    if done.returncode:
        tail = " | ".join(log.read_text(errors="replace").strip().splitlines()[-4:])
        raise BuildFailed(f"measuring {contender.label}: {words[0]} exited {done.returncode}: {tail}")
    said = json.loads(done.stdout)
    return Cost(said["wall"], said["cpu"], said["peak"] / 1024)
