from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoquant.calibration import counting, sketcher
from autoquant.calibration.counting import BLOCK
from autoquant.calibration.sketch import BINS, Sketch
from autoquant.calibration.sketcher import Sketcher

VALUE = st.floats(width=32, allow_nan=False, allow_infinity=False)
VALUES = st.lists(VALUE, min_size=1, max_size=60)
LIKELY = st.lists(st.floats(-8.0, 8.0, width=32), min_size=1, max_size=60)
SPLITS = st.lists(st.integers(0, 60), max_size=4)


def sketched(*batches: np.ndarray) -> Sketch:
    sketcher = Sketcher()
    for batch in batches:
        sketcher.add(batch)
    return sketcher.distribution()


def edges(sketch: Sketch) -> np.ndarray:
    return (sketch.first + np.arange(len(sketch.counts) + 1)) * sketch.width


def binned(values: np.ndarray, sketch: Sketch) -> np.ndarray:
    """np.histogram on the sketch's edges; its last bin is closed, ours is not, so it gets one more that stays empty."""
    last = (sketch.first + len(sketch.counts) + 1) * sketch.width
    counts, _ = np.histogram(values.astype(np.float64), np.append(edges(sketch), last))
    assert counts[-1] == 0
    return counts[:-1]


@given(VALUES | LIKELY)
@example([0.0, -0.0])
@example([1e-45, -1e-45])
@example([-1e-45, -1e6, -3.0])  # a bin that only a product kept in float64 finds
@example([-(2.0**-28), 16383.0 * 1024.0])  # one bin too many, where a logarithm is rounded
@example([-3.4028234663852886e38, 3.4028234663852886e38, 1.0])
def test_one_batch_is_a_histogram(values: list[float]) -> None:
    batch = np.array(values, np.float32)
    sketch = sketched(batch)
    assert (sketch.low, sketch.high, sketch.count) == (batch.min(), batch.max(), len(values))
    np.testing.assert_array_equal(sketch.counts, binned(batch, sketch))
    assert math.frexp(sketch.width)[0] == 0.5, "the width is a power of two"
    assert len(sketch.counts) <= BINS


@given(VALUES | LIKELY, SPLITS, st.randoms())
@example([0.0, 1.0], [1], None)
@example([0.0, 1e-45, 3e38], [1, 2], None)
@example([1e-30, 1e30], [1], None)
def test_neither_order_nor_batches_matter(values: list[float], splits: list[int], random: Any) -> None:
    whole = sketched(np.array(values, np.float32))
    shuffled = list(values)
    if random is not None:
        random.shuffle(shuffled)
    parts = sketched(*np.split(np.array(shuffled, np.float32), sorted(splits)))
    assert parts.low == whole.low
    assert parts.high == whole.high
    assert parts.width == whole.width
    assert parts.first == whole.first
    np.testing.assert_array_equal(parts.counts, whole.counts)


@pytest.mark.parametrize(
    "batches",
    [
        [[0.0, 0.0], [1.0]],
        [[5.0] * 3, [5.0]],
        [[-1.0, -2.0], [-1000.0]],
        [[1e-40], [1.0], [1e30]],
        [[1.0], [], [2.0]],
        [[[1.0, 2.0], [3.0, 4.0]], [[[5.0]]]],
    ],
    ids=["zeros first", "constant", "negative", "growing", "an empty batch", "any shape"],
)
def test_widening(batches: list[Any]) -> None:
    arrays = [np.array(batch, np.float32) for batch in batches]
    values = np.concatenate([array.reshape(-1) for array in arrays])
    sketch = sketched(*arrays)
    assert (sketch.low, sketch.high, sketch.count) == (values.min(), values.max(), values.size)
    np.testing.assert_array_equal(sketch.counts, binned(values, sketch))


def test_fine_enough() -> None:
    """A range takes at least half of the bins, unless float32 itself is coarser."""
    assert len(sketched(np.array([-1.0, 2.0], np.float32)).counts) > BINS / 2
    near = sketched(np.array([1000.0, np.nextafter(np.float32(1000.0), np.float32(2000.0))], np.float32))
    assert near.counts.tolist() == [1, 1]


@given(VALUES | LIKELY, st.sampled_from([2, 10, 1024]))
@example([0.0, 2.6e36], 2)
@example([0.0, -3.4e38, 1.0], 1024)
def test_fewer_bins(values: list[float], bins: int) -> None:
    batch = np.array(values, np.float32)
    sketcher = Sketcher(bins=bins)
    for part in np.array_split(batch, 2):
        sketcher.add(part)
    sketch = sketcher.distribution()
    assert len(sketch.counts) <= bins
    np.testing.assert_array_equal(sketch.counts, binned(batch, sketch))


def test_counts_beyond_int32() -> None:
    sketcher = Sketcher()
    for _ in range(3):  # the first still fits
        sketcher.add(np.array([1.0, 2.0, np.nan], np.float32), np.array([2**30, 1, 9]))
    sketch = sketcher.distribution()
    assert (sketch.count, sketch.counts.max(), sketch.nonfinite) == (3 * 2**30 + 3, 3 * 2**30, 27)
    assert [part.tolist() for part in sketch.values()][1] == [1, 3 * 2**30 - 1, 2, 1]


