"""The bias-corrected and accelerated bootstrap: an upper confidence bound of a statistic, from resampling.

Efron (1987), "Better bootstrap confidence intervals", JASA 82; Efron and Tibshirani (1993), chapter 14. It is accurate
to second order, not exact: too low where few samples make up all of the drop, and unreliable for constant samples or
fewer than FEWEST. scipy.stats.bootstrap computes the same, but holds, or goes through, samples^2 values for the
jackknife, of which a mean has no need.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, inf

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError

FEWEST = 100
"""Samples that a bootstrap takes to bound anything, for whoever is to rely on it."""
LEAST, TAIL = 4999, 50
"""Resamples: at least so many, and so many in the tail that the bound cuts off."""
MOST = 200_000
COSTLY = 999
"""Resamples of a statistic that is not a mean."""
BLOCKS = 100
"""Parts that are left out in turn for a statistic that is not a mean (the grouped jackknife)."""
CHUNK = 4_000_000
"""Values in memory at once."""


def bca_upper(estimate: float, resampled: Array, jackknife: Array, *, confidence: float) -> float:
    """The upper confidence bound, one-sided, from a statistic's values on resamples and on all samples but some.

    The quantile of `resampled` at ndtr(z0 + (z0 + z) / (1 - a (z0 + z))), z0 = ndtri(share below the estimate, ties
    counting half), a = sum d^3 / (6 (sum d^2)^1.5) with d = mean(jackknife) - jackknife.
    """
    from scipy.special import ndtr, ndtri

    below = float(((resampled < estimate).mean() + (resampled <= estimate).mean()) / 2)
    away = jackknife.mean() - jackknife
    spread = float((away**2).sum())
    if not spread or not 0.0 < below < 1.0:
        return float(max(estimate, resampled.max()))
    acceleration = float((away**3).sum()) / (6.0 * spread**1.5)
    bias = float(ndtri(below))
    shifted = bias + float(ndtri(confidence))
    if acceleration * shifted >= 1.0:
        return float(resampled.max())
    return float(np.quantile(resampled, ndtr(bias + shifted / (1.0 - acceleration * shifted))))


def mean_upper(values: Array, *, confidence: float, seed: int) -> float:
    """The upper confidence bound of the mean that `values` (N,) were drawn from; infinite if they are all equal."""
    if (values == values[0]).all():
        return inf
    count, total = len(values), float(values.sum())
    random = np.random.default_rng(seed)
    resamples = min(max(LEAST, ceil(TAIL / (1.0 - confidence))), MOST)
    part = max(CHUNK // count, 1)
    means = [
        values[random.integers(count, size=(min(part, resamples - start), count))].mean(axis=1)
        for start in range(0, resamples, part)
    ]
    jackknife = (total - values) / (count - 1)
    return bca_upper(total / count, np.concatenate(means), jackknife, confidence=confidence)


def statistic_upper(statistic: Callable[[Array], float], count: int, *, confidence: float, seed: int) -> float:
    """The upper confidence bound of any statistic of the chosen ones of `count` samples; infinite if it never differs.

    Resamples that the statistic refuses (AUC, where one class is missing) are drawn again, up to as many as there are.
    """
    random = np.random.default_rng(seed)
    found: list[float] = []
    refused: list[DataError] = []
    while len(found) < COSTLY:
        try:
            found.append(statistic(random.integers(count, size=count)))
        except DataError as error:
            refused.append(error)
            if len(refused) > COSTLY:
                raise
    if min(found) == max(found):
        return inf
    everything = np.arange(count)
    blocks = np.array_split(random.permutation(count), min(BLOCKS, count))
    jackknife = np.asarray([statistic(np.delete(everything, block)) for block in blocks])
    return bca_upper(statistic(everything), np.asarray(found), jackknife, confidence=confidence)
