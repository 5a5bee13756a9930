"""The exact bound, against enumeration of all outcomes of the trinomial model; the bootstrap's, against SciPy."""

from __future__ import annotations

from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta, binom, bootstrap

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.statistics.bounds import (
    BLOCKS,
    COSTLY,
    GAMMA,
    bca_upper,
    exact_upper,
    mean_upper,
    statistic_calls,
    statistic_uppers,
)

RANDOM = np.random.default_rng(0)
SAMPLES = {
    "skewed": RANDOM.exponential(size=200),
    "normal": RANDOM.normal(size=300),
    "sparse": np.where(RANDOM.random(500) < 0.05, RANDOM.exponential(size=500), 0.0),
}


def outcomes(samples: int) -> Array:
    """All (losses, gains), (outcomes, 2)."""
    return np.asarray([(a, b) for a in range(samples + 1) for b in range(samples + 1 - a)])


def chances(all_of_them: Array, samples: int, loss: Array, gain: Array) -> Any:
    """Probability of each outcome, (..., outcomes), where a sample is a loss or a gain with these probabilities."""
    a, b = all_of_them.T
    ways = np.asarray([comb(samples, x) * comb(samples - x, y) for x, y in all_of_them], float)
    of_loss, of_gain, of_neither = (
        np.asarray(share)[..., None] ** np.arange(samples + 1)
        for share in (loss, gain, np.maximum(1.0 - loss - gain, 0))
    )
    return ways * of_loss[..., a] * of_gain[..., b] * of_neither[..., samples - a - b]


def statistic(losses: Array, gains: Array, samples: int, drop: Array) -> Any:
    share = np.sqrt(((losses + gains) / samples) ** 2 + drop**2)
    return (losses - gains - samples * drop) / np.sqrt(samples * (share - drop**2))


@pytest.mark.parametrize(("samples", "confidence"), [*product([1, 2, 3, 5, 8, 12], [0.9, 0.95, 0.99]), (20, 0.99)])
def test_coverage_is_at_least_what_is_stated_for_every_truth(samples: int, confidence: float) -> None:
    every = outcomes(samples)
    bounds = np.asarray([exact_upper(int(a), int(b), samples, confidence=confidence) for a, b in every])
    # the worst truths have a drop just above one of the bounds
    drops = np.concatenate([bounds + 1e-7, np.linspace(-0.99, 0.99, 45)])[:, None]
    gain = np.maximum(-drops, 0.0) + np.linspace(0, 1, 41) * (1.0 - np.abs(drops)) / 2
    loss = gain + drops
    right = bounds >= drops[..., None] - 1e-12
    covered = np.where(np.abs(drops) <= 1.0, (chances(every, samples, loss, gain) * right).sum(axis=-1), 1.0)
    assert covered.min() >= confidence - 2e-5
    assert covered.min() <= confidence + 0.01  # and it is no wider than it must be


def test_bounds_are_the_inverted_test_by_brute_force() -> None:
    samples, alpha = 7, 0.05
    every = outcomes(samples)
    for losses, gains in every[::3]:
        pairs = losses + gains
        low = beta.ppf(GAMMA * alpha / 2, pairs, samples - pairs + 1) if pairs else 0.0
        high = beta.ppf(1 - GAMMA * alpha / 2, pairs + 1, samples - pairs) if pairs < samples else 1.0
        drops = np.linspace(-0.9995, 0.9995, 800)
        drops = drops[np.abs(drops) <= high, None]
        psi = np.linspace(np.maximum(low, np.abs(drops)), np.full_like(drops, high), 60, axis=-1)[:, 0]
        own = statistic(losses, gains, samples, drops)
        worse = statistic(every[:, 0], every[:, 1], samples, drops) <= own + 1e-9
        each = chances(every, samples, (psi + drops) / 2, (psi - drops) / 2)
        tails = (each * worse[:, None]).sum(axis=-1).max(axis=-1)
        possible = [-1.0, *drops[tails + GAMMA * alpha > alpha, 0]]
        found = exact_upper(int(losses), int(gains), samples, confidence=1 - alpha)
        assert found == pytest.approx(min(max(possible), high), abs=0.006), (losses, gains)


@pytest.mark.parametrize("samples", [50, 1000, 60_000])
def test_without_a_discordant_pair_it_is_the_rule_of_three(samples: int) -> None:
    # of n samples none is a loss with probability (1 - drop)^n
    exact = 1.0 - 0.05 ** (1.0 / samples)
    assert exact < exact_upper(0, 0, samples, confidence=0.95) < 1.01 * exact


@pytest.mark.parametrize(
    ("losses", "gains", "samples"),
    [(150, 150, 5000), (1500, 1500, 60_000), (300, 200, 60_000), (20_000, 10_000, 60_000)],
)
def test_of_many_pairs_it_is_about_the_normal_one(losses: int, gains: int, samples: int) -> None:
    drop = (losses - gains) / samples
    width = 1.645 * np.sqrt(((losses + gains) / samples - drop**2) / samples)
    assert drop + width < exact_upper(losses, gains, samples, confidence=0.95) < drop + 1.02 * width


@pytest.mark.parametrize(("psi", "drop"), [(0.03, 0.01), (0.012, 0.012)])
def test_coverage_on_many_samples(psi: float, drop: float) -> None:
    """The sum over all outcomes that are at all likely: the bound grows with losses, so of each number of gains the
    fewest losses whose bound covers the drop are enough; they are no fewer with more gains.
    """
    samples, covered, losses = 1000, 0.0, 0
    of_gains = binom(samples, (psi - drop) / 2)
    for gains in range(int(of_gains.isf(1e-12)) + 1):
        while exact_upper(losses, gains, samples, confidence=0.95) < drop:
            losses += 1
        of_losses = binom(samples - gains, (psi + drop) / 2 / (1.0 - (psi - drop) / 2))
        covered += of_gains.pmf(gains) * of_losses.sf(losses - 1)
    print(f"\npsi {psi}, drop {drop}: covered {covered:.5f}, stated 0.95")
    assert 0.95 <= covered < 0.97


