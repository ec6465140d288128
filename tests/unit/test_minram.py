"""The search for the smallest memory: bisection, second tries, and what it takes down."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune.minram import Trial, search
from tracer.host import UserError

K = 1024


def guests(enough: int, late: frozenset[int] = frozenset()) -> Callable[[int, bool], Trial]:
    """Guests that serve in ``enough`` bytes; those of the sizes ``late`` only at the second try."""

    def try_with(memory: int, again: bool) -> Trial:
        fits = memory >= enough and (again or memory not in late)
        return Trial(memory, "" if fits else "out of memory", 1.0, again)

    return try_with


@given(st.integers(101, 128 * 1024), st.sampled_from([8, 64, 256]))
def test_finds_the_border(enough: int, grain: int) -> None:
    found = search(guests(enough * K), 100 * K, 128 * 1024 * K, grain * K)
    assert found.smallest - found.too_small == grain * K
    assert found.too_small < enough * K <= found.smallest
    assert found.smallest % (grain * K) == 0


@given(st.integers(101, 128 * 1024))
def test_the_result_was_tried(enough: int) -> None:
    found = search(guests(enough * K), 100 * K, 128 * 1024 * K, 64 * K)
    outcomes = {trial.memory: trial.fits for trial in found.trials}
    assert outcomes[found.smallest]
    # What is too small failed twice, unless it is the lower bound, which nobody tries.
    failed = [trial.again for trial in found.trials if trial.memory == found.too_small]
    assert failed in ([False, True], []) and (failed or found.too_small <= 100 * K)


def test_few_guests_are_needed() -> None:
    found = search(guests(5000 * K), 3000 * K, 128 * 1024 * K, 64 * K)
    assert len({trial.memory for trial in found.trials}) < 13


def test_a_guest_that_was_late_is_tried_again() -> None:
    everything = frozenset(range(0, 1025 * K, 64 * K))
    found = search(guests(300 * K, everything), 64 * K, 1024 * K, 64 * K)
    assert found.smallest == 320 * K
    assert [trial.again for trial in found.trials][:2] == [False, True]


def test_a_workload_that_does_not_run_at_all() -> None:
    with pytest.raises(UserError, match="does not run in 1024K: out of memory"):
        search(guests(2048 * K), 64 * K, 1024 * K, 64 * K)


def test_a_machine_no_larger_than_the_kernel() -> None:
    with pytest.raises(UserError, match="no more than what the kernel itself takes"):
        search(guests(1), 1024 * K, 1024 * K, 64 * K)
