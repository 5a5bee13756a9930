from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from autoquant.array import Array
from autoquant.evaluation.metrics.builtin import area_under_curve
from autoquant.evaluation.statistics.paired import (
    ALL_EQUAL,
    BETTING,
    BOOTSTRAP,
    EXACT,
    TOO_FEW,
    PairedDrop,
    bootstrap_drop,
    group_bounds,
    is_binary,
    least_bounded,
    least_samples,
    needed_bounded,
    needed_samples,
    paired_drop,
    sample_drops,
    significantly_better,
    upper_bound,
)


def discordant(losses: int, gains: int, samples: int) -> Array:
    return np.repeat([1.0, -1.0, 0.0], [losses, gains, samples - losses - gains])


def test_sample_drops() -> None:
    before, after = np.asarray([1.0, 0.0, 1.0]), np.asarray([0.0, 1.0, 1.0])
    np.testing.assert_array_equal(sample_drops(before, after, higher_is_better=True), [1.0, -1.0, 0.0])
    np.testing.assert_array_equal(sample_drops(before, after, higher_is_better=False), [-1.0, 1.0, 0.0])
    np.testing.assert_array_equal(sample_drops(before > 0, after > 0, higher_is_better=True), [1.0, -1.0, 0.0])
    with pytest.raises(ValueError, match="one value a sample"):
        sample_drops(before, after[:2], higher_is_better=True)


def test_the_drop_and_the_discordant_pairs() -> None:
    assert paired_drop(discordant(5, 2, 100), binary=True) == PairedDrop(100, 0.03, 5, 2)
    assert paired_drop(np.asarray([0.5, 0.25]), binary=False) == PairedDrop(2, 0.375)
    assert is_binary(np.asarray([0.0, 1.0]), np.asarray([True, False]))
    assert not is_binary(np.asarray([0.0, 1.0]), np.asarray([0.5]))


def test_the_method_is_said() -> None:
    assert upper_bound(discordant(5, 2, 100), confidence=0.95, binary=True).method == EXACT
    assert upper_bound(np.linspace(0, 1, 100), confidence=0.95, binary=False).method == BOOTSTRAP
    assert upper_bound(np.linspace(0, 1, 50), confidence=0.95, binary=False, reach=1.0).method == BETTING
    with pytest.raises(ValueError, match="no samples"):
        upper_bound(np.zeros(0), confidence=0.95, binary=True)


@pytest.mark.parametrize(
    ("values", "method"),
    [
        (np.zeros(1), TOO_FEW),
        (np.zeros(10), TOO_FEW),
        (np.linspace(0, 1, 99), TOO_FEW),
        (np.zeros(100), ALL_EQUAL),
        (np.full(1000, 0.25), ALL_EQUAL),
    ],
)
def test_a_bootstrap_of_little_bounds_nothing(values: Array, method: str) -> None:
    found = upper_bound(values, confidence=0.95, binary=False)
    assert (found.value, found.method) == (np.inf, method)


def test_bounded_values_have_a_bound_from_any_number_of_samples() -> None:
    """Of n drops of 0 the gambler's capital is (1 + bet m / (1 - m))^n, averaged over bets, at a mean m."""
    uppers = [upper_bound(np.zeros(n), confidence=0.95, binary=False, reach=1.0).value for n in (1, 10, 100, 1000)]
    assert uppers[0] > 0.9
    assert sorted(uppers, reverse=True) == uppers
    assert 3.0 / 1000 < uppers[-1] < 6.0 / 1000  # the rule of three, and what it costs not to know the best bet


@pytest.mark.parametrize(("drop_of_one", "chance", "samples"), [(0.9, 0.02, 100), (0.004 / 0.02, 0.02, 400)])
def test_the_bound_of_sparse_drops_holds(drop_of_one: float, chance: float, samples: int) -> None:
    """A bootstrap's does not in a fifth of all runs."""
    draws = drop_of_one * (np.random.default_rng(2).random((500, samples)) < chance)
    uppers = [upper_bound(one, confidence=0.95, binary=False, reach=1.0).value for one in draws]
    assert np.mean(np.asarray(uppers) < drop_of_one * chance) <= 0.05


