"""Means, medians and their intervals, against tables and by hand."""

from __future__ import annotations

import math
import random

import pytest

from prune.measure.estimate import geometric_mean, median, student_t


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (11, 2.201), (30, 2.042),
     (120, 1.980), (1001, 1.962)],
)  # fmt: skip
def test_students_t_is_that_of_the_tables(freedom: int, value: float) -> None:
    assert student_t(freedom) == pytest.approx(value, abs=0.0006)


def test_a_geometric_mean_and_its_interval() -> None:
    found = geometric_mean([1.0, 2.0, 4.0])
    assert found.value == pytest.approx(2.0) and found.n == 3
    reach = 4.3027 * math.log(2) / math.sqrt(3)
    assert found.low == pytest.approx(2 / math.exp(reach), rel=1e-4)
    assert found.high == pytest.approx(2 * math.exp(reach), rel=1e-4)


def test_it_does_not_matter_which_kernel_is_named_first() -> None:
    ratios = [0.91, 0.95, 1.02, 0.97]
    one, other = geometric_mean(ratios), geometric_mean([1 / ratio for ratio in ratios])
    assert other.value == pytest.approx(1 / one.value)
    assert one.low and other.high == pytest.approx(1 / one.low)


def test_one_measurement_has_no_interval() -> None:
    assert (geometric_mean([3.0]).low, geometric_mean([3.0]).n) == (None, 1)


def test_the_median_lies_between_measured_values() -> None:
    # The k of n: 6 to 8 values need all of them, of 10 the second, of 20 the sixth (Conover, table A3).
    for n, k in ((6, 1), (8, 1), (9, 2), (10, 2), (17, 5), (20, 6)):
        found = median([float(value) for value in range(1, n + 1)])
        assert (found.value, found.low, found.high) == ((n + 1) / 2, k, n + 1 - k)
    assert median([1.0, 9.0, 2.0, 1.0, 1.0]).low is None


def test_the_intervals_hold_the_truth_as_often_as_they_say() -> None:
    chance = random.Random(1)
    draws = [[chance.lognormvariate(0, 0.3) for _ in range(12)] for _ in range(2000)]
    for estimate in (geometric_mean, median):
        found = [estimate(values) for values in draws]
        held = sum(each.low <= 1 <= each.high for each in found if each.low and each.high) / len(found)
        assert 0.93 <= held <= 0.98
