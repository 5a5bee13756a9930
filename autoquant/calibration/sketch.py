"""A compact picture of all values of one tensor: a histogram whose bins grow with the range."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoquant.quantization.affine import Array

BINS = 1 << 14
"""Most bins of a sketch. INT8 has 255 steps, so a step covers at least 32 bins."""
FINEST = 2.0**-120
"""Where bins start to grow: far below what INT8 can tell from zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What was seen of one tensor.

    Bin i counts the values in [(first + i) * width, (first + i + 1) * width), real units. `low` and `high` are the
    exact smallest and largest finite value, `count` the number of finite values, `nonfinite` of NaN and infinities.
    """

    low: float
    high: float
    width: float
    first: int
    counts: Array
    nonfinite: int = 0

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
        held = np.flatnonzero(self.counts)
        centers = np.clip((self.first + held + 0.5) * self.width, self.low, self.high)
        inner = self.counts[held]  # a copy
        inner[0] -= 1
        inner[-1] -= 1
        values, counts = (np.concatenate(parts) for parts in (([self.low], centers, [self.high]), ([1], inner, [1])))
        return values[counts > 0], counts[counts > 0]

    def histogram(self, edges: Array) -> Array:
        """Numbers of values in the bins between ascending `edges`, float64; bins are half open, the last is closed.

        A bin of the sketch that lies in several is divided among them by how much of it each covers, to a millionth.
        """
        own = np.clip((self.first + np.arange(len(self.counts) + 1)) * self.width, self.low, self.high)
        up_to = np.append(np.nextafter(edges[:-1], -np.inf), edges[-1])
        below = np.interp(up_to, own, np.concatenate([[0.0], np.cumsum(self.counts)]))
        return np.asarray(np.diff(below).round(6))

    def largest(self, k: int) -> float:
        """The k-th largest value, k from 1; exact for k = 1, otherwise at most one bin too high."""
        from_above = np.cumsum(self.counts[::-1])
        bins_below_top = int(np.searchsorted(from_above, k))
        edge = (self.first + len(self.counts) - bins_below_top) * self.width
        return min(max(edge, self.low), self.high)

    def smallest(self, k: int) -> float:
        """The k-th smallest value, k from 1; exact for k = 1, otherwise at most one bin too low."""
        edge = (self.first + int(np.searchsorted(np.cumsum(self.counts), k))) * self.width
        return min(max(edge, self.low), self.high)


class Sketcher:
    """Fills a sketch batch by batch, in memory that does not grow with the number of values.

    Bin width is a power of two and bins start at multiples of it, so that widening is exact: two neighbours are added.
    """

    def __init__(self, *, bins: int = BINS) -> None:
        """`bins` is the most that the sketch may have."""
        self._bins = bins
        self._low = math.inf
        self._high = -math.inf
        self._width = FINEST
        self._first = 0
        self._counts = np.zeros(0, np.int64)
        self._nonfinite = 0

    def add(self, values: Array, counts: Array | None = None) -> None:
        """Count `values`, float32 of any shape, each as often as `counts` (same shape, 1 or more) says."""
        flat, times = values.reshape(-1), None if counts is None else counts.reshape(-1)
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            finite = np.isfinite(flat)
            self._nonfinite += int(np.sum(~finite if times is None else times[~finite]))
            self.add(flat[finite], None if times is None else times[finite])
            return
        self._reach(low, high)
        # In float64 dividing by a power of two is exact, so a value never falls into a neighbour's bin.
        index = np.floor(flat * np.float64(1.0 / self._width)).astype(np.intp)
        index -= self._first
        self._counts += np.bincount(index, times, minlength=len(self._counts)).astype(np.int64)

    def seen(self) -> Sketch:
        """What has been seen so far; nothing at all gives one empty bin at zero."""
        if not len(self._counts):
            return Sketch(0.0, 0.0, 1.0, 0, np.zeros(1, np.int64), self._nonfinite)
        counts = self._counts.copy()
        return Sketch(self._low, self._high, self._width, self._first, counts, self._nonfinite)

    def _reach(self, low: float, high: float) -> None:
        """Make the bins cover [low, high] and what they covered before."""
        if low >= self._low and high <= self._high:
            return
        self._low, self._high = min(self._low, low), max(self._high, high)
        width = _widened(self._width, self._low, self._high, self._bins)
        first, last = math.floor(self._low / width), math.floor(self._high / width)
        counts = np.zeros(last - first + 1, np.int64)
        held = np.flatnonzero(self._counts)
        moved = np.floor((held + self._first) * (self._width / width)).astype(np.intp) - first
        np.add.at(counts, moved, self._counts[held])
        self._width, self._first, self._counts = width, first, counts


def _widened(width: float, low: float, high: float, bins: int) -> float:
    """`width`, doubled until `bins` bins cover [low, high] and are not finer than float32 can tell apart."""
    while math.floor(high / width) - math.floor(low / width) >= bins or max(-low, high) > width * 2.0**24:
        width *= 2.0
    return width
