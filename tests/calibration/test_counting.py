"""Counts against np.bincount: many numbers for few bins, few for many, weighted, and numbers outside."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.calibration.counting import BLOCK, SPARSE, Counter

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [0, 1, 100 // SPARSE - 1, 100 // SPARSE, 100, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_counts_are_added(count: int, dtype: type[np.signedinteger]) -> None:
    counter, counts, expected = Counter(100), np.zeros(100, dtype), np.zeros(100, np.int64)
    for _ in range(2):
        numbers = RNG.integers(0, 100, count, dtype=np.int32)
        counter.add(counts, numbers)
        expected += np.bincount(numbers, minlength=100)
        times = RNG.integers(1, 1000, count).astype(dtype)
        counter.add(counts, numbers, times)
        expected += np.bincount(numbers, times, minlength=100).astype(np.int64)
    assert counts.dtype == dtype
    np.testing.assert_array_equal(counts, expected)


def test_counts_beyond_int32() -> None:
    counts = np.zeros(2, np.int64)
    Counter(2).add(counts, np.array([1, 1, 0], np.int32), np.array([2**40, 2**40, 3]))
    assert counts.tolist() == [3, 2**41]


@pytest.mark.parametrize("wrong", [-1, 10])
def test_numbers_outside_are_refused(wrong: int) -> None:
    with pytest.raises(IndexError, match=r"in 0\.\.9, got"):
        Counter(10).add(np.zeros(10, np.int32), np.array([*range(10), wrong], np.int32))
