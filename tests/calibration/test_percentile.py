from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.calibration.distribution import Distribution
from autoquant.calibration.percentile import MinMax, Percentile, with_zero
from autoquant.quantization.affine import Range


@pytest.mark.parametrize("fraction", [0.9, 0.99, 0.999, 1.0])
def test_percentile_against_numpy(see: Callable[..., Distribution], values: NDArray[Any], fraction: float) -> None:
    found = Percentile(fraction)(see(values), symmetric=False)
    tail = (1.0 - fraction) / 2.0
    ordered = np.sort(values.astype(np.float64))
    bin_ = (ordered[-1] - ordered[0]) / 2**13
    # A quantile may fall a hair to either side of a value: its neighbours, and a bin of the sketch, are the allowance.
    for sign, bound in ((1.0, found.low), (-1.0, found.high)):
        side = np.sort(sign * ordered)
        place = int(tail * len(side))
        gap = np.diff(side[max(place - 2, 0) : place + 3]).max()
        expected = min(np.quantile(side, tail, method="lower"), 0.0)
        assert sign * bound == pytest.approx(expected, abs=bin_ + gap)
        assert np.mean(side < sign * bound) <= tail + 1e-9


def test_minmax_is_exact(see: Callable[..., Distribution], values: NDArray[Any]) -> None:
    found = MinMax()(see(*np.array_split(values, 3)), symmetric=False)
    assert (found.low, found.high) == (min(values.min(), 0.0), max(values.max(), 0.0))


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(1.0, 2.0, (0.0, 2.0)), (-2.0, -1.0, (-2.0, 0.0)), (-1.0, 1.0, (-1.0, 1.0))]
)
def test_with_zero(low: float, high: float, expected: tuple[float, float]) -> None:
    assert with_zero(low, high) == Range(*expected)


@pytest.mark.parametrize("fraction", [0.5, 1.1, -1.0, math.nan])
def test_bad_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must be greater than 0\.5 and less than or equal to 1\.0, got"):
        Percentile(fraction)