@pytest.mark.parametrize("max_drop", [0.3, 0.05, 0.01])
def test_the_least_bounded_samples_certify_and_one_less_does_not(max_drop: float) -> None:
    least = least_bounded(max_drop, 0.95, reach=1.0)
    assert least is not None
    assert upper_bound(np.zeros(least), confidence=0.95, binary=False, reach=1.0).value <= max_drop
    assert upper_bound(np.zeros(least - 1), confidence=0.95, binary=False, reach=1.0).value > max_drop


def test_the_needed_samples_of_what_is_bounded_would_do() -> None:
    values = np.repeat([0.5, -0.25, 0.0], [4, 2, 294])
    needed = needed_bounded(values, 0.012, confidence=0.95, reach=1.0)
    assert needed is not None
    assert needed > 300
    many = np.tile(values, -(-needed // 300))
    assert upper_bound(many, confidence=0.95, binary=False, reach=1.0).value <= 0.012
    assert needed_bounded(values, 0.004, confidence=0.95, reach=1.0) is None
    assert needed_bounded(np.zeros(10), 0.0, confidence=0.95, reach=1.0) is None


def test_both_methods_agree_where_both_hold() -> None:
    values = discordant(300, 200, 5000)
    exact, drawn = (upper_bound(values, confidence=0.95, binary=binary).value for binary in (True, False))
    assert exact - 0.02 == pytest.approx(drawn - 0.02, rel=0.05)


@given(st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.9, 0.95, 0.999]))
def test_the_bound_is_above_the_drop(losses: int, gains: int, confidence: float) -> None:
    values = discordant(losses, gains, 24)
    assert upper_bound(values, confidence=confidence, binary=True).value >= values.mean()


@pytest.mark.parametrize("max_drop", [0.3, 0.05, 0.01])
def test_the_least_samples_certify_and_one_less_does_not(max_drop: float) -> None:
    least = least_samples(max_drop, 0.95)
    assert least is not None
    assert least == pytest.approx(np.log(0.05) / np.log1p(-max_drop), abs=1 + 0.02 * least)
    assert upper_bound(np.zeros(least), confidence=0.95, binary=True).value <= max_drop
    assert upper_bound(np.zeros(least - 1), confidence=0.95, binary=True).value > max_drop


def test_no_number_of_samples_proves_that_nothing_is_lost() -> None:
    assert least_samples(0.0, 0.95) is None
    assert least_samples(1.0, 0.95) == 1


