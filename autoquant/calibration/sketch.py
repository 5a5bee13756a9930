"""A compact picture of all values of one tensor: a histogram whose bins grow with the range.

Where most values are so close to zero that few bins hold them, these bins are divided further (near_zero.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.near_zero import CENTRAL, NOTHING_NEAR, NearZero, is_central

BINS = 1 << 14
"""Most bins of a sketch. INT8 has 255 steps, so a step covers at least 32 bins."""
FINEST = 2.0**-120
"""Where bins start to grow: far below what INT8 can tell from zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """A histogram of the values of one tensor.

    Bin i counts the values in [(first + i) * width, (first + i + 1) * width), real units. `low` and `high` are the
    exact smallest and largest finite value, `count` the number of finite values, `nonfinite` of NaN and infinities.
    Counts are exact as well, whatever order and batches values came in; where in its bin a value lies is not kept.
    `near` are the values in the central bins, not zero, where they are most of all values that are not zero, and
    otherwise nothing: then these bins are divided into those of `near`.
    """

    low: float
    high: float
    width: float
    first: int
    counts: Array
    nonfinite: int = 0
    near: NearZero = NOTHING_NEAR

    def __post_init__(self) -> None:
        if not (self.width > 0.0 and math.isfinite(self.width)):
            raise ValueError(f"width must be positive and finite, got {self.width}")
        if not self.low <= self.high:
            raise ValueError(f"low must not be above high, got {self.low} and {self.high}")
        if self.counts.ndim != 1 or len(self.counts) > BINS:
            raise ValueError(f"counts must be a vector of at most {BINS} bins, got shape {self.counts.shape}")

    @property
    def count(self) -> int:
        """Number of finite values seen."""
        return int(self.counts.sum())

    def values(self) -> tuple[Array, Array]:
        """Centers of the bins that hold anything, ascending, float64, and their counts.

        Centers are clipped to what was seen; one value each stands at `low` and at `high`, which are exact.
        """
        if self.count < 2:
            return np.array([self.low] * self.count), np.ones(self.count, np.int64)
        edges, every = self._bins()
        held = np.flatnonzero(every)
        centers = np.clip((edges[held] + edges[held + 1]) / 2.0, self.low, self.high)
        inner = every[held].astype(np.int64)
        inner[0] -= 1
        inner[-1] -= 1
        values, counts = (np.concatenate(parts) for parts in (([self.low], centers, [self.high]), ([1], inner, [1])))
        return values[counts > 0], counts[counts > 0]

    def histogram(self, edges: Array) -> Array:
        """Numbers of values in the bins between ascending `edges`, float64; bins are half open, the last is closed.

        A bin of the sketch that lies in several is divided among them by how much of it each covers, to a millionth.
        """
        own, counts = self._bins()
        own = np.clip(own, self.low, self.high)
        up_to = np.append(np.nextafter(edges[:-1], -np.inf), edges[-1])
        below = np.interp(up_to, own, np.concatenate([[0.0], np.cumsum(counts)]))
        return np.asarray(np.diff(below).round(6))

    def largest(self, k: int) -> float:
        """The k-th largest value, k from 1; exact for k = 1, otherwise at most one bin too high."""
        edges, counts = self._bins()
        bins_below_top = int(np.searchsorted(np.cumsum(counts[::-1]), k))
        return min(max(float(edges[len(counts) - bins_below_top]), self.low), self.high)

    def smallest(self, k: int) -> float:
        """The k-th smallest value, k from 1; exact for k = 1, otherwise at most one bin too low."""
        edges, counts = self._bins()
        return min(max(float(edges[int(np.searchsorted(np.cumsum(counts), k))]), self.low), self.high)

    def _bins(self) -> tuple[Array, Array]:
        """Edges of all bins, ascending, float64, and their counts, one fewer."""
        places = self.first + np.arange(len(self.counts) + 1)
        if not len(self.near.keys):
            return places * self.width, self.counts
        central = is_central(places[:-1])
        zeros = int(self.counts[central].sum()) - self.near.count
        edges, counts = self.near.bins(CENTRAL * self.width, zeros)
        left, right = places < -CENTRAL, places > CENTRAL
        edges = np.concatenate([places[left] * self.width, edges, places[right] * self.width])
        bins = (self.counts[left[:-1]], counts, self.counts[places[:-1] >= CENTRAL])
        return edges, np.concatenate(bins)


def widened(width: Array, low: Array, high: Array, bins: int) -> Array:
    """`width`, doubled until `bins` bins cover [low, high] and are not finer than float32 can tell apart; any shape."""
    most = np.maximum(-low, high)
    for size, parts in ((most, 2.0**24), (high - low, bins + 1.0)):  # the result is never less than size / parts
        width = np.maximum(width, np.where(size > 0.0, np.ldexp(1.0, np.frexp(size / parts)[1] - 1), 0.0))
    while (narrow := (np.floor(high / width) - np.floor(low / width) >= bins) | (most > width * 2.0**24)).any():
        width = np.where(narrow, width * 2.0, width)
    return np.asarray(width)