def test_more_losses_mean_more_and_surer_means_wider() -> None:
    bounds = [exact_upper(losses, 3, 500, confidence=0.95) for losses in range(12)]
    assert (np.diff(bounds) > 0).all()
    widths = [exact_upper(4, 3, 500, confidence=confidence) for confidence in (0.8, 0.9, 0.95, 0.99, 0.9999)]
    assert (np.diff(widths) > 0).all()


def test_the_most_there_can_be() -> None:
    assert exact_upper(5, 0, 5, confidence=0.95) == 1.0
    assert -1.0 < exact_upper(0, 50, 50, confidence=0.95) < -0.8


@pytest.mark.parametrize("counts", [(-1, 0, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_cannot_be(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="pairs"):
        exact_upper(*counts, confidence=0.95)


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_bootstrap_is_what_scipy_finds(name: str, confidence: float) -> None:
    values = SAMPLES[name]
    options = {"confidence_level": confidence, "alternative": "less", "method": "BCa", "n_resamples": 20_000}
    expected = bootstrap((values,), np.mean, rng=np.random.default_rng(1), **options).confidence_interval.high
    found = mean_upper(values, confidence=confidence, seed=2)
    assert found - values.mean() == pytest.approx(expected - values.mean(), rel=0.07)  # both drew at random


def test_the_bootstrap_of_any_statistic() -> None:
    values = SAMPLES["skewed"]
    options = {"confidence_level": 0.95, "alternative": "less", "method": "BCa", "n_resamples": 20_000}
    expected = bootstrap((values,), np.std, rng=np.random.default_rng(1), **options).confidence_interval.high
    spread = lambda chosen: float(values[chosen].std())  # noqa: E731  # a name would say no more
    found, wider = statistic_uppers(spread, len(values), confidences=(0.95, 0.99), seed=3)
    assert found - values.std() == pytest.approx(expected - values.std(), rel=0.15)
    assert [found] == statistic_uppers(spread, len(values), confidences=[0.95], seed=3)  # whatever others there are
    assert [wider] == statistic_uppers(spread, len(values), confidences=[0.99], seed=3)


def test_all_bounds_of_a_statistic_come_from_one_set_of_resamples_and_tell_how_far_it_is() -> None:
    values, told, calls = SAMPLES["normal"], list[tuple[int, int]](), 0

    def counted(chosen: Array) -> float:
        nonlocal calls
        calls += 1
        return float(values[chosen].std())

    progress = lambda done, total: told.append((done, total))  # noqa: E731  # a name would say no more
    statistic_uppers(counted, len(values), confidences=(0.9, 0.95, 0.99), seed=0, on_progress=progress)
    assert calls == statistic_calls(len(values)) == COSTLY + BLOCKS + 1
    assert told == sorted(told)
    assert told[-1] == (calls, calls)


def test_coverage_of_a_skewed_mean() -> None:
    random, runs, count = np.random.default_rng(4), 300, 150
    draws = random.exponential(size=(runs, count))
    covered = np.mean([mean_upper(values, confidence=0.95, seed=run) >= 1.0 for run, values in enumerate(draws)])
    print(f"\nbootstrap: covered {covered:.3f} of {runs}, stated 0.95")
    assert 0.91 < covered < 0.985


def test_the_seed_fixes_the_bootstrap() -> None:
    values = SAMPLES["normal"]
    one, same, other = (mean_upper(values, confidence=0.95, seed=seed) for seed in (0, 0, 1))
    assert one == same != other


def test_values_that_are_all_equal_have_no_bound() -> None:
    """A bootstrap draws the same ones again, and would take them for certain."""
    assert mean_upper(np.full(20, 0.25), confidence=0.95, seed=0) == np.inf
    assert statistic_uppers(lambda chosen: 0.5, 20, confidences=(0.95, 0.99), seed=0) == [np.inf, np.inf]
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

    (upper,) = statistic_uppers(share, 12, confidences=[0.95], seed=0)
    assert 0.17 < upper < 0.6


@pytest.mark.parametrize("ones", [1, 3])
def test_blocks_that_cannot_be_missed_are_left_out_of_the_jackknife(ones: int) -> None:
    """All of one class are in one block, or in a few: without it the statistic refuses the rest."""
    labels = np.arange(400) < ones

    def share(chosen: Array) -> float:
        if not labels[chosen].any():
            raise DataError("metric", "needs both classes")
        return float(labels[chosen].mean())

    (upper,) = statistic_uppers(share, 400, confidences=[0.95], seed=0)
    assert ones / 400 < upper < 10 * ones / 400


def test_a_jackknife_of_less_than_two_blocks_is_an_error() -> None:
    def all_of_them(chosen: Array) -> float:
        if len(chosen) < 50:
            raise DataError("metric", "needs 50 samples")
        return float(chosen.mean())

    with pytest.raises(DataError, match="needs 50 samples"):
        statistic_uppers(all_of_them, 50, confidences=[0.95], seed=0)


def test_a_statistic_that_refuses_nearly_all_is_an_error() -> None:
    calls = []

    def never(chosen: Array) -> float:
        calls.append(chosen)
        raise DataError("metric auc", "needs samples of both classes")

    with pytest.raises(DataError, match="both classes"):
        statistic_uppers(never, 5, confidences=[0.95], seed=0)
    assert len(calls) == COSTLY + 1
