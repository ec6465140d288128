"""What repeated measurements say, with an interval that holds the true value with a probability of 95 %.

What is a rate or a ratio has a geometric mean, with Student's t on the logarithms: how much faster one
kernel is than the other is then the same number whichever is named first. Of times with now and then a very
long one, such as a boot on a busy host, it is the median, with the narrowest interval between measured
values that is sure enough whatever the distribution (order statistics). Of what a quiet machine repeats a few
times, such as a link, the smallest and the largest value stand beside the median, and no probability.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """``low`` and ``high``: of the interval, None where ``n`` measurements are too few for one."""

    value: float
    low: float | None
    high: float | None
    n: int


def geometric_mean(values: Sequence[float]) -> Estimate:
    """Of positive values."""
    logs = [math.log(value) for value in values]
    middle, n = statistics.fmean(logs), len(logs)
    if n < 2:
        return Estimate(math.exp(middle), None, None, n)
    reach = student_t(n - 1) * statistics.stdev(logs) / math.sqrt(n)
    return Estimate(math.exp(middle), math.exp(middle - reach), math.exp(middle + reach), n)


def median(values: Sequence[float]) -> Estimate:
    """The k-th smallest and the k-th largest value miss the median between them with the probability that of
    n tosses of a coin fewer than k are heads, or tails; six values are the fewest that are sure enough."""
    ordered, n = sorted(values), len(values)
    middle = statistics.median(ordered)
    tail, k = 0.0, 0
    while 2 * (tail := tail + math.comb(n, k) / 2**n) <= 1 - CONFIDENCE:
        k += 1
    if k == 0:
        return Estimate(middle, None, None, n)
    return Estimate(middle, ordered[k - 1], ordered[n - k], n)


def spread(values: Sequence[float]) -> Estimate:
    """The median, between the smallest and the largest value."""
    return Estimate(statistics.median(values), min(values), max(values), len(values))


def student_t(freedom: int) -> float:
    """The value that Student's t of so many degrees of freedom exceeds in size with a probability of 5 %."""
    low, high = 0.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < CONFIDENCE else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """The probability that Student's t is between -t and t (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = term if freedom > 1 else 0.0
    for i in range(2 + odd, freedom - 1, 2):
        term *= (i - 1) / i * math.cos(angle) ** 2
        total += term
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total
