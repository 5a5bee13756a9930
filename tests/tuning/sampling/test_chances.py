"""What is expected of a plan by what plans like it have lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from guided_problems import Synthetic, random_problem, trial_of

from autoquant.tuning.sampling.chances import MOST, SHARED, Alike, likeness
from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.problem import start_of, with_int8
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.trial import State, Trial


def test_plans_are_alike_as_far_as_they_share_divergence() -> None:
    """(1 + 3) / 4, 1 / sqrt(1 x 4), and nothing where the same layer has other settings; squared."""
    found = likeness(np.array([[1.0, 3.0], [1.0, 0.0], [0.5, 3.5], [0.0, 0.0]]), np.array([[1.0, 3.0]]))
    assert found[:, 0] == pytest.approx([1.0, 0.25, 0.0, 0.0])


def test_of_nothing_follows_nothing() -> None:
    assert Alike(np.zeros((0, 2)), np.zeros(0)).of(np.array([1.0, 2.0])) == (0.0, 1.0)


def test_the_same_plan_shares_a_part_and_another_none() -> None:
    one = Alike(np.array([[1.0, 3.0]]), np.array([2.0]))
    assert one.of(np.array([1.0, 3.0])) == pytest.approx((SHARED * 2.0, 1.0 - SHARED**2))
    assert one.of(np.array([2.0, 2.0])) == (0.0, 1.0)
    twice = Alike(np.tile([1.0, 3.0], (2, 1)), np.array([2.0, 2.0]))  # by the formula for two equal ones
    assert twice.of(np.array([1.0, 3.0])) == pytest.approx(
        (4.0 * SHARED / (1.0 + SHARED), 1.0 - 2 * SHARED**2 / (1 + SHARED))
    )


def test_of_many_the_latest_count() -> None:
    rows, residuals = np.ones((3 * MOST, 1)), np.repeat([5.0, 5.0, 1.0], MOST)
    assert Alike(rows, residuals).of(np.ones(1))[0] == pytest.approx(1.0, abs=0.01)


def test_means_and_variances_are_those_of_kriging() -> None:
    """By the inverse of the covariance, layer after layer."""
    random = np.random.default_rng(0)
    rows, residuals = random.choice([0.0, 0.5, 2.0], (20, 6)), random.normal(size=20)
    found = Alike(rows[:-1], residuals[:-1]).of(rows[-1])

    def covariance(one: int, other: int) -> float:
        shared = sum(a for a, b in zip(rows[one], rows[other], strict=True) if a == b)
        return float(SHARED * shared**2 / (rows[one].sum() * rows[other].sum()))

    every = np.array([[covariance(one, other) for other in range(20)] for one in range(20)])
    inverse = np.linalg.inv(every[:-1, :-1] + (1.0 - SHARED) * np.eye(19))
    mean, left = every[-1, :-1] @ inverse @ residuals[:-1], 1.0 - every[-1, :-1] @ inverse @ every[-1, :-1]
    assert found == pytest.approx((mean, max(left, 1.0 - SHARED)))


def missed(number: int, problem: Synthetic, int8: str, drop: float) -> Trial:
    point = with_int8(start_of(problem), problem, set(int8))
    facts = {"samples": problem.total, "drop": drop, "within": drop <= problem.max_drop}
    return trial_of(Suggestion(point, "why"), number, State.DONE, **facts)


def test_a_plan_that_differs_little_from_one_that_missed_is_hardly_another_throw() -> None:
    even = {layer: {"r0": 0.01} for layer in "abcdefgh"}
    problem = Synthetic(dict.fromkeys(even, 0.125), even, even, max_drop=0.01, total=4000)
    trials = [missed(0, problem, "abcdefgh", 0.03), missed(1, problem, "abcd", 0.03), missed(2, problem, "efgh", 0.004)]
    history = History.of(trials, problem)
    plans = Plans(history, start_of(problem), history.predictions(start_of(problem)))

    assert [history.trials[place].number for place in plans.near_misses] == [0, 1]  # that gains most first

    def chance(int8: str) -> float:
        return plans.outlook(history.coding.encode(with_int8(start_of(problem), problem, set(int8))))[1]

    assert chance("abce") < plans.curve.chance(0.04) < chance("defg")
    assert chance("ab") < chance("ef")


def test_chance_alone_scatters_drops_of_few_samples() -> None:
    """Of 4 samples within tolerance more than of 4,000; and not at all where few samples tell of the drop."""
    problem = replace(random_problem(3), max_drop=0.001)
    scatters = [History.of((), replace(problem, total=total)).least_scatter for total in (4_000, 400_000)]
    assert scatters == pytest.approx([np.sqrt(1.7 / 4), np.sqrt(1.7 / 400)])
    told = trial_of(Suggestion(start_of(problem), "why"), 0, State.STOPPED, probe_drops=(0.1,), divergences=(0.1,))
    assert History.of([told], problem).least_scatter == 0.0
