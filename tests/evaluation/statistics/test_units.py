"""Bounds by unit: against those of independent samples, a plain computation in float64, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.array import Array
from autoquant.evaluation.statistics.bounds import FEWEST
from autoquant.evaluation.statistics.paired import (
    BETTING,
    BOOTSTRAP,
    TOO_FEW,
    bootstrap_drop,
    group_bounds,
    upper_bound,
)
from autoquant.evaluation.statistics.sequential import BETS, upper_of_mean
from autoquant.evaluation.statistics.units import Units, unit_bootstrap, unit_upper, units_needed

ALPHA = 0.05


def plain_capital(drops: Array, labels: Array, drop: float, largest: int) -> float:
    """What stakes on units are worth, one unit and one bet after the other."""
    total = 0.0
    for bet in BETS:
        capital = 1.0
        for label in np.unique(labels):
            own = drops[labels == label]
            capital *= 1.0 + bet * (drop * len(own) - own.sum()) / (largest * (1.0 - drop))
        total += capital
    return total / len(BETS)


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([-1.0, 0.0, 0.25, 1.0])), min_size=2, max_size=40))
def test_the_bound_is_where_the_capital_reaches_one_in_alpha(rows: list[tuple[int, float]]) -> None:
    labels, drops = (np.asarray(column) for column in zip(*rows, strict=True))
    units = Units(labels, largest=12 if len(rows) <= 12 else 40)
    found = unit_upper(drops, units, bound=1.0, alpha=ALPHA)
    if found < 1.0:
        assert plain_capital(drops, labels, found + 1e-6, units.largest) >= 1.0 / ALPHA - 1e-3
    below = max(found - 1e-3, -1.0 + 1e-9)
    assert plain_capital(drops, labels, below, units.largest) < 1.0 / ALPHA


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=50))
def test_units_of_one_sample_are_independent_samples(values: list[float]) -> None:
    drops = np.asarray(values)
    own = Units(np.arange(len(drops)), 1)
    assert unit_upper(drops, own, bound=1.0, alpha=ALPHA) == pytest.approx(
        upper_of_mean(drops, bound=1.0, alpha=ALPHA), abs=1e-9
    )


def test_windows_of_a_recording_are_one_observation() -> None:
    """196 copies of each of 20 samples say what 20 samples say."""
    drops = np.repeat(np.random.default_rng(0).integers(-1, 2, 20).astype(np.float64), 196)
    units = Units(np.repeat(np.arange(20), 196), 196)
    alone = upper_of_mean(drops[::196], bound=1.0, alpha=ALPHA)
    assert upper_bound(drops, confidence=0.95, binary=True, units=units).value == pytest.approx(alone, abs=1e-9)
    assert upper_bound(drops, confidence=0.95, binary=True, units=units).method == f"{BETTING}, by unit"
    assert upper_bound(drops, confidence=0.95, binary=True).value < alone


def test_the_bound_holds_where_few_units_lose_much() -> None:
    random, held = np.random.default_rng(1), 0
    for _ in range(200):
        sizes = random.integers(5, 31, 60)
        lost = np.repeat(random.random(60) < 0.04, sizes)
        units = Units(np.repeat(np.arange(60), sizes), 30)
        held += unit_upper(lost.astype(np.float64), units, bound=1.0, alpha=0.2) >= 0.04
    assert held >= 0.8 * 200


def test_the_bootstrap_draws_whole_units() -> None:
    random = np.random.default_rng(2)
    sizes = random.integers(1, 20, FEWEST)
    drops = np.repeat(random.normal(0.0, 0.1, FEWEST), sizes)
    units = Units(np.repeat(np.arange(FEWEST), sizes), 20)
    upper = unit_bootstrap(drops, units, confidence=0.95, seed=0)
    sums, counts = (np.bincount(units.labels, weights) for weights in (drops, None))
    residuals = sums - drops.mean() * counts
    deviation = math.sqrt(np.square(residuals).sum()) / counts.sum()  # of the ratio, to first order
    assert upper == pytest.approx(drops.mean() + 1.645 * deviation, abs=0.3 * deviation)
    whole = upper_bound(drops, confidence=0.95, binary=False, units=units)
    assert (whole.value, whole.method) == (upper, f"{BOOTSTRAP}, by unit")
    few = units.part(units.labels < FEWEST - 1)
    assert upper_bound(drops[: len(few.labels)], confidence=0.95, binary=False, units=few).method.startswith(TOO_FEW)
    assert math.isinf(unit_bootstrap(np.ones(4), Units(np.arange(4), 1), confidence=0.95, seed=0))


def test_a_score_that_is_no_mean_is_resampled_by_unit() -> None:
    """Copies of a sample widen nothing: the bound is that of the samples."""
    random = np.random.default_rng(3)
    before, after = random.normal(1.0, 0.1, 150), random.normal(0.9, 0.1, 150)
    (alone,) = bootstrap_drop(before, after, np.median, higher_is_better=True, confidences=[0.95])
    units = Units(np.repeat(np.arange(150), 3), 3)
    (copied,) = bootstrap_drop(
        np.repeat(before, 3), np.repeat(after, 3), np.median, higher_is_better=True, confidences=[0.95], units=units
    )
    assert copied.value == pytest.approx(alone.value, abs=0.01)
    assert copied.method == f"{BOOTSTRAP}, by unit"


def test_groups_have_their_own_part_of_units() -> None:
    drops, groups = np.zeros(400), np.arange(400) % 2
    units = Units(np.repeat(np.arange(100), 4), 4)
    one, other = group_bounds(drops, groups, max_drop=0.1, confidence=0.95, binary=True, units=units)
    plain = unit_upper(np.zeros(200), Units(np.repeat(np.arange(100), 2), 4), bound=1.0, alpha=0.025)
    assert one.upper == other.upper == pytest.approx(plain)


def test_so_many_units_are_enough() -> None:
    units = Units(np.repeat(np.arange(50), 4), 4)
    needed = units_needed(np.zeros(200), units, 0.02, bound=1.0, alpha=ALPHA)
    assert needed is not None
    for count, enough in ((needed, True), (needed - 2, False)):
        own = Units(np.repeat(np.arange(count), 4), 4)
        assert (unit_upper(np.zeros(4 * count), own, bound=1.0, alpha=ALPHA) <= 0.02) == enough
    assert units_needed(np.full(200, 0.5), units, 0.02, bound=1.0, alpha=ALPHA) is None
    with pytest.raises(ValueError, match="more than 3"):
        Units(units.labels, 3)
