"""The sequential test, against products in plain Python, and its error rate over thousands of streams."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoquant.array import Array
from autoquant.evaluation.statistics.sequential import (
    BETS,
    Decision,
    SequentialTest,
    alpha_of,
    times_needed,
    upper_of_mean,
)
from autoquant.evaluation.statistics.stream_order import StreamOrder, stream_order

streams = st.lists(st.floats(-2, 2), min_size=1, max_size=60)


def capital(values: list[float], mean: float, side: int) -> float:
    """Of a gambler on `side` +1, "the mean is larger", or -1, by its definition."""
    stake = 1.0 / (2.0 + side * mean)
    return float(sum(prod(1.0 + bet * stake * side * (x - mean) for x in values) for bet in BETS) / len(BETS))


@given(streams, st.floats(0, 0.5))
def test_it_decides_at_the_first_crossing_and_stays(values: list[float], max_drop: float) -> None:
    test, expected = SequentialTest(max_drop, bound=2.0, alpha=0.05), Decision.UNDECIDED
    for count in range(1, len(values) + 1):
        test.add(np.asarray(values[count - 1 : count]))
        if expected is Decision.UNDECIDED:
            exceeded, within = (capital(values[:count], max_drop, side) for side in (1, -1))
            if min(abs(exceeded - 20), abs(within - 20)) < 1e-6:
                return
            expected = Decision.EXCEEDED if exceeded >= 20 else Decision.WITHIN if within >= 20 else expected
        assert test.decision is expected
    assert test.estimate == pytest.approx(np.mean(values))


@given(streams, st.integers(0, 60))
def test_how_values_are_cut_into_parts_does_not_matter(values: list[float], cut: int) -> None:
    whole, parts = (SequentialTest(0.1, bound=2.0, alpha=0.05) for _ in range(2))
    whole.add(np.asarray(values))
    parts.add(np.asarray(values[:cut]))
    parts.add(np.asarray(values[cut:]))
    assert whole.decision is parts.decision
    assert whole.estimate == pytest.approx(parts.estimate)
    assert whole.interval() == parts.interval()


@given(streams, st.floats(-1.5, 1.9))
@example([-4e-308], 0.0)
def test_one_look_at_all_values_bounds_their_mean(values: list[float], max_drop: float) -> None:
    upper = upper_of_mean(np.asarray(values), bound=2.0, alpha=0.05)
    assert upper == 2.0 or capital(values, upper, -1) == pytest.approx(20.0, rel=1e-3)
    times = times_needed(np.asarray(values), max_drop, bound=2.0, alpha=0.05)
    if times is not None and times < 1e3:
        for more, proven in ((1.01, True), (0.99, False)):
            copies = (
                times * more * np.log([1.0 + bet / (2.0 - max_drop) * (max_drop - np.asarray(values)) for bet in BETS])
            )
            assert (np.exp(copies.sum(axis=1)).mean() >= 20.0) is np.bool_(proven)


def test_no_number_of_values_proves_a_mean_that_theirs_is_not() -> None:
    assert times_needed(np.asarray([0.5, 0.1]), 0.25, bound=2.0, alpha=0.05) is None
    assert times_needed(np.asarray([0.5, 0.1]), 2.0, bound=2.0, alpha=0.05) == 0.0


@given(streams)
def test_the_ends_of_the_interval_are_where_the_capitals_cross(values: list[float]) -> None:
    test = SequentialTest(1.9, bound=2.0, alpha=0.05)
    test.add(np.asarray(values))
    found = test.interval()
    assert -2.0 <= found.low <= test.estimate + 1e-9
    if test.decision is Decision.UNDECIDED:
        assert found.high >= test.estimate - 1e-9
        assert found.low == -2.0 or capital(values, found.low, 1) == pytest.approx(20.0, rel=1e-3)
        assert found.high == 2.0 or capital(values, found.high, -1) == pytest.approx(20.0, rel=1e-3)


def test_the_interval_agrees_with_the_decision() -> None:
    test = SequentialTest(0.1, bound=1.0, alpha=0.05)
    test.add(np.ones(30))
    test.add(np.zeros(60))  # by now the capital has been lost again
    assert test.decision is Decision.EXCEEDED
    assert test.interval().low >= 0.1


def test_before_anything_was_seen() -> None:
    test = SequentialTest(0.1, bound=1.0, alpha=0.05)
    test.add(np.zeros(0))
    assert (test.decision, test.interval().low, test.interval().high) == (Decision.UNDECIDED, -1.0, 1.0)
    with pytest.raises(ValueError, match="no mean of no values"):
        _ = test.estimate


def test_certain_decisions_need_no_value() -> None:
    assert SequentialTest(1.0, bound=1.0, alpha=0.05).decision is Decision.WITHIN
    assert SequentialTest(-1.5, bound=1.0, alpha=0.05).decision is Decision.EXCEEDED


@pytest.mark.parametrize("bad", [1.1, -1.1, np.nan, np.inf])
def test_values_beyond_the_bound_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="within"):
        SequentialTest(0.1, bound=1.0, alpha=0.05).add(np.asarray([0.0, bad]))


@pytest.mark.parametrize("options", [{"bound": 0.0}, {"bound": np.inf}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs a bound"):
        SequentialTest(0.1, **{"bound": 1.0, "alpha": 0.05, **options})


def test_the_error_rate_is_spent_and_no_more() -> None:
    shares = [alpha_of(number, 0.05) for number in range(10_000)]
    assert 0.0499 < sum(shares) <= 0.05
    assert (np.diff(shares) < 0).all()
    with pytest.raises(ValueError, match="error rate"):
        alpha_of(0, 1.0)


# ---- the bars: error rate over whole runs, and what hopeless trials cost

COUNT, MAX_DROP, ERROR_RATE = 400, 8, 0.05
"""Samples, the most that may be lost among them, and what is stated."""
FLIPS: dict[str, Callable[[Array, Array], Array | None]] = {
    "no margins": lambda margins, drops: None,
    "informative": lambda margins, drops: margins - 5.0 * np.abs(drops),
    "uninformative": lambda margins, drops: margins,
    "adversarial": lambda margins, drops: margins + 5.0 * np.abs(drops),
    "losses hidden": lambda margins, drops: margins + 5.0 * drops,
}
"""Margins: losses and gains where they are small, anywhere, where they are largest; losses there, gains where small."""
DROPS = (MAX_DROP, MAX_DROP + 1, MAX_DROP, MAX_DROP + 1, MAX_DROP - 2, MAX_DROP + 3, 0, 20, 60, 140)
"""Of the trials of a run in turn, in samples."""


def drops_of(random: np.random.Generator, count: int, drop: int, gains: int) -> Array:
    drops = np.zeros(count)
    chosen = random.permutation(count)
    drops[chosen[: drop + gains]] = 1.0
    drops[chosen[drop + gains : drop + 2 * gains]] = -1.0
    return drops


def decided(order: StreamOrder, drops: Array, max_drop: float, number: int) -> Decision:
    """Looked at after each draw of the whole stream."""
    test = SequentialTest(max_drop, bound=order.largest, alpha=alpha_of(number, ERROR_RATE))
    test.add(order.values(drops, 0, len(order.draws)))
    return test.decision


@pytest.mark.parametrize("flips", FLIPS)
def test_the_stated_error_rate_is_kept_over_whole_runs(flips: str) -> None:
    runs, trials, wrong, early = 100, len(DROPS), 0, 0
    for run in range(runs):
        random, errors = np.random.default_rng(run), 0
        for number, drop in enumerate(DROPS):
            drops = drops_of(random, COUNT, drop, gains=int(random.integers(0, 12)))
            margins = FLIPS[flips](random.random(COUNT), drops)
            found = decided(stream_order(COUNT, margins=margins, seed=(run, number)), drops, MAX_DROP / COUNT, number)
            right = Decision.EXCEEDED if drop > MAX_DROP else Decision.WITHIN
            errors += found not in (right, Decision.UNDECIDED)
            early += found is right
        wrong += errors > 0
    print(
        f"\n{flips}: {wrong / runs:.3f} of {runs} runs with a wrong decision, stated {ERROR_RATE}; "
        f"{early / runs / trials:.2f} of {runs * trials} trials decided rightly"
    )
    assert wrong / runs <= ERROR_RATE
    assert early / runs / trials > 0.2


def test_an_order_for_each_trial_keeps_a_sampler_from_learning_it() -> None:
    runs, wrong = 60, {"own": 0, "shared": 0}
    for run in range(runs):
        shared = stream_order(COUNT, margins=None, seed=(run, 0))
        drops = np.zeros(COUNT)
        drops[shared.order[-3 * MAX_DROP :]] = 1.0  # three times max_drop, by one who knows the order
        own = stream_order(COUNT, margins=None, seed=(run, 1))
        wrong["shared"] += decided(shared, drops, MAX_DROP / COUNT, 1) is Decision.WITHIN
        wrong["own"] += decided(own, drops, MAX_DROP / COUNT, 1) is Decision.WITHIN
    print(f"\nwrongly in, of {runs}: {wrong}")
    assert wrong["own"] <= ERROR_RATE * runs
    assert wrong["shared"] > 0.2 * runs


@pytest.mark.parametrize("count", [400, 2000])
@pytest.mark.parametrize("accuracy", [0.5, 0.26])
def test_hopeless_trials_cost_less_than_a_quarter(count: int, accuracy: float) -> None:
    random = np.random.default_rng(3)
    cost: list[float] = []
    for number in [number for number in range(30) for _ in range(4)]:
        margins = random.exponential(size=count)
        drops = (random.random(count) < 0.855).astype(float) - (random.random(count) < accuracy)
        order = stream_order(count, margins=margins, seed=(len(cost), number))
        test, looked, done = SequentialTest(0.01, bound=order.largest, alpha=alpha_of(number, ERROR_RATE)), 32, 0
        while True:
            usable = order.usable(looked)
            test.add(order.values(drops, done, usable))
            if test.decision is not Decision.UNDECIDED or looked == count:
                break
            looked, done = min(looked * 5 // 4, count), usable
        assert test.decision is Decision.EXCEEDED
        cost.append(looked / count)
    print(f"\n{count} samples, accuracy 0.855 to {accuracy}: median {np.median(cost):.3f}, mean {np.mean(cost):.3f}")
    assert np.median(cost) < 0.25
