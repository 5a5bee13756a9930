"""Fits of what trials measured: corrections of predicted divergences, and the curve from these to drops.

Both are Bayesian least squares, which say something sensible with one trial and with none, and are fitted anew after
each (Bishop, Pattern Recognition and Machine Learning, 2006, section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve
from scipy.special import ndtr, ndtri

from autoquant.threads import one_blas_thread

Array = NDArray[np.float64]
SPREAD = 0.6
"""By how much predictions of single layers are wrong before anything is measured, relative; one standard deviation."""
MEASURING = 0.1
"""The same of the measured divergence of a plan, whose layers' divergences do not just add up."""
OF_INPUTS = 1.0
"""The same of all layers' inputs together, beside weights: rounding them well, which takes most of the error from
weights, is not predicted."""
FACTORS = (0.25, 4.0)
"""By how much a prediction is corrected at most."""
MANY = 100
"""More trials than these are added up before corrections are fitted, not set against each other one by one."""
LEAST = 0.05
"""Drops below this share of the largest within tolerance count as that: they are noise, and have no logarithm."""
PRIOR, WEIGHT = 0.7, 3.0
"""What the logarithm of the drop scatters by around the curve, before anything is measured; worth so many trials."""


@one_blas_thread()
def corrections(parts: Array, measured: Array, *, inputs: NDArray[np.bool_] | None = None) -> Array:
    """By which factor each part of a predicted divergence is to be multiplied; shape (parts,).

    `parts`, shape (trials, parts), are the predicted divergences of what a trial had in INT8, 0 for the others;
    `measured`, shape (trials,), above 0, is what was measured of the trial, in any unit: only ratios matter. `inputs`
    are the parts that are of layers' inputs, where these are apart from their weights.
    """
    size = parts.shape[1]
    together = np.zeros(size) if inputs is None else np.where(inputs, OF_INPUTS, 0.0)
    sums = parts.sum(axis=1)
    use = (sums > 0.0) & (measured > 0.0)
    if not use.any():
        return np.ones(size)
    parts, sums = parts[use], sums[use]
    target = measured[use] / math.exp(float(np.mean(np.log(measured[use] / sums))))
    variance = (MEASURING * (target + sums)) ** 2
    if len(parts) <= max(MANY, size):
        prior = SPREAD**2 * parts + np.outer(parts @ together, together)
        found = 1.0 + prior.T @ solve(prior @ parts.T + np.diag(variance), target - sums, assume_a="pos")
    else:  # the same, of as many equations as there are parts, not trials
        weighted = parts.T / variance
        shared = np.outer(together, together) / (SPREAD**2 + together @ together)
        precision = weighted @ parts + (np.eye(size) - shared) / SPREAD**2
        found = 1.0 + solve(precision, weighted @ (target - sums), assume_a="pos")
    return np.asarray(np.clip(found, *FACTORS))


@dataclass(frozen=True, slots=True)
class Curve:
    """drop / max_drop = (divergence / critical) ** slope, give or take: at `critical` the drop is just within.

    The logarithm of the ratio scatters by `scatter`, one standard deviation.
    """

    critical: float
    slope: float
    scatter: float

    def chance(self, divergence: float, mean: float = 0.0, variance: float = 1.0) -> float:
        """That a plan of this predicted divergence is within tolerance.

        `mean` and `variance`, in scatters, are what is expected of its residual.
        """
        if divergence <= 0.0:
            return 1.0
        if not math.isfinite(divergence):
            return 0.0
        expected = self.slope * math.log(divergence / self.critical) / self.scatter + mean
        return float(ndtr(-expected / math.sqrt(variance)))

    def residuals(self, divergences: Array, logs: Array) -> Array:
        """By how many scatters these logarithms of drop / max_drop are above the curve."""
        return np.asarray((logs - self.slope * np.log(divergences / self.critical)) / self.scatter)

    def divergence_at(self, chance: float) -> float:
        """The predicted divergence at which a plan is within tolerance with this chance."""
        return self.critical * math.exp(-self.scatter * float(ndtri(chance)) / self.slope)


def log_ratios(drops: Array, max_drop: float, least: float) -> Array:
    """Logarithms of drop / max_drop; of the `least` drop that is told from none where that is more."""
    least = max(least, LEAST * max_drop if max_drop > 0.0 else 1e-9)
    return np.asarray(np.log(np.maximum(drops, least) / max(max_drop, least)))


def fit_curve(
    divergences: ArrayLike, drops: ArrayLike, max_drop: float, *, typical: float, least: float = 0.0
) -> Curve:
    """The curve through trials of known divergence and drop, those near the largest drop within counting most.

    Smaller drops than `least` count as that. Without any, `typical` is assumed to be the critical divergence, with
    little trust in it. Divergences are above 0.
    """
    y = log_ratios(np.asarray(drops, dtype=np.float64), max_drop, least)
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
