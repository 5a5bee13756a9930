"""The squared error of rounding to INT8, for many ranges at once, and MSE, the range algorithm that minimizes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import Distribution
from autoquant.quantization.affine import EPSILON, QMAX, QMIN, Range, symmetric_scales

CHUNK = 1 << 20
"""Values that are worked on at once: bounds memory where every value was kept."""
ROWS = 64
"""Candidates that are worked on at once: what they need stays in the processor's cache."""
FRACTIONS = np.append(2.0 ** (-np.arange(255) / 32.0), 0.0)
"""What share of the largest (or smallest) value a bound may be: from all of it down to 1/245, 2 % apart, and none."""
TURNS = 20
"""More than it takes: three or four do."""


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


def symmetric_levels(scales: Array) -> Levels:
    """The levels of INT8 with offset 0."""
    return Levels(QMIN * scales, scales, np.full(scales.shape, QMAX - QMIN + 1))


def best_range(
    lows: Array, highs: Array, best: Callable[[Array, Array, Array], int], *, symmetric: bool
) -> Range | None:
    """Of the candidates [low, high] whose scales are legal, the one that `best` chooses; None where there are none.

    `best` is given the lows, highs and scales of those, and gives the row of the one to take.
    """
    scales = symmetric_scales(lows, highs) if symmetric else (highs - lows) / (QMAX - QMIN)
    rows = legal(scales)
    if not rows.size:
        return None
    row = rows[best(lows[rows], highs[rows], scales[rows])]
    return Range(float(lows[row]), float(highs[row]))


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


def savings(below: Callable[[Array], Array], levels: Levels) -> Array:
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
    return np.asarray(away - savings(below, levels))


@dataclass(frozen=True, slots=True)
class Mse:
    """Move both bounds to where the squared error of INT8 is least, rounding of the offset included.

    MSE-based range estimation (Nagel et al. 2021, arXiv:2106.08295, section 3.1) by coordinate descent: each bound in
    turn takes the best of FRACTIONS while the other stays, until neither moves. But for the unevenness of rounding,
    the error is convex in both bounds together (what is clipped at either side, and the square of their distance), so
    that this finds the least. With offset 0 both bounds move together, and one turn tries all there is.
    """

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """The candidate of least squared error; everything where none has a legal scale."""
        whole = Range.covering(distribution.low, distribution.high)
        if symmetric:
            return _best(distribution, whole.low * FRACTIONS, whole.high * FRACTIONS, symmetric=True) or whole
        lows, highs = np.unique(whole.low * FRACTIONS), np.unique(whole.high * FRACTIONS)[::-1]
        found = whole
        for _ in range(TURNS):
            before = found
            found = _best(distribution, np.full(highs.shape, found.low), highs, symmetric=False) or found
            found = _best(distribution, lows, np.full(lows.shape, found.high), symmetric=False) or found
            if found == before:
                break
        return found


def _best(distribution: Distribution, lows: Array, highs: Array, *, symmetric: bool) -> Range | None:
    """The range of least error, the first of equals; None where none has a legal scale."""

    def best(lows: Array, highs: Array, scales: Array) -> int:
        levels = symmetric_levels(scales) if symmetric else _asymmetric_levels(lows, scales)
        return int(squared_errors(distribution, levels).argmin())

    return best_range(lows, highs, best, symmetric=symmetric)


def _asymmetric_levels(lows: Array, scales: Array) -> Levels:
    """The levels of INT8 for ranges that begin at `lows`, with an offset."""
    offsets = np.clip(QMIN - np.rint(lows / scales), QMIN, QMAX)
    return Levels((QMIN - offsets) * scales, scales, np.full(scales.shape, QMAX - QMIN + 1))