def test_a_bin_is_divided_among_those_that_it_lies_in() -> None:
    sketch = Sketch(0.0, 4.0, 2.0, 0, np.array([8, 5, 1]))  # 4 itself is alone in the last bin
    assert sketch.histogram(np.array([0.0, 0.5, 3.0, 4.0])).tolist() == [2.0, 8.5, 3.5]
    assert sketch.histogram(np.array([-9.0, -1.0, 1.0])).tolist() == [0.0, 4.0]


def test_nonfinite_values_are_counted_separately() -> None:
    sketch = sketched(
        np.array([1.0, np.nan, 3.0], np.float32), np.array([np.inf, -np.inf], np.float32), np.array([2.0], np.float32)
    )
    assert (sketch.low, sketch.high, sketch.count, sketch.nonfinite) == (1.0, 3.0, 3, 3)
    only = sketched(np.array([np.nan], np.float32))
    assert (only.low, only.high, only.count, only.nonfinite) == (0.0, 0.0, 0, 1)


def test_nothing_seen() -> None:
    sketch = sketched()
    assert (sketch.low, sketch.high, sketch.count, sketch.nonfinite) == (0.0, 0.0, 0, 0)
    assert [part.tolist() for part in sketch.values()] == [[], []]


def test_a_sketch_does_not_change_when_more_is_seen() -> None:
    sketcher = Sketcher()
    sketcher.add(np.array([1.0, 2.0], np.float32))
    before = sketcher.distribution()
    sketcher.add(np.array([1.5, 2.0], np.float32))
    assert (before.count, sketcher.distribution().count) == (2, 4)


@given(VALUES | LIKELY, st.data())
def test_order_statistics_are_within_a_bin(values: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(values)))
    exact = np.sort(np.array(values, np.float32).astype(np.float64))
    sketch = sketched(np.array(values, np.float32))
    assert exact[-k] <= sketch.largest(k) <= exact[-k] + sketch.width
    assert exact[k - 1] - sketch.width <= sketch.smallest(k) <= exact[k - 1]
    assert (sketch.largest(1), sketch.smallest(1)) == (exact[-1], exact[0])


@given(VALUES | LIKELY)
def test_values_stand_for_those_seen(values: list[float]) -> None:
    batch = np.sort(np.array(values, np.float32)).astype(np.float64)
    sketch = sketched(batch.astype(np.float32))
    centers, counts = sketch.values()
    assert counts.sum() == len(values)
    assert np.abs(np.repeat(centers, counts) - batch).max() <= sketch.width / 2
    assert batch[0] <= centers.min() and centers.max() <= batch[-1]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"width": 0.0}, "width must be positive"),
        ({"width": math.inf}, "width must be positive"),
        ({"low": 2.0}, "low must not be above high"),
        ({"low": math.nan}, "low must not be above high"),
        ({"counts": np.zeros((2, 2), np.int64)}, "counts must be a vector"),
        ({"counts": np.zeros(BINS + 1, np.int64)}, "counts must be a vector"),
    ],
)
def test_no_sketch(facts: dict[str, Any], message: str) -> None:
    good = {"low": 0.0, "high": 1.0, "width": 0.5, "first": 0, "counts": np.ones(3, np.int64)}
    with pytest.raises(ValueError, match=message):
        Sketch(**{**good, **facts})


@pytest.mark.parametrize("zeros", [0, 1, 30])
def test_blocks_and_kinds_of_values_do_not_matter(zeros: int) -> None:
    """Blocks without a value below zero are counted in another way than those with one; here tensors have both."""
    rng = np.random.default_rng(zeros)
    positive = np.abs(rng.normal(size=3 * BLOCK + 5)).astype(np.float32)
    positive[rng.random(positive.size) * 100 < zeros] = 0.0
    tiny = (positive[:9999] * 2.0 ** rng.integers(-40, 0, 9999)).astype(np.float32)
    batches = [positive * 0.1, positive, tiny, -tiny, positive * 9.0, np.array([-0.0, 5e-41, np.nan], np.float32)]
    values = np.concatenate(batches)
    for order in ([0, 1, 2, 3, 4, 5], [3, 5, 4, 2, 1, 0], [5, 2, 1, 0, 4, 3]):
        sketch = sketched(*(batches[index] for index in order))
        finite = values[np.isfinite(values)]
        assert (sketch.low, sketch.high, sketch.nonfinite) == (finite.min(), finite.max(), 1)
        np.testing.assert_array_equal(sketch.counts, binned(finite, sketch))


def test_more_values_than_int32_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if int32 ended at 100,000: what was counted is moved before, and ends in int64."""
    for module in (counting, sketcher):
        monkeypatch.setattr(module, "INT32", 100_000)
    values = np.maximum(np.random.default_rng(0).normal(size=4 * BLOCK), 0.0).astype(np.float32)
    sketch = sketched(values)
    np.testing.assert_array_equal(sketch.counts, binned(values, sketch))
