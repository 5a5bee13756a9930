"""The bounds that lose least information: the KL divergence of what INT8 keeps from what was seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import Distribution
from autoquant.quantization.affine import Range

BINS = 2048
"""Bins of the histogram from zero to the largest absolute value."""
LEVELS = 256
STRIDE = 8
"""Every so many bins a bound is tried."""


@dataclass(frozen=True, slots=True)
class Entropy:
    """Clip at the threshold, on both sides of zero, whose KL divergence is the least; as TensorRT does.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017: the bins within the threshold, with what is beyond in the
    outermost, are P; the same without what is beyond, merged to as many levels as INT8 has and spread again evenly over
    the bins that hold anything, are Q. There the histogram is of absolute values; here it has both signs, and a side
    that does not reach to the threshold ends where its values end, so that all 256 levels are spent on what there is.
    With offset 0 both sides reach to the threshold. Zero is exact in every candidate, so that its bin is counted as no
    more than the larger of its neighbours.
    """

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """From -threshold to threshold, within what was seen; the widest of equals."""
        whole = Range.covering(distribution.low, distribution.high)
        reach = max(-whole.low, whole.high)
        if reach == 0.0:
            return whole
        width = reach / BINS
        low, high = (-BINS, BINS) if symmetric else (math.floor(whole.low / width), math.ceil(whole.high / width))
        counts = _without_peak(distribution.histogram(np.arange(low, high + 1) * width), -low)
        thresholds = np.arange(BINS, LEVELS // 2 - 1, -STRIDE)
        begins, ends = np.maximum(-thresholds, low) - low, np.minimum(thresholds, high) - low
        enough = ends - begins >= LEVELS
        best = float(thresholds[enough][divergences(counts, begins[enough], ends[enough]).argmin()] * width)
        return Range(max(whole.low, -best), min(whole.high, best))


def divergences(counts: Array, begins: Array, ends: Array) -> Array:
    """KL divergence, in nats, for each window of bins from `begins` up to, not including, `ends`; float64.

    With c the counts, C the same with what is outside added to the window's first and last bin, m the sum of c over a
    level and h the number of its bins where C > 0: P = C / sum C, Q = (m / h) / sum c where C > 0.
    """
    sums, logs, held = (_running(values) for values in (counts, _xlogx(counts), counts > 0.0))
    cuts = begins[:, None] + (ends - begins)[:, None] * np.arange(LEVELS + 1) // LEVELS
    of_q, bins = np.diff(sums[cuts]), np.diff(held[cuts])
    of_p = of_q.copy()
    entropy = logs[ends] - logs[begins]
    for level, outermost, outside in ((0, begins, sums[begins]), (-1, ends - 1, sums[-1] - sums[ends])):
        of_p[:, level] += outside
        bins[:, level] += (counts[outermost] == 0.0) & (outside > 0.0)
        entropy += _xlogx(counts[outermost] + outside) - _xlogx(counts[outermost])
    with np.errstate(divide="ignore", invalid="ignore"):  # infinite where Q has nothing and P has something
        cross = np.where(of_p > 0.0, of_p * np.log(of_q / np.maximum(bins, 1.0)), 0.0).sum(axis=1)
        found = (entropy - cross) / sums[-1] + np.log(of_q.sum(axis=1) / sums[-1])
    return np.where(np.isneginf(cross), np.inf, found)


def _without_peak(counts: Array, zero: int) -> Array:
    """The counts, with the bin of zero no larger than the larger of its neighbours."""
    zero = min(zero, len(counts) - 1)
    beside = [counts[place] for place in (zero - 1, zero + 1) if 0 <= place < len(counts)]
    capped = counts.copy()
    capped[zero] = min(counts[zero], max(beside))
    return capped


def _running(values: Array) -> Array:
    return np.concatenate([[0.0], np.cumsum(values)])


def _xlogx(values: Array) -> Array:
    return np.asarray(values * np.log(np.where(values > 0.0, values, 1.0)))
