"""How complete is what we know? The curve of functions known after each run, and what is still unseen.

Every run is a sample of which functions run: incidence data. The functions seen in exactly one run (Q1) and
in exactly two (Q2) say how many there are that no run has met yet:

* Chao2, bias-corrected, a lower bound of the unseen: (m-1)/m * Q1(Q1-1) / (2(Q2+1)), m runs
  (A. Chao, Biometrics 43:783, 1987; A. Chao, in Encyclopedia of Statistical Sciences, 2005).
* Good-Turing, what the next run will add: Q1/m (I. J. Good, Biometrika 40:237, 1953).
* What further runs will add: Q0 (1 - (1 - Q1/(m Q0 + Q1))^more), Q0 the Chao2 estimate
  (R. K. Colwell et al., Journal of Plant Ecology 5:3, 2012, equation 18).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracer.profiles.profile import Profile

METHOD = "Chao2 (bias-corrected) over runs; the next run by Good-Turing"


@dataclass(frozen=True)
class Saturation:
    """``source``: whose runs these are; ``curve[i]``: functions known after run ``i``; ``quiet``: how many
    of the last runs added nothing; ``unseen_estimate``, ``next_run_estimate``: functions, None with
    fewer than two runs."""

    source: str
    runs: int
    quiet: int
    curve: tuple[int, ...]
    unseen_estimate: float | None
    next_run_estimate: float | None
    method: str = METHOD


def saturation(profile: Profile) -> Saturation | None:
    """Of the source that made most runs; None when the profile has none (imported, say).

    The deliberate misses are no runs of the workload and do not count.
    """
    by_source: dict[str, list[int]] = {}
    for number, run in enumerate(profile.runs):
        if not run.name.startswith("miss-"):
            by_source.setdefault(run.source, []).append(number)
    if not by_source:
        return None
    source, chosen = max(by_source.items(), key=lambda item: len(item[1]))
    return estimate(source, [function.runs for function in profile.functions], chosen)


def estimate(source: str, incidence: Sequence[int], runs: Sequence[int]) -> Saturation:
    """From each function's bit mask of the runs that saw it, and the numbers of the runs that count."""
    curve, known = [], 0
    for number in runs:
        known |= 1 << number
        curve.append(sum(1 for mask in incidence if mask & known))
    new = [after - before for before, after in zip([0, *curve], curve, strict=False)]
    quiet = next((i for i, each in enumerate(reversed(new)) if each), len(new))
    q1, q2 = _seen_exactly(incidence, known)
    m = len(runs)
    enough = m > 1
    return Saturation(
        source,
        m,
        quiet,
        tuple(curve),
        round(chao2(q1, q2, m), 2) if enough else None,
        round(q1 / m, 2) if enough else None,
    )


def _seen_exactly(incidence: Sequence[int], runs: int) -> tuple[int, int]:
    """How many functions were seen in exactly one and in exactly two of the runs in the mask."""
    times = [(mask & runs).bit_count() for mask in incidence]
    return times.count(1), times.count(2)


def chao2(q1: int, q2: int, runs: int) -> float:
    """How many functions no run has met, at least."""
    return (runs - 1) / runs * q1 * max(q1 - 1, 0) / (2 * (q2 + 1))


def expected_new(incidence: Sequence[int], runs: Sequence[int], more: int) -> float:
    """How many functions ``more`` further runs are expected to add to what ``runs`` have seen."""
    mask = sum(1 << number for number in runs)
    q1, q2 = _seen_exactly(incidence, mask)
    unseen, m = chao2(q1, q2, len(runs)), len(runs)
    if not unseen:
        return q1 / m * more if q1 else 0.0
    return unseen * (1 - (1 - q1 / (m * unseen + q1)) ** more)
