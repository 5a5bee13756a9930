"""From predicted divergences to measured drops: the predictions corrected by what trials measured, and a curve.

Both are Bayesian least squares, which say something sensible with one trial and with none, and are fitted anew after
each (Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]
SPREAD = 0.6
"""By how much predictions of single layers are wrong before anything is measured, relative; one standard deviation."""
MEASURING = 0.1
"""The same of the measured divergence of a plan, whose layers' divergences do not just add up."""
FACTORS = (0.25, 4.0)
"""By how much a prediction is corrected at most."""
LEAST = 0.05
"""Drops below this share of the largest within tolerance count as that: they are noise, and have no logarithm."""
PRIOR, WEIGHT = 0.7, 3.0
"""What the logarithm of the drop scatters by around the curve, before anything is measured; worth so many trials."""


def corrections(parts: Array, measured: Array) -> Array:
    """By which factor each tunable's predicted divergence is to be multiplied; shape (tunables,).

    `parts`, shape (trials, tunables), are the predicted divergences of the tunables that a trial had in INT8, 0 for the
    others; `measured`, shape (trials,), above 0, is what was measured of the trial, in any unit: only ratios matter.
    """
    sums = parts.sum(axis=1)
    use = (sums > 0.0) & (measured > 0.0)
    if not use.any():
        return np.ones(parts.shape[1])
    parts, sums = parts[use], sums[use]
    target = measured[use] / math.exp(float(np.mean(np.log(measured[use] / sums))))
    prior = SPREAD**2 * parts
    covariance = prior @ parts.T + np.diag((MEASURING * (target + sums)) ** 2)
    found = 1.0 + prior.T @ np.linalg.solve(covariance, target - sums)
    return np.asarray(np.clip(found, *FACTORS))


@dataclass(frozen=True, slots=True)
class Curve:
    """drop / max_drop = (divergence / critical) ** slope, give or take: at `critical` the drop is just within.

    The logarithm of the ratio scatters by `scatter`, one standard deviation.
    """

    critical: float
    slope: float
    scatter: float

    def chance(self, divergence: float) -> float:
        """That a plan of this predicted divergence is within tolerance."""
        if divergence <= 0.0:
            return 1.0
        if not math.isfinite(divergence):
            return 0.0
        return float(ndtr(-self.slope * math.log(divergence / self.critical) / self.scatter))

    def divergence_at(self, chance: float) -> float:
        """The predicted divergence at which a plan is within tolerance with this chance."""
        return self.critical * math.exp(-self.scatter * float(ndtri(chance)) / self.slope)


def fit_curve(divergences: Sequence[float], drops: Sequence[float], max_drop: float, *, typical: float) -> Curve:
    """The curve through trials of known divergence and drop, those near the largest drop within counting most.

    Without any, `typical` is assumed to be the critical divergence, with little trust in it. Divergences are
    above 0.
    """
    least = LEAST * max_drop if max_drop > 0.0 else 1e-9
    y = np.log(np.maximum(np.asarray(drops, dtype=np.float64), least) / max(max_drop, least))
    if not y.size:
        return Curve(typical, 1.0, 3.0)
    x = np.log(np.asarray(divergences, dtype=np.float64))
    weight = 1.0 / (1.0 + y**2)
    middle_x, middle_y = np.average(x, weights=weight), np.average(y, weights=weight)
    x, y = x - middle_x, y - middle_y
    slope_precision = (PRIOR / 0.3) ** 2  # of a prior of 1 +- 0.3 for the slope
    slope = float((weight @ (x * y) + slope_precision) / (weight @ (x * x) + slope_precision))
    slope = min(max(slope, 0.3), 3.0)
    variance = (WEIGHT * PRIOR**2 + weight @ (y - slope * x) ** 2) / (WEIGHT + weight.sum())
    return Curve(math.exp(middle_x - middle_y / slope), slope, math.sqrt(float(variance)))
