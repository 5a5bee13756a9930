from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autoquant.array import Array
from autoquant.evaluation.statistics.stream_order import STRATA, StreamOrder, margins_of, stream_order

counts = st.integers(1, 60)
seeds = st.integers(0, 1000)


@given(counts, seeds, st.booleans())
def test_every_sample_is_in_the_order_once_and_what_is_usable_was_evaluated(count: int, seed: int, known: bool) -> None:
    margins = np.random.default_rng(seed).random(count) if known else None
    made = stream_order(count, margins=margins, seed=seed)
    assert sorted(made.order) == list(range(count))
    for evaluated in range(count + 1):
        usable = made.usable(evaluated)
        have = set(made.order[:evaluated].tolist())
        assert set(made.draws[:usable].tolist()) <= have
        assert usable == len(made.draws) or made.draws[usable] not in have  # as many as there can be
    assert made.usable(count) == len(made.draws)


@given(counts, seeds)
def test_without_margins_all_weigh_the_same(count: int, seed: int) -> None:
    made = stream_order(count, margins=None, seed=seed)
    np.testing.assert_allclose(made.weights, 1.0)
    assert made.largest == pytest.approx(1.0)


@given(hnp.arrays(np.float64, counts, elements=st.floats(0, 1)), seeds)
def test_weights_are_those_of_a_distribution_and_two_at_most(margins: Array, seed: int) -> None:
    made = stream_order(len(margins), margins=margins, seed=seed)
    of_sample = dict(zip(made.draws.tolist(), made.weights.tolist(), strict=True))
    assert made.weights.max() <= made.largest <= 2.0
    if len(of_sample) == len(margins):  # all were drawn: the probabilities 1 / (N w) add up to 1
        assert sum(1.0 / (len(margins) * weight) for weight in of_sample.values()) == pytest.approx(1.0)


def test_the_mean_of_the_draws_is_the_drop() -> None:
    random = np.random.default_rng(0)
    margins, loss = random.random(500), random.choice([-1.0, 0.0, 1.0], 500, p=[0.1, 0.6, 0.3])
    means = [order.values(loss, 0, 2000).mean() for order in orders(margins, 300)]
    assert np.mean(means) == pytest.approx(loss.mean(), abs=4 * np.std(means) / np.sqrt(len(means)))


def orders(margins: Array, number: int) -> list[StreamOrder]:
    return [stream_order(len(margins), margins=margins, seed=(5, each)) for each in range(number)]


def test_small_margins_are_drawn_more_often() -> None:
    margins = np.random.default_rng(1).permutation(1000) / 1000
    drawn = np.sum([np.bincount(order.draws, minlength=1000) for order in orders(margins, 20)], axis=0)
    by_stratum = drawn[np.argsort(margins)].reshape(STRATA, -1).sum(axis=1)
    assert (np.diff(by_stratum) < 0).all()
    assert by_stratum[0] > 2 * by_stratum[-1]


def test_all_is_fixed_by_the_seed() -> None:
    one, same, other = (stream_order(100, margins=None, seed=(7, number)) for number in (0, 0, 1))
    np.testing.assert_array_equal(one.order, same.order)
    np.testing.assert_array_equal(one.draws, same.draws)
    assert (one.order != other.order).any()


def test_values_reads_only_what_was_drawn() -> None:
    made = stream_order(50, margins=None, seed=0)
    loss = np.full(50, np.nan)
    loss[made.order[:10]] = 1.0
    assert np.isfinite(made.values(loss, 0, made.usable(10))).all()


def test_margins() -> None:
    np.testing.assert_allclose(margins_of(np.asarray([[3.0, 1.0, 2.5], [1.0, 1.0, 0.0]])), [0.5, 0.0])
    np.testing.assert_allclose(margins_of(np.asarray([[3.0, 1.0, 2.5], [1.0, 1.0, 0.0]]), k=2), [1.5, 1.0])
    np.testing.assert_allclose(margins_of(np.asarray([[3.0, 1.0, 2.5], [1.0, 1.0, 0.0]]), k=3), [0.0, 0.0])
    np.testing.assert_allclose(margins_of(np.asarray([[0.9], [0.2]])), [0.4, 0.3])
    np.testing.assert_allclose(margins_of(np.asarray([[0.9], [-0.2]]), threshold=0.0), [0.9, 0.2])


@pytest.mark.parametrize("shape", [(3,), (3, 0), (3, 2, 2)])
def test_margins_are_of_scores(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="scores must be"):
        margins_of(np.zeros(shape))


def test_invalid_margins_are_refused() -> None:
    with pytest.raises(ValueError, match="needs samples"):
        stream_order(0, margins=None, seed=0)
    with pytest.raises(ValueError, match="a margin for each"):
        stream_order(3, margins=np.zeros(2), seed=0)
