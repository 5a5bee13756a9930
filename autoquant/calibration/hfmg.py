"""HFMG, AMCT's range algorithm for little memory: narrow a window of a histogram, keep the one of least error."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import Distribution
from autoquant.calibration.squared_error import Levels, best_range, first_least, savings, symmetric_levels
from autoquant.quantization.affine import EPSILON, QMAX, QMIN, Range

BIN_NUMBERS = (1024, 2048, 4096, 8192)
STEPS = 100_000
"""A step gives up this part of all values, at least one value."""
NARROWEST = 4
"""The search ends at a window of this part of all bins."""


@dataclass(frozen=True, slots=True)
class Hfmg:
    """A histogram of `num_of_bins` equal bins from the smallest to the largest value, and windows of it as candidates.

    From the whole histogram on, each step gives up one part in 100,000 of the values at the side where they take up
    more bins, at both sides where these are equal. A window's error is that of 256 cells of equal width, in which a
    value goes to the center of its cell, one outside to the first or last cell; values are spread evenly over their
    bin. With offset 0 the cells are the steps of that scale. A window is widened to contain zero before it is judged,
    because INT8 must have it.
    """

    num_of_bins: int = 4096

    def __post_init__(self) -> None:
        if self.num_of_bins not in BIN_NUMBERS:
            raise ValueError(f"num_of_bins {self.num_of_bins} must be in {list(BIN_NUMBERS)}")

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """The window of least error, the first of equals; everything where none has a legal scale."""
        whole = Range.covering(distribution.low, distribution.high)
        if distribution.high - distribution.low < EPSILON:
            return whole
        edges = np.linspace(distribution.low, distribution.high, self.num_of_bins + 1)
        counts = distribution.histogram(edges)
        left, right = np.array(windows(counts)).T

        def best(lows: Array, highs: Array, scales: Array) -> int:
            levels = symmetric_levels(scales) if symmetric else _cells(lows, highs)
            return first_least(histogram_errors(edges, counts, levels), levels, distribution.count)

        lows, highs = np.minimum(edges[left], 0.0), np.maximum(edges[right], 0.0)
        return best_range(lows, highs, best, symmetric=symmetric) or whole


def windows(counts: Array) -> list[tuple[int, int]]:
    """The candidates: bins from the first number up to, not including, the second; from wide to narrow."""
    step = max(1, math.ceil(counts.sum() / STEPS))
    at_left, idle_left = _given_up(counts, step)
    at_right, idle_right = _given_up(counts[::-1], step)
    left, right, found = 0, 0, [(0, len(counts))]
    while left + right + 2 < len(at_left):
        idle = min(idle_left[left], idle_right[right])
        more_left = at_left[left + 1] - at_left[left]
        more_right = at_right[right + 1] - at_right[right]
        left += idle or more_left >= more_right
        right += idle or more_right >= more_left
        window = (at_left[left], len(counts) - at_right[right])
        if window[1] - window[0] <= len(counts) // NARROWEST:
            break
        if window != found[-1]:
            found.append(window)
    return found


def _given_up(counts: Array, step: int) -> tuple[list[int], list[int]]:
    """After 0, 1, ... steps at the first bin's side, how many bins are given up, and how many steps give up none.

    The bins that n steps give up are those that together hold less than n steps' values.
    """
    steps = math.ceil(counts.sum() / step)
    bins = np.searchsorted(np.cumsum(counts), np.arange(steps + 1) * step)
    next_ = np.where(np.diff(bins) > 0, np.arange(steps), steps)
    idle = np.minimum.accumulate(next_[::-1])[::-1] - np.arange(steps)
    return bins.tolist(), [*idle.tolist(), 0]


def histogram_errors(edges: Array, counts: Array, levels: Levels) -> Array:
    """Integral of (nearest level - value)^2, one a row, with values spread evenly over the equal bins; float64."""
    width = (edges[-1] - edges[0]) / len(counts)
    before = np.concatenate([[0.0], np.cumsum(counts)])
    # At each edge, the integral of what lies before it: the sum of distances to all values below.
    table = np.concatenate([[0.0], np.cumsum(before[:-1] + counts / 2)])
    spread = np.append(counts, 0.0)

    def below(t: Array) -> Array:
        place = np.clip((t - edges[0]) / width, 0.0, len(counts))
        bin_ = place.astype(np.intp)
        part = place - bin_
        inside = table[bin_] + part * (before[bin_] + part * spread[bin_] / 2)
        return np.asarray(width * inside + before[-1] * np.maximum(t - edges[-1], 0.0))

    centers = (edges[:-1] + edges[1:]) / 2
    # The mean of x^2 over a bin is that at its center, and its width squared over 12.
    squares = (centers**2 + width**2 / 12) @ counts
    away = squares - 2.0 * levels.last * (centers @ counts) + levels.last**2 * before[-1]
    return np.asarray(away - savings(below, levels))


def _cells(lows: Array, highs: Array) -> Levels:
    """The centers of 256 equal cells of each window."""
    cells = QMAX - QMIN + 1
    widths = (highs - lows) / cells
    return Levels(lows + widths / 2, widths, np.full(lows.shape, cells))
