"""Filling a sketch of one tensor batch by batch, in memory that does not grow with the number of values."""

from __future__ import annotations

import math

import numpy as np

from autoquant.array import Array
from autoquant.calibration.counting import BLOCK, INT32, Counts, in_turns
from autoquant.calibration.near_zero import CENTRAL, KEYS, NOTHING_NEAR, SHIFT, KeyCounter, is_central
from autoquant.calibration.sketch import BINS, FINEST, Sketch, widened

INFINITY = 0x7F800000
"""The bits of infinity as float32; those of NaN, and of all whose sign is set, are more."""
# For NumPy, which takes longer to look at a number of Python's.
ZERO, LOWEST, MOST, BITS = map(np.int32, (0, CENTRAL, INT32, SHIFT))


class Sketcher:
    """Fills a sketch of one tensor.

    Bin width is a power of two and bins start at multiples of it, so that widening is exact: neighbours are added.
    Values that are not near zero are told by the counts of these bins, all others by those of their keys.
    """

    def __init__(self, *, bins: int = BINS) -> None:
        """`bins` is the most that the sketch may have."""
        self._bins = bins
        self._low, self._high = math.inf, -math.inf
        self._width, self._first = FINEST, 0
        self._counts, self._keys = Counts(bins), KeyCounter()
        self._both = Counts(CENTRAL + KEYS // 2 + bins)  # of values that `_count_both` counts, until they are moved
        self._nonfinite = 0
        self._known = -1  # values whose bits are no more lie within the bins

    def add(self, values: Array, counts: Array | None = None) -> None:
        """Count `values`, float32 of any shape, each as often as `counts` (same shape, 1 or more) says."""
        flat, times = np.ascontiguousarray(values).reshape(-1), None if counts is None else counts.reshape(-1)
        places, keys = (np.empty(min(BLOCK, len(flat)), np.int32) for _ in range(2))
        for begin in range(0, len(flat), BLOCK):
            block = slice(begin, begin + BLOCK)
            self._add(flat[block], None if times is None else times[block], places, keys)

    def distribution(self) -> Sketch:
        """The sketch so far; nothing at all gives one empty bin at zero."""
        if self._low > self._high:
            return Sketch(0.0, 0.0, 1.0, 0, np.zeros(1, np.int8), self._nonfinite)
        self._part()
        near, zeros = self._keys.near(CENTRAL * self._width), self._keys.zeros
        counts, at_zero = self._covered.copy(), -self._first
        counts[max(at_zero - CENTRAL, 0) : max(at_zero + CENTRAL, 0)] = 0
        np.add.at(counts, np.floor(near.lows / self._width).astype(np.intp) + at_zero, near.counts)
        if zeros:
            counts[at_zero] += zeros
        most = near.count * 2 >= max(int(counts.sum()) - zeros, 1)
        kept = counts.astype(np.min_scalar_type(-1 - int(counts.max())))
        facts = (self._low, self._high, self._width, self._first, kept, self._nonfinite)
        return Sketch(*facts, near if most and self._bins > 2 * CENTRAL else NOTHING_NEAR)

    def _add(self, values: Array, times: Array | None, places: Array, keys: Array) -> None:
        """Count a block of values, (any,). The last two are room for as many int32 or more."""
        largest = int(np.maximum.reduce(values.view(np.uint32)))
        if largest > self._known:
            low, high = float(values.min()) + 0.0, float(values.max()) + 0.0  # -0.0 becomes 0.0
            if not (math.isfinite(low) and math.isfinite(high)):
                finite = np.isfinite(values)
                self._nonfinite += int((~finite).sum() if times is None else times[~finite].sum())
                if finite.any():
                    self._add(values[finite], None if times is None else times[finite], places, keys)
                return
            if low < self._low or high > self._high:
                self._reach(min(low, self._low), max(high, self._high))
        if len(values) < len(places):
            places, keys = places[: len(values)], keys[: len(values)]
        if times is None and largest < INFINITY and not self._first:
            self._count_both(values, places, keys)
        else:
            self._count_each(values, times, places)

    def _count_both(self, values: Array, places: Array, keys: Array) -> None:
        """Count values of which none is below zero, each once: those near zero by their keys, others in their bins.

        One number says which of either, so that counting, which takes the most, is done once.
        """
        if self._both.most > INT32 - BLOCK:
            self._part()
        np.multiply(values, self._scale, out=places, casting="unsafe")
        places.clip(LOWEST, MOST, out=places)
        np.right_shift(values.view(np.int32), BITS, out=keys)
        keys.clip(ZERO, self._first_key, out=keys)
        np.maximum(keys, in_turns(len(keys)), out=keys)
        np.add(places, keys, out=places)
        self._both.add(places)

    def _count_each(self, values: Array, times: Array | None, room: Array) -> None:
        """Count values in their bins, and by their keys."""
        np.copyto(room, np.floor(values * self._scale), casting="unsafe")
        room -= np.int32(self._first)
        self._counts.add(room, times)
        self._keys.add(values, room, times)

    def _reach(self, low: float, high: float) -> None:
        """Make the bins cover [low, high], which is more than they cover."""
        if low == self._low and high < min((self._first + self._bins) * self._width, self._width * 2.0**24):
            self._high = high
            self._know()
            return
        width = float(widened(np.array(self._width), np.array(low), np.array(high), self._bins))
        first = math.floor(low / width)
        if (width, first) != (self._width, self._first) and self._low <= self._high:
            self._part()
            counts = self._covered
            places = self._first + np.arange(len(counts))
            moved = np.floor(places * (self._width / width))
            taken = is_central(moved) & ~is_central(places)
            self._keys.take_over(places[taken] * self._width, counts[taken])
            joined = np.add.reduceat(counts, np.flatnonzero(np.diff(moved, prepend=-math.inf)))
            self._counts.array[:] = 0
            self._counts.array[int(moved[0]) - first :][: len(joined)] = joined
        self._low, self._high, self._width, self._first = low, high, width, first
        # Exact, so a value never falls into a neighbour's bin: float32 times a power of two that is 1 or more.
        self._scale = (np.float32 if width <= 1.0 else np.float64)(1.0 / width)
        central = CENTRAL * width
        self._first_key = np.float32(central if central < 2.0**128 else math.inf).view(np.int32) >> BITS
        self._know()

    def _know(self) -> None:
        """Keep the bits of the largest value where zero is the smallest: values between them need no other look."""
        self._known = int(np.float32(self._high).view(np.uint32)) if self._low == 0.0 else -1

    def _part(self) -> None:
        """Move what was counted together to bins and keys."""
        counts, first_key = self._both.array, self._first_key
        self._keys.counts.add_all(counts[CENTRAL : CENTRAL + first_key])
        self._counts.add_all(counts[CENTRAL + first_key : self._bins + first_key], CENTRAL)
        self._both.clear()

    @property
    def _covered(self) -> Array:
        """Counts from the bin of the smallest value to that of the largest."""
        return self._counts.array[: math.floor(self._high / self._width) - self._first + 1]