@pytest.mark.parametrize(("losses", "gains"), [(8, 3), (0, 0), (1, 0), (12, 3), (0, 3), (40, 38)])
def test_the_needed_samples_would_do_at_the_same_rates(losses: int, gains: int) -> None:
    observed = paired_drop(discordant(losses, gains, 1000), binary=True)
    needed = needed_samples(observed, 1.0, 0.01, confidence=0.95)
    assert needed is not None
    scaled = discordant(int(np.ceil(losses * needed / 1000)), losses and gains * needed // 1000, needed)
    assert upper_bound(scaled, confidence=0.95, binary=True).value < 0.0101


def test_needed_samples_with_nothing_remaining_with_little_and_of_other_metrics() -> None:
    assert needed_samples(PairedDrop(1000, 0.01, 12, 2), 0.02, 0.01, confidence=0.95) is None
    # (1.645 / 0.0001)^2 * 0.03: by the normal approximation
    assert needed_samples(PairedDrop(10_000, 0.0099, 199, 100), 1, 0.01, confidence=0.95) == pytest.approx(
        8.06e6, rel=0.01
    )
    # the bound is 4 away from the drop, where only 2 are within: four times as many
    assert needed_samples(PairedDrop(500, 1.0), 5.0, 3.0, confidence=0.95) == 2000
    assert needed_samples(PairedDrop(500, 3.0), 5.0, 3.0, confidence=0.95) is None
    assert needed_samples(PairedDrop(10, 1.0), np.inf, 3.0, confidence=0.95) == 100  # there is no bound of so few
    assert needed_samples(PairedDrop(500, 1.0), np.inf, 3.0, confidence=0.95) is None


@given(st.integers(0, 30), st.integers(0, 30))
def test_better_by_more_than_chance_is_mcnemars_test(losses: int, gains: int) -> None:
    found = significantly_better(discordant(losses, gains, 100), binary=True)
    ties = losses + gains == 0
    assert found is bool(not ties and binomtest(losses, losses + gains or 1, alternative="less").pvalue < 0.01)


def test_better_of_other_metrics() -> None:
    random = np.random.default_rng(0)
    assert significantly_better(random.normal(-0.5, 1.0, 200), binary=False)
    assert not significantly_better(random.normal(0.0, 1.0, 200), binary=False)
    assert not significantly_better(np.zeros(200), binary=False)
    assert significantly_better(np.full(200, -0.5), binary=False, reach=1.0)
    assert not significantly_better(np.full(3, -0.5), binary=False, reach=1.0)


def test_the_drop_of_an_area_is_bounded_by_paired_resampling() -> None:
    random, auc, count = np.random.default_rng(1), area_under_curve(), 300
    truth = random.integers(0, 2, count).astype(float)
    score = truth + random.normal(size=count)
    before = np.stack([score, truth], axis=1)
    close = np.stack([score + 0.1 * random.normal(size=count), truth], axis=1)
    unlike = np.stack([truth + random.normal(size=count), truth], axis=1)
    options: dict[str, Any] = {"higher_is_better": True, "confidences": [0.95]}
    drop = auc.combine(before) - auc.combine(close)
    (bound,) = bootstrap_drop(before, close, auc.combine, **options)
    assert bound.method == BOOTSTRAP
    assert drop < bound.value < drop + 0.01  # as both see the same samples, they differ by little
    (other,) = bootstrap_drop(before, unlike, auc.combine, **options)
    assert other.value > auc.combine(before) - auc.combine(unlike) + 0.02
    assert bootstrap_drop(before, before, auc.combine, **options)[0].method == ALL_EQUAL
    assert bootstrap_drop(before[:99], close[:99], auc.combine, **options)[0].method == TOO_FEW


def test_group_bounds_correct_for_the_number_of_groups_and_have_the_worst_first() -> None:
    values = np.concatenate([discordant(1, 1, 200), discordant(30, 0, 100), discordant(5, 5, 50)])
    groups = np.repeat(["cat", "dog", "owl"], [200, 100, 50])
    shuffled = np.random.default_rng(0).permutation(350)
    found = group_bounds(values[shuffled], groups[shuffled], max_drop=0.1, confidence=0.94, binary=True)
    assert [one.label for one in found] == ["dog", "owl", "cat"]
    dog = found[0]
    assert (dog.samples, dog.drop) == (100, 0.3)
    assert (dog.losses, dog.gains) == (30, 0)
    assert dog.upper == upper_bound(discordant(30, 0, 100), confidence=0.98, binary=True).value
    assert dog.lower == -upper_bound(discordant(0, 30, 100), confidence=0.98, binary=True).value
    assert 0.1 < dog.lower < 0.3 < dog.upper


def test_a_group_that_is_proven_bad_is_worse_than_one_that_looks_bad() -> None:
    values = np.concatenate([discordant(2, 0, 2), discordant(200, 0, 1000)])
    found = group_bounds(values, np.repeat([0, 1], [2, 1000]), max_drop=0.1, confidence=0.95, binary=True)
    assert [one.label for one in found] == ["1", "0"]


def test_group_bounds_of_other_metrics_and_of_labels_that_do_not_fit() -> None:
    values = np.linspace(0, 1, 240)
    for reach in (None, 1.0):
        found = group_bounds(values, np.arange(240) % 2, max_drop=1.0, confidence=0.95, binary=False, reach=reach)
        assert all(-1 < one.lower < one.drop < one.upper < 1 and one.losses is None for one in found)
    few = group_bounds(values, np.arange(240) < 1, max_drop=1.0, confidence=0.95, binary=False)
    assert [(one.label, one.lower, one.upper) for one in few if one.samples == 1] == [("True", -np.inf, np.inf)]
    with pytest.raises(ValueError, match="a label for each"):
        group_bounds(np.zeros(3), np.zeros(2), max_drop=0.1, confidence=0.95, binary=True)


def test_all_groups_are_covered_at_once() -> None:
    random, runs, groups = np.random.default_rng(5), 200, 5
    labels, wrong = np.arange(250) % groups, 0
    for _ in range(runs):
        found = group_bounds(
            random.choice([1.0, -1.0, 0.0], 250, p=[0.06, 0.02, 0.92]),
            labels,
            max_drop=0.04,
            confidence=0.9,
            binary=True,
        )
        wrong += any(one.upper < 0.04 for one in found)
    print(f"\nguard: {wrong / runs:.3f} of {runs} runs with a group beyond its bound, stated 0.1")
    assert wrong / runs < 0.1 + 2 * np.sqrt(0.09 / runs)
