"""What one value far away leaves of a sketch: percentiles of all others, compared with NumPy's on every value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoquant.calibration.distribution import Exact
from autoquant.calibration.ranges import Ifmr, Percentile
from autoquant.calibration.sketch import Sketch
from autoquant.calibration.sketcher import Sketcher

OUTLIERS = [-9999.0, 1e6, -1e9, 2147483647.0, 3.4e38]
SCALES = st.floats(-20.0, 3.0).map(lambda exponent: 10.0**exponent)
SEEDS = st.integers(0, 99)


def bulk_and_outliers(seed: int, scale: float, outliers: list[float]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bulk = rng.normal(size=3000) * scale * rng.choice([0.0, 1.0, 0.01], size=3000)
    return rng.permutation(np.append(bulk, outliers)).astype(np.float32)


def sketched(*batches: np.ndarray) -> Sketch:
    sketcher = Sketcher()
    for batch in batches:
        sketcher.add(batch)
    return sketcher.distribution()


@given(SEEDS, SCALES, st.lists(st.sampled_from(OUTLIERS), min_size=1, max_size=3), st.integers(1, 5))
@example(0, 1.0, [3.4e38, -3.4e38], 3)
def test_order_statistics_are_within_a_hundredth(seed: int, scale: float, outliers: list[float], parts: int) -> None:
    values = bulk_and_outliers(seed, scale, outliers)
    sketch, ordered = sketched(*np.array_split(values, parts)), np.sort(values).astype(np.float64)
    assert sketch.count == len(values)
    for k in (1, 2, 5, 30, 300, 1000):
        assert sketch.largest(k) == pytest.approx(ordered[-k], rel=0.01, abs=1e-39)
        assert sketch.smallest(k) == pytest.approx(ordered[k - 1], rel=0.01, abs=1e-39)


@given(SEEDS, SCALES, st.integers(1, 3001))
def test_neither_order_nor_batches_matter(seed: int, scale: float, cut: int) -> None:
    values = bulk_and_outliers(seed, scale, [1e6])
    whole, parts = sketched(np.sort(values)), sketched(values[:cut], values[cut:])
    assert len(whole.near.keys)
    for one, other in ((whole.near.keys, parts.near.keys), (whole.near.counts, parts.near.counts)):
        np.testing.assert_array_equal(one, other)


@given(st.lists(st.floats(-1.0, 1.0, width=32, allow_subnormal=False), min_size=3, max_size=60), st.randoms())
@example([0.0, -0.0, 2e-38, -2e-38, 0.5, -0.5, 1.0, -1.0, 127 / 128], None)
def test_bins_are_half_open_and_hold_every_value(values: list[float], random: object) -> None:
    """Also where values stand on the edges of bins, which is where those near zero meet the others."""
    batch = np.array([*values, 2.0**13 * 1e-2, *(np.array([-129, -128, -127, 127, 128, 129]) / 128)], np.float32)
    sketch = sketched(batch)
    edges, counts = sketch._bins()
    assert (np.diff(edges) > 0).all() and counts.min() >= 0
    expected, _ = np.histogram(batch.astype(np.float64), np.append(edges, np.inf))
    np.testing.assert_array_equal(np.append(counts, 0), expected)


def test_where_bins_are_fine_enough_nothing_is_divided() -> None:
    values = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    for each in (values, np.maximum(values, 0.0), np.zeros(9, np.float32)):
        assert not len(sketched(each).near.keys)


def test_counts_are_taken_as_often_as_they_say() -> None:
    sketcher = Sketcher()
    sketcher.add(np.array([1.0, 2.0, 1e6, np.nan], np.float32), np.array([10, 5, 1, 3]))
    sketch = sketcher.distribution()
    assert (sketch.count, sketch.near.count, sketch.nonfinite) == (16, 15, 3)
    assert 2.0 <= sketch.largest(2) <= 2.02 and 1.0 <= sketch.largest(7) <= 1.01


@pytest.mark.parametrize("outlier", OUTLIERS)
def test_ranges_that_clip_are_those_of_the_rest(outlier: float) -> None:
    rest = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    with_outlier = sketched(np.append(rest, np.float32(outlier)))
    ordered = np.sort(rest)
    kept = Percentile(0.9999)(with_outlier, symmetric=False)
    assert (kept.low, kept.high) == pytest.approx((ordered[10], ordered[-11]), rel=0.05)
    every = Exact(np.sort(np.append(rest, np.float32(outlier))))
    found, expected = (Ifmr(0.9999, 0.9999)(seen, symmetric=False) for seen in (with_outlier, every))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.1)
