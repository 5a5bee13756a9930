"""The bounds of least squared error, each moved by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import Distribution
from autoquant.calibration.levels import Levels, legal, squared_errors, symmetric_levels
from autoquant.calibration.percentile import with_zero
from autoquant.quantization.affine import QMAX, QMIN, Range, symmetric_scales

FRACTIONS = np.append(2.0 ** (-np.arange(255) / 32.0), 0.0)
"""What share of the largest (or smallest) value a bound may be: from all of it down to 1/245, 2 % apart, and none."""
TURNS = 20
"""More than it takes: three or four do."""


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
        whole = with_zero(distribution.low, distribution.high)
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
    scales = symmetric_scales(lows, highs) if symmetric else (highs - lows) / (QMAX - QMIN)
    rows = legal(scales)
    if not rows.size:
        return None
    levels = (symmetric_levels if symmetric else _asymmetric_levels)(lows[rows], highs[rows])
    best = rows[int(squared_errors(distribution, levels).argmin())]
    return Range(float(lows[best]), float(highs[best]))


def _asymmetric_levels(lows: Array, highs: Array) -> Levels:
    """The levels of INT8 for ranges [low, high], the scales of which are legal."""
    scales = (highs - lows) / (QMAX - QMIN)
    offsets = np.clip(QMIN - np.rint(lows / scales), QMIN, QMAX)
    return Levels((QMIN - offsets) * scales, scales, np.full(scales.shape, QMAX - QMIN + 1))
