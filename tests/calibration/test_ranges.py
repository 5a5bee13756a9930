"""The contract of every range algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.calibration.distribution import Distribution, Exact
from autoquant.calibration.ranges import RANGES, Ifmr, RangeAlgorithm, range_name
from autoquant.calibration.sketcher import Sketcher
from autoquant.quantization.affine import Range, asymmetric, symmetric

LIKELY = st.lists(st.floats(-8.0, 8.0, width=32), min_size=1, max_size=40)
WIDEST = {"ifmr": 1.3}
"""How far beyond the largest value an algorithm may go; IFMR's candidates end there."""
each_algorithm = pytest.mark.parametrize("kind", RANGES.values(), ids=RANGES)
symmetric_or_not = pytest.mark.parametrize("offset", [True, False], ids=["asymmetric", "symmetric"])


def test_the_table() -> None:
    assert list(RANGES) == ["entropy", "hfmg", "ifmr", "minmax", "mse", "percentile"]
    assert [range_name(kind()) for kind in RANGES.values()] == list(RANGES)
    assert range_name(Ifmr(max_percentile=0.9)) == "ifmr"


@each_algorithm
def test_a_setting_is_a_frozen_value(kind: Callable[[], RangeAlgorithm]) -> None:
    assert kind() == kind() and hash(kind()) == hash(kind())
    for field in fields(kind()):
        with pytest.raises(FrozenInstanceError):
            setattr(kind(), field.name, 0.9)


@symmetric_or_not
@each_algorithm
@settings(max_examples=25)
@given(values=LIKELY)
def test_a_range_lies_within_what_was_seen_and_zero(
    kind: Callable[..., Any], values: list[float], offset: bool
) -> None:
    array = np.sort(np.array(values, np.float32))
    sketcher = Sketcher()
    sketcher.add(array)
    reach = WIDEST.get(range_name(kind()), 1.0) * (1 + 1e-9)
    low, high = min(float(array[0]), 0.0), max(float(array[-1]), 0.0)
    for seen in (Exact(array), sketcher.distribution()):
        found = kind()(seen, symmetric=not offset)
        assert low * reach <= found.low <= 0.0 <= found.high <= high * reach


@symmetric_or_not
@each_algorithm
@settings(max_examples=25)
@given(values=LIKELY, power=st.integers(-4, 20))
def test_values_twice_as_large_have_a_range_twice_as_large(
    kind: Callable[..., Any], values: list[float], power: int, offset: bool
) -> None:
    """For powers of two, and away from scales that are too small, exactly."""
    array = np.sort(np.array([*values, 1.0], np.float32).round(4))
    both = []
    for factor in (1.0, 2.0**power):
        sketcher = Sketcher()
        sketcher.add(array * np.float32(factor))
        both.append(
            [kind()(s, symmetric=not offset) for s in (Exact(array * np.float32(factor)), sketcher.distribution())]
        )
    for one, other in zip(*both, strict=True):
        assert other == Range(one.low * 2.0**power, one.high * 2.0**power)


def step_error(values: np.ndarray, found: Range, *, offset: bool) -> float:
    """Mean squared error of INT8 itself, float64."""
    affine = (asymmetric if offset else symmetric)(found)
    steps = np.clip(np.rint(values / affine.scale) + affine.offset, -128, 127)
    return float(np.mean(((steps - affine.offset) * affine.scale - values) ** 2))


@symmetric_or_not
@pytest.mark.parametrize("name", sorted(set(RANGES) - {"entropy"}))
def test_a_sketch_serves_as_well_as_all_values(
    name: str,
    exact: Callable[..., Distribution],
    sketched: Callable[..., Distribution],
    values: NDArray[Any],
    offset: bool,
) -> None:
    """INT8's error by the sketch's range is within 3 % of that by all values, where there are many values."""
    first, second = (
        step_error(values.astype(np.float64), RANGES[name]()(seen(values), symmetric=not offset), offset=offset)
        for seen in (exact, sketched)
    )
    allowance = 1.03 if len(values) > 1000 else 2.0
    assert second <= allowance * first + 1e-9 * float(np.mean(values**2))


@symmetric_or_not
@each_algorithm
@pytest.mark.parametrize("values", [[-3.0, -1.0], [1.0, 3.0], [0.0], [-2.0, 5.0], [1e-45], [-3.4e38, 3.4e38]])
def test_few_and_extreme_values(
    kind: Callable[..., Any], see: Callable[..., Distribution], values: list[float], offset: bool
) -> None:
    found = kind()(see(values), symmetric=not offset)
    assert -math.inf < found.low <= 0.0 <= found.high < math.inf
