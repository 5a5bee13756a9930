from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.statistics.bca import COSTLY, bca_upper, mean_upper, statistic_upper

RANDOM = np.random.default_rng(0)
SAMPLES = {
    "skewed": RANDOM.exponential(size=200),
    "normal": RANDOM.normal(size=300),
    "sparse": np.where(RANDOM.random(500) < 0.05, RANDOM.exponential(size=500), 0.0),
}


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_it_is_what_scipy_finds(name: str, confidence: float) -> None:
    values = SAMPLES[name]
    options = {"confidence_level": confidence, "alternative": "less", "method": "BCa", "n_resamples": 20_000}
    expected = bootstrap((values,), np.mean, rng=np.random.default_rng(1), **options).confidence_interval.high
    found = mean_upper(values, confidence=confidence, seed=2)
    assert found - values.mean() == pytest.approx(expected - values.mean(), rel=0.07)  # both drew at random


def test_of_any_statistic() -> None:
    values = SAMPLES["skewed"]
    options = {"confidence_level": 0.95, "alternative": "less", "method": "BCa", "n_resamples": 20_000}
    expected = bootstrap((values,), np.std, rng=np.random.default_rng(1), **options).confidence_interval.high
    found = statistic_upper(lambda chosen: float(values[chosen].std()), len(values), confidence=0.95, seed=3)
    assert found - values.std() == pytest.approx(expected - values.std(), rel=0.15)


def test_coverage_of_a_skewed_mean() -> None:
    random, runs, count = np.random.default_rng(4), 300, 150
    draws = random.exponential(size=(runs, count))
    covered = np.mean([mean_upper(values, confidence=0.95, seed=run) >= 1.0 for run, values in enumerate(draws)])
    print(f"\nbootstrap: covered {covered:.3f} of {runs}, stated 0.95")
    assert 0.91 < covered < 0.985


def test_the_seed_fixes_it() -> None:
    values = SAMPLES["normal"]
    one, same, other = (mean_upper(values, confidence=0.95, seed=seed) for seed in (0, 0, 1))
    assert one == same != other


def test_values_that_are_all_equal_have_no_bound() -> None:
    """A bootstrap draws the same ones again, and would take them for certain."""
    assert mean_upper(np.full(20, 0.25), confidence=0.95, seed=0) == np.inf
    assert statistic_upper(lambda chosen: 0.5, 20, confidence=0.95, seed=0) == np.inf
    assert mean_upper(np.asarray([0.5]), confidence=0.95, seed=0) == np.inf


def test_an_extreme_estimate_has_the_largest_resample_as_bound() -> None:
    assert bca_upper(2.0, np.asarray([0.0, 1.0]), np.asarray([0.0, 1.0]), confidence=0.95) == 2.0


def test_resamples_that_are_refused_are_drawn_again() -> None:
    labels = np.zeros(12)
    labels[:2] = 1.0  # a resample has none of the two with probability 0.11

    def share(chosen: Array) -> float:
        if not labels[chosen].any():
            raise DataError("metric", "needs both classes")
        return float(labels[chosen].mean())

    assert 0.17 < statistic_upper(share, 12, confidence=0.95, seed=0) < 0.6


def test_a_statistic_that_refuses_nearly_all_is_an_error() -> None:
    calls = []

    def never(chosen: Array) -> float:
        calls.append(chosen)
        raise DataError("metric auc", "needs samples of both classes")

    with pytest.raises(DataError, match="both classes"):
        statistic_upper(never, 5, confidence=0.95, seed=0)
    assert len(calls) == COSTLY + 1
