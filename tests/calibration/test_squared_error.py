from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.calibration import squared_error as module
from autoquant.calibration.distribution import Distribution, Exact
from autoquant.calibration.sketch import Sketch
from autoquant.calibration.squared_error import (
    FRACTIONS,
    Levels,
    Mse,
    first_least,
    legal,
    squared_errors,
    symmetric_levels,
)
from autoquant.quantization.affine import Range, asymmetric, symmetric

VALUES = st.lists(st.floats(-100.0, 100.0, width=32), min_size=1, max_size=40)
ROWS = st.lists(st.tuples(st.floats(-120.0, 20.0), st.floats(0.01, 5.0), st.integers(1, 60)), min_size=1, max_size=5)


def reference(values: list[float], rows: list[tuple[float, float, int]]) -> list[float]:
    """Distance to the nearest level, one row after the other."""
    errors = []
    for start, step, number in rows:
        levels = start + step * np.arange(number)
        errors.append(float((np.abs(np.array(values)[:, None] - levels).min(axis=1) ** 2).sum()))
    return errors


def as_levels(rows: list[tuple[float, float, int]]) -> Levels:
    start, step, number = zip(*rows, strict=True)
    return Levels(np.array(start), np.array(step), np.array(number))


@pytest.mark.parametrize("chunk", [1 << 20, 3], ids=["at once", "in chunks"])
@given(values=VALUES, rows=ROWS)
def test_against_every_distance(chunk: int, values: list[float], rows: list[tuple[float, float, int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK", chunk)
        patch.setattr(module, "ROWS", 2)
        found = squared_errors(Exact(np.sort(np.array(values, np.float32))), as_levels(rows))
    # What cancels are squares of up to 220 + 60 * 5.
    np.testing.assert_allclose(found, reference(values, rows), atol=1e-9 * len(values))


def test_counts() -> None:
    counts = np.zeros(9, np.int64)
    counts[[0, 5, 8]] = 2, 1000, 7
    sketch = Sketch(-4.0, 4.0, 1.0, -4, counts)  # values -4 and -3.5, 1.5 a thousand times, 4 seven times
    rows = [(-4.0, 4.0, 3), (-10.0, 1.0, 1)]
    found = squared_errors(sketch, as_levels(rows))
    np.testing.assert_allclose(found, reference([-4.0, -3.5, *[1.5] * 1000, *[4.0] * 7], rows), rtol=1e-12)


def test_symmetric_levels() -> None:
    levels = symmetric_levels(np.array([1.0, 2.0]))
    assert levels.start.tolist() == [-128.0, -256.0]
    assert levels.step.tolist() == [1.0, 2.0]
    assert levels.last.tolist() == [127.0, 254.0]


def test_legal() -> None:
    eps = 2.0**-23
    scales = np.array([0.0, 0.99 * eps, eps, 1.0, 2.0**23, 1.01 * 2.0**23, np.inf, np.nan])
    assert legal(scales).tolist() == [2, 3, 4]


@pytest.mark.parametrize(("errors", "place"), [([3.0, 1.0, 2.0, 1.0], 1), ([1.0 + 1e-14, 1.0], 0), ([1.001, 1.0], 1)])
def test_the_first_of_equals(errors: list[float], place: int) -> None:
    rows = Levels(np.zeros(4), np.ones(4), np.full(4, 2))
    assert first_least(np.array(errors), rows, 2) == place


VALUES = st.lists(st.floats(-8.0, 8.0, width=32), min_size=2, max_size=30).filter(lambda v: max(map(abs, v)) > 1e-2)


def error(values: np.ndarray, candidate: Range, *, offset: bool) -> float:
    """Sum of squared errors of INT8 itself, float64."""
    affine = (asymmetric if offset else symmetric)(candidate)
    steps = np.clip(np.rint(values / affine.scale) + affine.offset, -128, 127)
    return float((((steps - affine.offset) * affine.scale - values) ** 2).sum())


def no_worse(mine: float, others: list[float], values: np.ndarray) -> bool:
    """Scales are rounded to float32, which the search does not see: 2^-24 of the range."""
    return mine <= min(others) * (1 + 1e-3) + 1e-9 * len(values) * float((values**2).max())


@settings(max_examples=30)
@given(VALUES)
def test_no_other_bound_on_either_side_is_better(values: list[float]) -> None:
    """The least of all 256 for each bound, tried one by one with INT8 itself."""
    array = np.sort(np.array(values, np.float32))
    found = Mse()(Exact(array), symmetric=False)
    array = array.astype(np.float64)
    low, high = min(array[0], 0.0), max(array[-1], 0.0)
    mine = error(array, found, offset=True)
    with_low = [Range(low * share, found.high) for share in FRACTIONS if found.high or share]
    with_high = [Range(found.low, high * share) for share in FRACTIONS if found.low or share]
    usable = [other for other in (*with_low, *with_high) if other.high - other.low > 1e-4]
    assert no_worse(mine, [error(array, other, offset=True) for other in usable], array)


@settings(max_examples=30)
@given(VALUES)
def test_symmetric_is_the_least_of_all(values: list[float]) -> None:
    array = np.sort(np.array(values, np.float32))
    found = Mse()(Exact(array), symmetric=True)
    array = array.astype(np.float64)
    low, high = min(array[0], 0.0), max(array[-1], 0.0)
    others = [error(array, Range(low * share, high * share), offset=False) for share in FRACTIONS[:-1]]
    assert no_worse(error(array, found, offset=False), others, array)


def test_both_bounds_together_are_as_good_as_can_be(exact: Callable[..., Distribution], values: NDArray[Any]) -> None:
    """Against all pairs of bounds on a coarser grid: the descent ends in no other valley."""
    found = Mse()(exact(values), symmetric=False)
    array = values.astype(np.float64)
    low, high = min(array.min(), 0.0), max(array.max(), 0.0)
    shares = FRACTIONS[:128:16]
    others = [error(array, Range(low * a, high * b), offset=True) for a in shares for b in shares]
    assert error(array, found, offset=True) <= 1.02 * min(others) + 1e-12 * len(array)


def test_a_long_tail_on_one_side_is_clipped_there(see: Callable[..., Distribution]) -> None:
    """Of 400,000 values in [-1, 1] and one at 4: s^2 / 12 each, s the step, against (4 - high)^2, is least near 2."""
    values = np.append(np.random.default_rng(0).uniform(-1.0, 1.0, size=400_000), [4.0])
    found = Mse()(see(values), symmetric=False)
    highs = np.linspace(1.0, 4.0, 301)
    expected = highs[np.argmin(400_000 * ((highs + 1.0) / 255) ** 2 / 12 + (4.0 - highs) ** 2)]
    assert found.low == pytest.approx(-1.0, abs=0.03) and found.high == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-30, 3e38], ids=["zeros", "tiny", "huge"])
def test_without_a_legal_scale_everything_is_covered(
    see: Callable[..., Distribution], value: float, symmetric: bool
) -> None:
    assert Mse()(see([value] * 9), symmetric=symmetric) == Range(0.0, float(np.float32(value)))
