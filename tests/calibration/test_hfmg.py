from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.calibration.distribution import Distribution
from autoquant.calibration.hfmg import BIN_NUMBERS, Hfmg, histogram_errors, windows
from autoquant.calibration.squared_error import Levels
from autoquant.quantization.affine import Range

COUNTS = st.lists(st.integers(0, 30), min_size=8, max_size=64).filter(lambda counts: sum(counts) > 0)


def slow_windows(counts: list[int]) -> list[tuple[int, int]]:
    """One step at a time: the side that takes up more bins gives up as many values, both where that is equal."""
    step = max(1, math.ceil(sum(counts) / 100_000))

    def bins(side: list[int], steps: int) -> int:
        """Bins from the outside that together hold less than so many steps."""
        number = 0
        while number < len(side) and sum(side[: number + 1]) < steps * step:
            number += 1
        return number

    mirrored = counts[::-1]
    left, right, found = 0, 0, [(0, len(counts))]
    while (left + right + 1) * step < sum(counts):
        more_left = bins(counts, left + 1) - bins(counts, left)
        more_right = bins(mirrored, right + 1) - bins(mirrored, right)
        left, right = left + (more_left >= more_right), right + (more_right >= more_left)
        window = (bins(counts, left), len(counts) - bins(mirrored, right))
        if window[1] - window[0] <= len(counts) / 4:
            break
        if window != found[-1]:
            found.append(window)
    return found


def integral(edges: np.ndarray, counts: np.ndarray, start: float, step: float, number: int) -> float:
    """Bins cut where the nearest level changes; over each piece from e to e' the integral of (x - level)^2."""
    cuts = start + (np.arange(number - 1) + 0.5) * step
    ends = np.sort(np.concatenate([edges, cuts[(cuts > edges[0]) & (cuts < edges[-1])]]))
    middle = (ends[1:] + ends[:-1]) / 2
    level = start + step * np.clip(np.rint((middle - start) / step), 0, number - 1)
    bin_ = np.clip(np.searchsorted(edges, middle, side="right") - 1, 0, len(counts) - 1)
    pieces = ((ends[1:] - level) ** 3 - (ends[:-1] - level) ** 3) / 3
    return float((pieces * counts[bin_] / np.diff(edges)[bin_]).sum())


@given(COUNTS)
def test_windows_one_step_at_a_time(counts: list[int]) -> None:
    assert windows(np.array(counts, np.float64)) == slow_windows(counts)


@given(COUNTS)
def test_windows_of_the_mirror_image(counts: list[int]) -> None:
    mirrored = [(len(counts) - right, len(counts) - left) for left, right in windows(np.array(counts[::-1], float))]
    assert windows(np.array(counts, float)) == mirrored


def test_windows_give_up_the_tail_first() -> None:
    """A step is one value; a value at the end of a long tail takes up most bins."""
    counts = [1, 0, 0, 0, 0, 5, 5, 5, 5, 5, 5, 5, 5, 0, 0, 1]
    assert windows(np.array(counts, float))[:3] == [(0, 16), (5, 16), (5, 13)]


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    low=st.floats(-5.0, 5.0),
    width=st.floats(0.01, 3.0),
    rows=st.lists(st.tuples(st.floats(-9.0, 9.0), st.floats(0.05, 2.0), st.integers(1, 9)), min_size=1, max_size=4),
)
def test_errors_against_the_integral_bin_by_bin(counts: list[int], low: float, width: float, rows: list[Any]) -> None:
    edges = low + width * np.arange(len(counts) + 1)
    start, step, number = (np.array(part) for part in zip(*rows, strict=True))
    found = histogram_errors(edges, np.array(counts, float), Levels(start, step, number))
    expected = [integral(edges, np.array(counts), *row) for row in rows]
    np.testing.assert_allclose(found, expected, atol=1e-9 * max(sum(counts), 1))


def test_clipping_costs_the_same_on_both_sides() -> None:
    edges = np.arange(9.0)
    rows = Levels(np.array([2.5, 0.5]), np.array([1.0, 1.0]), np.array([6, 6]))
    counts = np.array([7.0, 0, 0, 1, 1, 0, 0, 0])
    left, right = histogram_errors(edges, counts, rows)[0], histogram_errors(edges, counts[::-1], rows)[1]
    # Seven values in [0, 1], 1.5 to 2.5 from the first level; each of nine spread over its cell besides.
    assert left == pytest.approx(right) == pytest.approx(7 * (2.5**3 - 1.5**3) / 3 + 2 / 12)


@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
def test_the_window_of_least_error(see: Callable[..., Distribution], values: NDArray[Any], symmetric: bool) -> None:
    """Every eighth window, judged bin by bin, is no better than the one that was found, and that is one of them."""
    seen = see(values)
    found = Hfmg()(seen, symmetric=symmetric)
    edges = np.linspace(seen.low, seen.high, 4097)
    counts = seen.histogram(edges)
    candidates = [(min(edges[left], 0.0), max(edges[right], 0.0)) for left, right in windows(counts)]
    place = candidates.index((found.low, found.high))

    def error(low: float, high: float) -> float:
        if symmetric:
            scale = high / 127 if high > -low else -low / 128
            return integral(edges, counts, -128 * scale, scale, 256)
        cell = (high - low) / 256
        return integral(edges, counts, low + cell / 2, cell, 256)

    step = max(1, len(candidates) // 8)
    others = [error(*candidates[number]) for number in range(0, len(candidates), step)]
    assert error(*candidates[place]) <= min(others) * (1 + 1e-6)


def test_all_bin_numbers_come_to_much_the_same(exact: Callable[..., Distribution]) -> None:
    values = np.random.default_rng(0).laplace(size=40_000)
    highs = [Hfmg(bins)(exact(values), symmetric=True).high for bins in BIN_NUMBERS]
    assert BIN_NUMBERS == (1024, 2048, 4096, 8192)
    assert max(highs) / min(highs) < 1.1 and max(highs) < 0.95 * np.abs(values).max()


@pytest.mark.parametrize("value", [5.0, -5.0, 0.0, 1e-30])
def test_a_constant(see: Callable[..., Distribution], value: float) -> None:
    single = float(np.float32(value))
    assert Hfmg()(see([value] * 7), symmetric=False) == Range(min(single, 0.0), max(single, 0.0))


def test_without_a_legal_scale_everything_is_covered(see: Callable[..., Distribution]) -> None:
    assert Hfmg()(see([-3e38, 3e38]), symmetric=False) == Range(-float(np.float32(3e38)), float(np.float32(3e38)))


@pytest.mark.parametrize("bins", [0, 1000, 16384, -1024])
def test_bad_numbers_of_bins(bins: int) -> None:
    with pytest.raises(ValueError, match=rf"num_of_bins {bins} must be in \[1024, 2048, 4096, 8192\]"):
        Hfmg(bins)
