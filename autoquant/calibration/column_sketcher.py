"""Filling sketches of all channels of a tensor at once, in memory that does not grow with the number of values."""

from __future__ import annotations

import math

import numpy as np

from autoquant.array import Array
from autoquant.calibration.counting import BLOCK, Counts
from autoquant.calibration.sketch import FINEST, Sketch, widened

APART = 16
"""Counts between those of two columns: multiples of 4 KB apart, bins of all columns would share few cache lines."""
WIDE = 1 << 12
"""Values side by side that NumPy compares at full speed."""


class ColumnSketcher:
    """Fills a sketch of each column of a matrix, all columns at once; no column has to do with another.

    Bin width is a power of two and bins start at multiples of it, so that widening is exact: two neighbours are added.
    """

    def __init__(self, columns: int, *, bins: int) -> None:
        """`bins` is the most that a sketch may have."""
        self._low = np.full(columns, np.inf)
        self._high = np.full(columns, -np.inf)
        self._width = np.full(columns, FINEST)
        self._first = np.zeros(columns, np.int32)
        self._used = np.zeros(columns, np.int32)  # how many bins, from the first one on
        self._nonfinite = np.zeros(columns, np.int64)
        self._bins = bins
        self._counted = Counts(columns * (bins + APART))
        self._steps: tuple[Array, Array] | None = None

    def add(self, values: Array) -> None:
        """Count `values`, float32 (any, columns). Raises ValueError for another number of columns."""
        columns = len(self._low)
        if values.shape[1] != columns:
            raise ValueError(f"there are {columns} columns, got {values.shape[1]}")
        if not values.size:
            return
        values, finite = np.ascontiguousarray(values), None
        low, high = _reduced(np.minimum, values), _reduced(np.maximum, values)
        if not (np.isfinite(low) & np.isfinite(high)).all():
            finite = np.isfinite(values)
            self._nonfinite += (~finite).sum(axis=0)
            low = values.min(axis=0, where=finite, initial=np.inf)
            high = values.max(axis=0, where=finite, initial=-np.inf)
            values = np.where(finite, values, np.float32(0.0))
        self._reach(low, high)
        self._count(values.reshape(-1), None if finite is None else finite.reshape(-1), below_zero=bool(low.min() < 0))

    def distributions(self) -> tuple[Sketch, ...]:
        """The sketch of each column so far; nothing at all gives one empty bin at zero."""
        counts = self._counts.astype(np.min_scalar_type(-1 - int(self._counts.max(initial=0))))
        parts = (self._used, self._low, self._high, self._width, self._first, self._nonfinite)
        facts = (part.tolist() for part in parts)
        return tuple(
            Sketch(low, high, width, first, row[:used].copy(), nonfinite)
            if used
            else Sketch(0.0, 0.0, 1.0, 0, np.zeros(1, counts.dtype), nonfinite)
            for row, used, low, high, width, first, nonfinite in zip(counts, *facts, strict=True)
        )

    def _count(self, values: Array, finite: Array | None, *, below_zero: bool) -> None:
        """Count those of values, of all columns by turns, that are `finite`, all of which the bins cover."""
        columns = len(self._low)
        size = min(max(BLOCK // columns, 1) * columns, len(values))
        scales, offsets = self._scale_and_offset(size)
        room = np.empty(size, np.int32)
        for begin in range(0, len(values), size):
            part = values[begin : begin + size]
            places, scale, offset = room[: len(part)], scales[: len(part)], offsets[: len(part)]
            if below_zero:  # a conversion cuts off, toward zero
                np.copyto(places, np.floor(part * scale), casting="unsafe")
            else:
                np.multiply(part, scale, out=places, casting="unsafe")
            places += offset
            places = places if finite is None else places[finite[begin : begin + size]]
            self._counted.add(places, most=size // columns)

    def _scale_and_offset(self, size: int) -> tuple[Array, Array]:
        """By what values are multiplied, and what is then added, to number their bins; `size` of each at least."""
        if self._steps is None or len(self._steps[0]) < size:
            columns, apart = self._counts.shape
            # Exact, so a value never falls into a neighbour's bin: float32 times a power of two that is 1 or more.
            scale = (1.0 / self._width).astype(np.float32 if self._width.max() <= 1.0 else np.float64)
            offset = np.arange(columns, dtype=np.int32) * apart - self._first
            # One for each value: NumPy is slow where it repeats few.
            self._steps = np.tile(scale, size // columns), np.tile(offset, size // columns)
        return self._steps

    @property
    def _counts(self) -> Array:
        """All counts, (columns, bins and a few more)."""
        return self._counted.array.reshape(len(self._low), -1)

    def _reach(self, low: Array, high: Array) -> None:
        """Make the bins cover [low, high], each (rows,), and what they covered before."""
        grown = np.flatnonzero((low < self._low) | (high > self._high))
        if not len(grown):
            return
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        width = widened(self._width[grown], self._low[grown], self._high[grown], self._bins)
        first = np.floor(self._low[grown] / width).astype(np.int32)
        self._used[grown] = np.floor(self._high[grown] / width).astype(np.int32) - first + 1
        moved = (width != self._width[grown]) | (first != self._first[grown])
        self._move(grown[moved], width[moved], first[moved])

    def _move(self, rows: Array, width: Array, first: Array) -> None:
        """Bring what was counted of `rows` into bins of another width and beginning."""
        row, held = np.nonzero(self._counts[rows])
        counts = self._counts[rows[row], held]
        before = held + self._first[rows][row]
        places = np.floor(before * (self._width[rows] / width)[row]).astype(np.intp)
        self._counts[rows] = 0
        np.add.at(self._counts, (rows[row], places - first[row]), counts)
        self._width[rows], self._first[rows] = width, first
        self._steps = None


def _reduced(function: np.ufunc, values: Array) -> Array:
    """Reduce each column, (columns,), as many rows side by side as their number can be divided by."""
    rows, columns = values.shape
    beside = math.gcd(rows, max(WIDE // columns, 1))
    folded = function.reduce(values.reshape(rows // beside, beside * columns), axis=0)
    return np.asarray(function.reduce(folded.reshape(beside, columns), axis=0))
