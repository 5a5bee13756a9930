"""Scales and ticks, by hand and as properties."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from autoquant.reports.charts.scale import Scale, Tick, decimals_of, padded, round_values

ENDS = st.floats(-1e6, 1e6, allow_nan=False)


def test_a_value_has_its_place_between_the_ends() -> None:
    scale = Scale(-1.0, 3.0, 100.0, 20.0)
    assert [scale(value) for value in (-1.0, 0.0, 3.0)] == [100.0, 80.0, 20.0]
    assert [scale(value) for value in (-5.0, math.inf)] == [100.0, 20.0]


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0)])
def test_an_axis_without_extent_is_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="an axis has an extent"):
        Scale(*ends, 0.0, 1.0)


def test_ticks_are_round_values_with_as_many_decimals_as_they_need() -> None:
    assert Scale(0.0, 0.021, 0.0, 100.0).ticks(5) == [
        Tick(0.0, "0.000"),
        Tick(23.81, "0.005"),
        Tick(47.62, "0.010"),
        Tick(71.43, "0.015"),
        Tick(95.24, "0.020"),
    ]
    assert [tick.text for tick in Scale(-0.4, 100.0, 0.0, 1.0).ticks(3)] == ["0", "50", "100"]


@given(ENDS, ENDS, st.integers(2, 12))
def test_round_values_lie_within_and_are_neither_many_nor_none(one: float, other: float, most: int) -> None:
    low, high = sorted((one, other))
    assume(high - low > 1e-6 * max(abs(low), abs(high), 1e-3))
    values = round_values(low, high, most)
    slack = (high - low) * 1e-6
    assert all(low - slack <= value <= high + slack for value in values)
    assert len(values) <= most
    if most >= 3:
        assert values
    steps = {round((b - a) / (high - low), 9) for a, b in pairwise(values)}
    assert len(steps) <= 1 or max(steps) - min(steps) < 1e-6


def test_decimals_are_those_of_the_longest() -> None:
    assert decimals_of([0.5, 0.125]) == 3
    assert decimals_of([1.0 / 3.0]) == 6


@given(ENDS, ENDS)
def test_a_padded_range_has_an_extent(one: float, other: float) -> None:
    low, high = padded(min(one, other), max(one, other))
    assert low < min(one, other) <= max(one, other) < high
