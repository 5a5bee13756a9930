"""The test for values without bounds: its interval, when it checks, and how often it errs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import skew, t

from autoquant.array import Array
from autoquant.evaluation.statistics.asymptotic import FEWEST, LARGEST, AsymptoticTest, checks_of
from autoquant.evaluation.statistics.sequential import Decision
from autoquant.evaluation.statistics.stream_order import check_points


def test_the_interval_is_students_for_samples_without_replacement() -> None:
    values = np.random.default_rng(0).gamma(3.0, size=300)
    test = AsymptoticTest(9.0, population=400, checks=4, alpha=0.04)
    test.add(values)
    quantile = t.ppf(0.99, 299)
    off = abs(skew(values)) * (299 / 300) ** 1.5  # scipy divides by the number of values, not by one less
    quantile += off * (2 * quantile**2 + 1) / (6 * math.sqrt(300))
    half = quantile * values.std(ddof=1) / math.sqrt(300) * math.sqrt(1 - 300 / 400)
    found = test.interval()
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-12)
    assert test.estimate == pytest.approx(values.mean(), rel=1e-12)
    assert test.decision is Decision.WITHIN


def test_no_look_is_taken_of_few_values_of_all_or_more_often_than_was_said() -> None:
    values = np.random.default_rng(0).normal(size=400)
    few = AsymptoticTest(9.0, population=400, checks=9, alpha=0.05)
    few.add(values[: FEWEST - 1])
    assert few.decision is Decision.UNDECIDED
    assert few.interval().high == math.inf
    whole = AsymptoticTest(9.0, population=400, checks=9, alpha=0.05)
    whole.add(values)
    assert whole.decision is Decision.UNDECIDED  # what is known needs no test
    often = AsymptoticTest(0.0, population=400, checks=1, alpha=1e-9)
    often.add(values[:200])
    before = often.interval()
    often.add(values[200:300])
    assert often.interval() == before


@pytest.mark.parametrize("values", [np.zeros(200), np.append(np.zeros(199), 5.0)])
def test_nothing_is_decided_where_one_value_decides(values: Array) -> None:
    test = AsymptoticTest(9.0, population=1000, checks=1, alpha=0.05)
    test.add(values)
    assert test.decision is Decision.UNDECIDED
    assert np.square(values - values.mean()).max() >= LARGEST * np.square(values - values.mean()).sum()


def test_a_decision_stays() -> None:
    test = AsymptoticTest(0.0, population=10_000, checks=5, alpha=0.01)
    test.add(np.random.default_rng(0).normal(1.0, size=200))
    assert test.decision is Decision.EXCEEDED
    test.add(np.full(2000, -9.0))
    assert test.decision is Decision.EXCEEDED
    assert test.interval().low > 0.0


@pytest.mark.parametrize("bad", [{"alpha": 0.0}, {"alpha": 1.0}, {"checks": 0}, {"population": 0}])
def test_what_it_cannot_take(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="needs alpha"):
        AsymptoticTest(1.0, **{"population": 10, "checks": 1, "alpha": 0.1, **bad})
    with pytest.raises(ValueError, match="finite"):
        AsymptoticTest(1.0, population=10, checks=1, alpha=0.1).add(np.array([np.nan]))
    with pytest.raises(ValueError, match="no mean"):
        _ = AsymptoticTest(1.0, population=10, checks=1, alpha=0.1).estimate


def test_checks_are_those_at_which_it_may_decide() -> None:
    stops = list(check_points(489, first=32, growth=1.25))
    assert checks_of(stops, 489) == sum(100 <= stop < 489 for stop in stops) == 7
    assert checks_of([10], 10) == 1


POPULATIONS: dict[str, Callable[[Any, int], Array]] = {
    "normal": lambda random, count: random.normal(size=count),
    "t, 3 degrees": lambda random, count: random.standard_t(3, size=count),
    "lognormal": lambda random, count: random.lognormal(size=count),
    "-lognormal": lambda random, count: -random.lognormal(size=count),
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_each_decision_is_wrong_at_most_as_often_as_stated(name: str) -> None:
    """Where the mean of all is the largest within tolerance; 400 runs, 3 standard errors above 0.05."""
    random, count, runs = np.random.default_rng(1), 1000, 400
    stops = list(check_points(count, first=32, growth=1.25))
    found = {Decision.EXCEEDED: 0, Decision.WITHIN: 0, Decision.UNDECIDED: 0}
    for _ in range(runs):
        values = POPULATIONS[name](random, count)
        test = AsymptoticTest(float(values.mean()), population=count, checks=checks_of(stops, count), alpha=0.05)
        for start, stop in zip([0, *stops], stops, strict=False):
            test.add(values[start:stop])
        found[test.decision] += 1
    assert max(found[Decision.EXCEEDED], found[Decision.WITHIN]) <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)
