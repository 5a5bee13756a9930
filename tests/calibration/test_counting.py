"""Counts against np.bincount: by SciPy's way and without it, weighted, all at once, and beyond what int32 holds."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.calibration import counting
from autoquant.calibration.counting import BLOCK, INT32, TURNS, Counts, in_turns

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [0, 1, 100, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("scipy", [True, False])
def test_counts_are_added(count: int, scipy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether SciPy has the part that is faster or not: that part is not public, and this says when it is gone."""
    assert counting.first_step() is not None
    if not scipy:
        monkeypatch.setattr(counting, "first_step", lambda: None)
    counts, expected = Counts(100), np.zeros(100, np.int64)
    for _ in range(2):
        numbers = RNG.integers(0, 100, count, dtype=np.int32)
        counts.add(numbers)
        expected += np.bincount(numbers, minlength=100)
        times = RNG.integers(1, 1000, count)
        counts.add(numbers, times)
        expected += np.bincount(numbers, times, minlength=100).astype(np.int64)
        counts.add_all(np.arange(7), 90)
        expected[90:97] += np.arange(7)
    assert counts.array.dtype == np.int32
    np.testing.assert_array_equal(counts.array, expected)
    counts.clear()
    assert not counts.array.any()


def test_counts_beyond_int32() -> None:
    counts = Counts(2)
    counts.add(np.array([1, 1, 0], np.int32), np.array([2**40, 2**40, 3]))
    counts.add(np.array([0, 1], np.int32))
    assert counts.array.tolist() == [4, 2**41 + 1]
    counts = Counts(2)
    counts.add(np.zeros(1, np.int32), np.array([INT32]))
    assert counts.array.dtype == np.int32
    counts.add_all(np.array([1, 0]))
    assert counts.array.tolist() == [2**31, 0]


def test_turns() -> None:
    assert np.bincount(in_turns(3 * TURNS)).tolist() == [3] * TURNS
