"""The search for the smallest memory: bisection, second tries, and what it takes down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune.commands.minram import only_apps, table
from prune.guests.minram import Trial, search
from tracer.host import UserError
from tracer.workloads.workload_file import load_workload

EXAMPLES = Path(__file__).parents[2] / "examples"
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


def side(smallest: int, reason: str) -> dict[str, object]:
    trials = [Trial(smallest, "", 2.0), Trial(smallest - 64 * K, reason, 1.0)]
    return {
        "smallest": smallest, "too_small": smallest - 64 * K, "freed_after_boot": 300 * K, "hash_tables": {},
        "rows": {"text": smallest // 2, "free": smallest // 2}, "trials": [asdict(trial) for trial in trials],
    }  # fmt: skip


def test_the_table_has_both_kernels_and_says_why_not_less() -> None:
    sides = {"base": side(8192 * K, "it hung"), "pruned": side(4096 * K, "missed shrink_list (mm/vmscan.o)")}
    lines = table({"sides": sides}).splitlines()
    assert lines[1].split() == ["serves", "in", "8,192", "4,096"]
    assert lines[2].split() == ["text", "4,096", "2,048"]
    assert "base does not in 8,128: it hung" in lines
    assert lines[-2].strip().startswith("what a kernel runs when memory is short is traced")
    assert lines[-1].strip() == "or healed: kprune minram --heal"


def test_apps_are_chosen_by_name() -> None:
    workload = load_workload(EXAMPLES / "small")
    assert [app.name for app in only_apps(workload, ["web"]).apps] == ["web"]
    assert only_apps(workload, []).apps == workload.apps
    with pytest.raises(UserError, match="small has no wbe; it has shell, ps, web"):
        only_apps(workload, ["wbe"])
