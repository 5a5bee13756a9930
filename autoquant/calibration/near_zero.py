"""Bins for values close to zero, as fine as these values are small: what a single value far away leaves of a sketch.

One value a million times as large as the others puts these into one bin of equal bins, and no percentile finds them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.counting import TURNS, Counts

CENTRAL = 128
"""Equal bins on either side of zero that are divided further: behind them a bin is 1/128 of its values at most."""
KEYS = 1 << 16
SHIFT, SIGN = 16, 31
ZEROS = TURNS
"""Keys that count as zero: those of numbers below 2^-130."""
MINUS_ZERO = 0x7FFF
"""The key of -0.0, which is no number's otherwise."""
LEAST = ZEROS * 2.0**-133
"""Where the bin above zero ends."""


@dataclass(frozen=True, slots=True, eq=False)
class NearZero:
    """How many values there are of each key, (keys,) both; zeros are not among them.

    A key is the upper half of a float32, its sign, exponent and 7 bits of its fraction, so that a bin is 1/128 of its
    values or less. The bins of negative values are one unit in the last place farther down: half open, as others are.
    """

    keys: Array
    counts: Array

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    @property
    def lows(self) -> Array:
        """Where the bin of each key begins, (keys,) float64."""
        return np.maximum(np.minimum(_value(self.keys), _value(self.keys + 1)), -(2.0**128))  # which is no float32

    def bins(self, reach: float, zeros: int) -> tuple[Array, Array]:
        """Edges, ascending from -reach to reach, float64, and the number of values in each bin between them.

        `zeros` is how often zero was seen.
        """
        ends = (_value(self.keys), _value(self.keys + 1))
        edges = np.unique(np.concatenate([[-reach, 0.0, LEAST, reach], *ends]))
        counts = np.zeros(len(edges) - 1, np.int64)
        np.add.at(counts, np.searchsorted(edges, np.append(self.lows, 0.0)), np.append(self.counts, zeros))
        return edges, counts


NOTHING_NEAR = NearZero(np.zeros(0, np.int64), np.zeros(0, np.int64))


class KeyCounter:
    """Counts values of one tensor by key. Which keys are near zero, and so matter, is for others to know."""

    def __init__(self) -> None:
        self.counts = Counts(KEYS)

    def add(self, values: Array, room: Array, times: Array | None = None) -> None:
        """Count `values`, float32 (any,), each as often as `times` says. `room`, as many int32, is overwritten."""
        bits, keys = values.view(np.uint32), room.view(np.uint32)
        np.right_shift(bits, np.uint32(SIGN), out=keys)
        np.subtract(bits, keys, out=keys)  # so that bins of negative values are half open as others are
        np.right_shift(keys, np.uint32(SHIFT), out=keys)
        self.counts.add(room, times)

    def take_over(self, lows: Array, counts: Array) -> None:
        """Count values in bins that begin at `lows`, (bins,), each within one of a key, and no others of these keys."""
        keys = (_shifted(lows.astype(np.float32)) >> np.uint32(SHIFT)).astype(np.intp)
        self.counts.array[keys] = 0
        np.add.at(self.counts.array, keys, counts.astype(self.counts.array.dtype))

    def near(self, reach: float) -> NearZero:
        """What lies in [-reach, reach), a power of two, and is not zero."""
        held = self.counts.array != 0
        held[:ZEROS] = held[MINUS_ZERO] = False
        keys = np.flatnonzero(held)
        near = NearZero(keys, self.counts.array[keys].astype(np.int64))
        within = (near.lows >= -reach) & (near.lows < reach)
        return NearZero(near.keys[within], near.counts[within])

    @property
    def zeros(self) -> int:
        """How often there was zero."""
        return int(self.counts.array[:ZEROS].sum()) + int(self.counts.array[MINUS_ZERO])


def _shifted(values: Array) -> Array:
    """The bits of float32 values, of negative ones less 1: so that their bins are half open as others are."""
    bits = values.view(np.uint32)
    return np.asarray(bits - (bits >> np.uint32(SIGN)))


def is_central(places: Array) -> Array:
    """Which numbers of equal bins are near zero."""
    return np.asarray((places >= -CENTRAL) & (places < CENTRAL))


def _value(keys: Array) -> Array:
    """The float32 whose upper half is the key, as float64."""
    return np.asarray((keys.astype(np.uint32) << np.uint32(SHIFT)).view(np.float32).astype(np.float64))
