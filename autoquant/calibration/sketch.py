"""A compact picture of all values of one tensor: a histogram whose bins grow with the range.

Where most values are so close to zero that few bins hold them, these bins are divided further (near_zero.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from autoquant.array import Array
from autoquant.calibration.counting import BLOCK, Counter
from autoquant.calibration.near_zero import CENTRAL, NearZero, NearZeroCounter, is_central

BINS = 1 << 14
"""Most bins of a sketch. INT8 has 255 steps, so a step covers at least 32 bins."""
APART = 16
"""Counts between those of two columns: multiples of 4 KB apart, bins of all columns would share few cache lines."""
WIDE = 1 << 12
"""Values side by side that NumPy compares at full speed."""
INT32 = 2**31 - 1
"""Counts are int32 while none can be larger, which halves the memory."""
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
    near: NearZero = field(default_factory=NearZero.nothing)

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


class Sketcher:
    """Fills a sketch batch by batch, in memory that does not grow with the number of values."""

    def __init__(self, *, bins: int = BINS) -> None:
        """`bins` is the most that the sketch may have."""
        self._column = ColumnSketcher(1, bins=bins, near_zero=True)

    def add(self, values: Array, counts: Array | None = None) -> None:
        """Count `values`, float32 of any shape, each as often as `counts` (same shape, 1 or more) says."""
        self._column.add(values.reshape(-1, 1), None if counts is None else counts.reshape(-1, 1))

    def distribution(self) -> Sketch:
        """The sketch so far; nothing at all gives one empty bin at zero."""
        return self._column.distributions()[0]


class ColumnSketcher:
    """Fills a sketch of each column of a matrix, all columns at once; no column has to do with another.

    Bin width is a power of two and bins start at multiples of it, so that widening is exact: two neighbours are added.
    """

    def __init__(self, columns: int, *, bins: int, near_zero: bool = False) -> None:
        """`bins` is the most that a sketch may have. `near_zero` is for one column: values near zero are told apart."""
        self._low = np.full(columns, np.inf)
        self._high = np.full(columns, -np.inf)
        self._width = np.full(columns, FINEST)
        self._first = np.zeros(columns, np.int32)
        self._used = np.zeros(columns, np.int32)  # how many bins, from the first one on
        self._nonfinite = np.zeros(columns, np.int64)
        self._bins = bins
        self._counts = np.zeros((columns, bins + APART), np.int32)
        self._counter = Counter(self._counts.size)
        self._most = 0  # no bin can hold more
        self._near = NearZeroCounter() if near_zero and bins > 2 * CENTRAL else None

    def add(self, values: Array, counts: Array | None = None) -> None:
        """Count `values`, float32 (any, columns), each as often as `counts` (same shape, 1 or more) says.

        Raises ValueError for another number of columns.
        """
        if values.shape[1] != len(self._low):
            raise ValueError(f"there are {len(self._low)} columns, got {values.shape[1]}")
        if not values.size:
            return
        values, finite = np.ascontiguousarray(values), None
        low, high = _reduced(np.minimum, values), _reduced(np.maximum, values)
        if not (np.isfinite(low) & np.isfinite(high)).all():
            finite = np.isfinite(values)
            self._nonfinite += np.sum(np.where(finite, 0, 1 if counts is None else counts), axis=0)
            low = values.min(axis=0, where=finite, initial=np.inf)
            high = values.max(axis=0, where=finite, initial=-np.inf)
            values = np.where(finite, values, np.float32(0.0))
        self._reach(low, high)
        self._most += len(values) if counts is None else int(counts.sum(axis=0).max())
        if self._most > INT32:
            self._counts = self._counts.astype(np.int64, copy=False)
        self._count(values, counts, finite)

    def distributions(self) -> tuple[Sketch, ...]:
        """The sketch of each column so far; nothing at all gives one empty bin at zero."""
        counts = self._counts.astype(np.min_scalar_type(-1 - int(self._counts.max(initial=0))))
        parts = (self._used, self._low, self._high, self._width, self._first, self._nonfinite)
        facts = (part.tolist() for part in parts)
        return tuple(
            Sketch(low, high, width, first, row[:used].copy(), nonfinite, self._near_most(row[:used], first))
            if used
            else Sketch(0.0, 0.0, 1.0, 0, np.zeros(1, counts.dtype), nonfinite)
            for row, used, low, high, width, first, nonfinite in zip(counts, *facts, strict=True)
        )

    def _near_most(self, counts: Array, first: int) -> NearZero:
        """The values near zero, where they are at least half of those that are not zero."""
        if self._near is None:
            return NearZero.nothing()
        near, total = self._near.counted(), int(counts.sum())
        zeros = int(counts[is_central(first + np.arange(len(counts)))].sum()) - near.count
        return near if near.count * 2 >= max(total - zeros, 1) else NearZero.nothing()

    def _count(self, values: Array, counts: Array | None, finite: Array | None) -> None:
        """Count those that are `finite`, all of which the bins cover."""
        columns, apart = self._counts.shape
        size = max(BLOCK // columns, 1) * columns
        # Exact, so a value never falls into a neighbour's bin: float32 times a power of two that is 1 or more.
        scale = (1.0 / self._width).astype(np.float32 if self._width.max() <= 1.0 else np.float64)
        offset = np.arange(columns, dtype=np.int32) * apart - self._first
        if columns > 1:  # one for each value: NumPy is slow where it repeats few
            scale, offset = (np.tile(each, min(size, values.size) // columns) for each in (scale, offset))
        held, flat = self._counts.reshape(-1), values.reshape(-1)
        below_zero, moved = bool(self._low.min() < 0.0), bool(offset.any())
        scratch, numbers = np.empty(min(size, len(flat)), scale.dtype), np.empty(min(size, len(flat)), np.int32)
        for begin in range(0, len(flat), size):
            block = slice(begin, begin + size)
            part = flat[block]
            scaled, places = scratch[: len(part)], numbers[: len(part)]
            np.multiply(part, scale[: len(part)], out=scaled)
            if below_zero:  # a conversion cuts off, toward zero
                np.floor(scaled, out=scaled)
            np.copyto(places, scaled, casting="unsafe")
            if moved:
                places += offset[: len(part)]
            times = None if counts is None else counts.reshape(-1)[block]
            if self._near is not None:
                near = scaled < CENTRAL
                if below_zero:
                    near &= scaled >= -CENTRAL
                near &= part != 0.0
                self._near.add(part, near, times)
            if finite is not None:
                of = finite.reshape(-1)[block]
                places, times = places[of], None if times is None else times[of]
            self._counter.add(held, places, None if times is None else times.astype(held.dtype))

    def _reach(self, low: Array, high: Array) -> None:
        """Make the bins cover [low, high], each (rows,), and what they covered before."""
        grown = np.flatnonzero((low < self._low) | (high > self._high))
        if not len(grown):
            return
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        width = _widened(self._width[grown], self._low[grown], self._high[grown], self._bins)
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
        if self._near is not None:
            taken = is_central(places) & ~is_central(before)
            self._near.take_over((before * self._width[rows][row])[taken], counts[taken])
        self._counts[rows] = 0
        np.add.at(self._counts, (rows[row], places - first[row]), counts)
        self._width[rows], self._first[rows] = width, first


def _reduced(function: np.ufunc, values: Array) -> Array:
    """Reduce each column, (columns,), as many rows side by side as their number can be divided by."""
    rows, columns = values.shape
    beside = math.gcd(rows, max(WIDE // columns, 1))
    folded = function.reduce(values.reshape(rows // beside, beside * columns), axis=0)
    return np.asarray(function.reduce(folded.reshape(beside, columns), axis=0))


def _widened(width: Array, low: Array, high: Array, bins: int) -> Array:
    """`width`, doubled until `bins` bins cover [low, high] and are not finer than float32 can tell apart; (rows,)."""
    most = np.maximum(-low, high)
    for size, parts in ((most, 2.0**24), (high - low, bins + 1.0)):  # the result is never less than size / parts
        width = np.maximum(width, np.where(size > 0.0, np.ldexp(1.0, np.frexp(size / parts)[1] - 1), 0.0))
    while (narrow := (np.floor(high / width) - np.floor(low / width) >= bins) | (most > width * 2.0**24)).any():
        width[narrow] *= 2.0
    return width
