"""What it costs to run a program: time, processor time, memory at its peak
(:mod:`prune.measure.cost_child`)."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.host import BuildFailed, HostError, run_program

_CHILD = Path(__file__).with_name("cost_child.py")


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, processor seconds, and bytes: of the largest resident set, or of all resident sets
    at once where the program has others do its work."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int

    @property
    def peak_mib(self) -> float:
        return self.peak_bytes / (1 << 20)

    def __add__(self, other: Cost) -> Cost:
        """One after the other: times add up, memory does not."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )


NOTHING = Cost(0, 0, 0)


def program_cost(command: Sequence[str], *, doing: str, cwd: Path, log: Path | None = None) -> Cost:
    """Run a program once. ``log``: gets what it says.

    Raises:
        BuildFailed: it exited non-zero; the message has the end of what it said.
        HostError: it does not exist.
    """
    program = command[0]
    if shutil.which(program) is None and not (cwd / program).is_file():
        raise HostError(f"{doing}: {program} is not there", "kprune doctor says how to get it")
    with tempfile.TemporaryDirectory(prefix="kprune-") as folder:
        result = Path(folder) / "cost.json"
        words = [*measured(result), *command]
        run_program(words, doing=doing, log=log, cwd=cwd, failure=BuildFailed, name=program)
        return read_cost(result, doing)


def measured(result: Path) -> list[str]:
    """The words before a command that is measured; :func:`read_cost` reads the ``result``."""
    return [sys.executable, "-I", "-S", str(_CHILD), str(result)]


def read_cost(result: Path, doing: str) -> Cost:
    """What a command behind :func:`measured` cost.

    Raises:
        HostError: it did not run.
    """
    try:
        value = json.loads(result.read_text())
    except (OSError, ValueError) as error:
        raise HostError(f"{doing}: {result}: {error}", "was another linker called?") from error
    return Cost(float(value["seconds"]), float(value["cpu_seconds"]), int(value["peak_bytes"]))
