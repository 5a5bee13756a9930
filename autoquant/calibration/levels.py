"""The squared error of rounding to equally spaced levels, for many candidates at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import Distribution
from autoquant.quantization.affine import EPSILON, QMAX, QMIN, symmetric_scales

CHUNK = 1 << 20
"""Values that are worked on at once: bounds memory where every value was kept."""
ROWS = 64
"""Candidates that are worked on at once: what they need stays in the processor's cache."""


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """For each of several candidates, a row, the values that INT8 can stand for.

    Row i has the levels start[i] + k * step[i], k = 0..number[i] - 1, real units; three vectors of one length.
    """

    start: Array
    step: Array
    number: Array

    @property
    def last(self) -> Array:
        """The highest level of each row."""
        return np.asarray(self.start + (self.number - 1) * self.step)

    def midpoints(self, rows: slice) -> Array:
        """Where rounding goes over from a level to the next, (rows, most); -inf beyond a row's last level."""
        k = np.arange(self.number.max() - 1)
        between = self.start[rows, None] + (k + 0.5) * self.step[rows, None]
        return np.where(k < self.number[rows, None] - 1, between, -np.inf)


def symmetric_levels(lows: Array, highs: Array) -> Levels:
    """The levels of INT8 with offset 0 for ranges [low, high], the scales of which are legal."""
    scales = symmetric_scales(lows, highs)
    return Levels(QMIN * scales, scales, np.full(scales.shape, QMAX - QMIN + 1))


def legal(scales: Array) -> Array:
    """Indices of the scales that INT8 may have."""
    return np.flatnonzero((scales >= EPSILON) & (scales <= 1.0 / EPSILON))


def squared_errors(distribution: Distribution, levels: Levels) -> Array:
    """Sum over all values of (nearest level - value)^2, one a row, float64.

    It is what it would be if all values went to the last level, less what each midpoint saves: a value x below the
    midpoint t between two levels w apart goes one level down, which saves (x - upper)^2 - (x - lower)^2 = 2w (t - x).
    """
    values, counts = distribution.values()
    errors = np.zeros(levels.start.shape)
    for begin in range(0, len(values), CHUNK):
        part = slice(begin, begin + CHUNK)
        errors += _of_points(values[part].astype(np.float64), counts[part].astype(np.float64), levels)
    return errors


def first_least(errors: Array, levels: Levels, count: int) -> int:
    """The first row whose error, of `count` values, is the least, apart from what comes of adding up."""
    reach = max(np.abs(levels.start).max(), np.abs(levels.last).max())
    noise = 1e-13 * (errors.min() + count * reach**2)
    return int(np.flatnonzero(errors <= errors.min() + noise)[0])


def saved(below: Callable[[Array], Array], levels: Levels) -> Array:
    """What all midpoints save, one a row; `below` gives the sum of t - x over all values x below each t."""
    sums = [below(levels.midpoints(slice(row, row + ROWS))).sum(axis=1) for row in range(0, len(levels.start), ROWS)]
    return np.asarray(2.0 * levels.step * np.concatenate(sums))


def _of_points(values: Array, counts: Array, levels: Levels) -> Array:
    """The errors of some values, ascending."""
    number, total = counts.sum(), values @ counts
    # At each value, the sum of its distance to those before it.
    table = values * (np.cumsum(counts) - counts) - (np.cumsum(values * counts) - values * counts)

    def below(t: Array) -> Array:
        return np.asarray(np.interp(t, values, table) + number * np.maximum(t - values[-1], 0.0))

    away = values**2 @ counts - 2.0 * levels.last * total + levels.last**2 * number
    return np.asarray(away - saved(below, levels))
