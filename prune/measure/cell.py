"""A number of the grid, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prune.measure.estimate import Estimate


@dataclass(frozen=True)
class Cell:
    """``value`` is None where nothing was measured; ``why`` not. What was measured ``n`` times has an
    interval, ``low`` to ``high``, if it was often enough: that of 95 % confidence for what guests do
    (:mod:`prune.measure.estimate`), the smallest and the largest value for links."""

    value: float | None
    why: str = ""
    low: float | None = None
    high: float | None = None
    n: int = 1

    def to_json(self) -> dict[str, Any]:
        n = 0 if self.value is None else self.n
        return {"value": self.value, "low": self.low, "high": self.high, "n": n, "why": self.why}


def cell_of(found: Estimate) -> Cell:
    """What was measured more than once."""
    return Cell(found.value, "", found.low, found.high, found.n)


def read_cell(value: Mapping[str, Any]) -> Cell:
    """A cell from its JSON."""
    return Cell(value["value"], value["why"], value["low"], value["high"], value["n"])
