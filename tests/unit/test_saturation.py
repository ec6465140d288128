"""The curve and the estimate of what is unseen: by hand, and against populations that are known."""

from __future__ import annotations

import random

import pytest

from tracer.profiles.profile import KernelId, Profile, Run
from tracer.profiles.saturation import chao2, estimate, expected_new, saturation


def test_by_hand() -> None:
    # Three runs; functions seen in runs {0,1,2}, {0}, {1}, {2}, {0,2}: Q1 = 3, Q2 = 1.
    made = estimate("blocks", [0b111, 0b001, 0b010, 0b100, 0b101], [0, 1, 2])
    assert made.curve == (3, 4, 5)
    assert made.quiet == 0
    assert made.unseen_estimate == pytest.approx(2 / 3 * 3 * 2 / (2 * 2))
    assert made.next_run_estimate == pytest.approx(1.0)


def test_quiet_runs_and_too_few() -> None:
    assert estimate("blocks", [0b0011, 0b0110], [0, 1, 2, 3]).quiet == 2
    assert estimate("blocks", [0b1], [0]).unseen_estimate is None
    assert estimate("blocks", [], [0, 1]).curve == (0, 0)


def sample(rng: random.Random, chances: list[float], runs: int) -> list[int]:
    return [sum((rng.random() < chance) << run for run in range(runs)) for chance in chances]


@pytest.mark.parametrize("seed", range(8))
def test_leaving_out_runs_that_we_have(seed: int) -> None:
    """Half of the runs foretell what the other half adds, on functions as rare as real ones are: most run
    always, some hardly ever."""
    rng = random.Random(seed)
    chances = [1.0] * 6000 + [rng.betavariate(0.3, 1.5) for _ in range(300)]
    incidence = sample(rng, chances, 12)
    first, rest = list(range(6)), list(range(6, 12))
    known = estimate("blocks", incidence, first).curve[-1]
    new = estimate("blocks", incidence, [*first, *rest]).curve[-1] - known
    foretold = expected_new(incidence, first, len(rest))
    # Chao2 is a lower bound, so the lower side is the wider one.
    assert 0.4 * new <= foretold <= 2 * new
    assert foretold <= chao2_of(incidence, first) + 1e-9


def chao2_of(incidence: list[int], runs: list[int]) -> float:
    mask = sum(1 << run for run in runs)
    times = [(each & mask).bit_count() for each in incidence]
    return chao2(times.count(1), times.count(2), len(runs))


def test_misses_are_no_runs_of_the_workload() -> None:
    def run(name: str, source: str) -> Run:
        return Run(name, source, 1, 0, (), "powered off", 1.0, 1, 1, 0)

    runs = (
        run("ftrace-1", "ftrace"),
        run("blocks-1", "blocks"),
        run("miss-oops", "blocks"),
        run("blocks-2", "blocks"),
    )
    empty = Profile(KernelId("", "", "", ""), "", "w", "", (), (), (), (), (), (), (), runs)
    made = saturation(empty)
    assert made is not None and (made.source, made.runs) == ("blocks", 2)
    assert saturation(Profile(KernelId("", "", "", ""), "", "w", "", (), (), (), (), (), (), (), ())) is None
