from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from autoquant.calibration.distribution import Distribution
from autoquant.calibration.entropy import Entropy, divergences
from autoquant.quantization.affine import Range

symmetric_or_not = pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])


def divergence(counts: np.ndarray, begin: int, end: int) -> float:
    """KL divergence of one window, with both distributions written out bin by bin."""
    inside = counts[begin:end].astype(np.float64)
    p = inside.copy()
    p[0] += counts[:begin].sum()
    p[-1] += counts[end:].sum()
    first = len(p) * np.arange(256) // 256  # bin of each of 256 levels
    held, sums = (np.add.reduceat(each, first) for each in ((p > 0).astype(np.float64), inside))
    level = np.repeat(sums / np.maximum(held, 1.0), np.diff(first, append=len(p)))
    q = np.where(p > 0, level, 0.0)
    if (q[p > 0] == 0).any():
        return np.inf
    p, q = p / p.sum(), q / q.sum()
    return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())


@given(
    hnp.arrays(np.int64, 700, elements=st.integers(0, 4)).filter(lambda counts: counts.sum() > 0),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 140)), min_size=1, max_size=3),
)
def test_against_both_distributions_written_out(counts: np.ndarray, cuts: list[tuple[int, int]]) -> None:
    begins, ends = np.array([(left, 700 - right) for left, right in cuts]).T
    found = divergences(counts.astype(np.float64), begins, ends)
    expected = [divergence(counts, *window) for window in zip(begins, ends, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


class Thresholds:
    """The divergence of each threshold, in bins of which 2048 reach to the largest absolute value, bin by bin."""

    def __init__(self, seen: Distribution, *, symmetric: bool) -> None:
        low, high = min(seen.low, 0.0), max(seen.high, 0.0)
        self.bin = max(-low, high) / 2048
        self.ends = (-2048, 2048) if symmetric else (math.floor(low / self.bin), math.ceil(high / self.bin))
        self.counts = seen.histogram(np.arange(self.ends[0], self.ends[1] + 1) * self.bin)
        zero = min(-self.ends[0], len(self.counts) - 1)
        padded = np.concatenate([[0.0], self.counts, [0.0]])
        self.counts[zero] = min(self.counts[zero], max(padded[zero], padded[zero + 2]))

    def of(self, found: Range) -> float:
        return max(-found.low, found.high) / self.bin

    def loss(self, threshold: float) -> float:
        begin, end = (round(np.clip(place, *self.ends)) - self.ends[0] for place in (-threshold, threshold))
        return divergence(self.counts, begin, end) if end - begin >= 256 else math.inf


@symmetric_or_not
def test_the_threshold_of_least_divergence(
    see: Callable[..., Distribution], values: NDArray[Any], symmetric: bool
) -> None:
    """The one that was found, and every twelfth of all."""
    seen = see(values)
    found, thresholds = Entropy()(seen, symmetric=symmetric), Thresholds(seen, symmetric=symmetric)
    chosen = thresholds.of(found)
    assert chosen == pytest.approx(8 * round(chosen / 8))
    assert thresholds.loss(chosen) <= min(map(thresholds.loss, range(2048, 127, -96))) + 1e-9
    assert min(seen.low, 0.0) <= found.low and found.high <= max(seen.high, 0.0)


@symmetric_or_not
def test_a_sketch_serves_as_well_as_all_values(
    exact: Callable[..., Distribution], sketched: Callable[..., Distribution], values: NDArray[Any], symmetric: bool
) -> None:
    thresholds = Thresholds(exact(values), symmetric=symmetric)
    first, second = (thresholds.of(Entropy()(seen(values), symmetric=symmetric)) for seen in (exact, sketched))
    assert thresholds.loss(second) <= thresholds.loss(first) + 1e-3


def test_an_outlier_is_clipped(see: Callable[..., Distribution]) -> None:
    values = np.append(np.random.default_rng(0).normal(size=100_000), 40.0)
    for symmetric in (False, True):
        assert 3.0 < Entropy()(see(values), symmetric=symmetric).high < 10.0


def test_zeros_of_a_relu_do_not_count(exact: Callable[..., Distribution]) -> None:
    """Zero is exact whatever the range: three quarters of zeros more leave the threshold where it is."""
    values = np.abs(np.random.default_rng(0).normal(size=50_000))
    with_zeros = Entropy()(exact(values, np.zeros(150_000)), symmetric=False)
    assert with_zeros == Entropy()(exact(values, [0.0]), symmetric=False)


@pytest.mark.parametrize("value", [5.0, -5.0, 0.0, 1e-45, -3e38])
def test_a_constant(see: Callable[..., Distribution], value: float) -> None:
    single = float(np.float32(value))
    assert Entropy()(see([value] * 7), symmetric=False) == Range(min(single, 0.0), max(single, 0.0))
