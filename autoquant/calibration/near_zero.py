"""Bins for values close to zero, as fine as these values are small: what a single value far away leaves of a sketch.

One value a million times as large as the others puts these into one bin of equal bins, and no percentile finds them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autoquant.array import Array

CENTRAL = 128
"""Equal bins on either side of zero that are divided further: behind them a bin is 1/128 of its values at most."""
KEYS = 1 << 16
SHIFT, SIGN, ONE = np.uint32(16), np.uint32(31), np.uint32(1)
LEAST = 2.0**-133
"""Where the bin above zero ends."""


@dataclass(frozen=True, slots=True, eq=False)
class NearZero:
    """How many values there are of each key, (keys,) both; zeros are not among them.

    A key is the upper half of a float32, its sign, exponent and 7 bits of its fraction, so that a bin is 1/128 of its
    values or less. The bins of negative values are one unit in the last place farther down: half open, as others are.
    """

    keys: Array
    counts: Array

    @classmethod
    def nothing(cls) -> NearZero:
        """No values."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64))

    @property
    def count(self) -> int:
        """Number of values."""
        return int(self.counts.sum())

    def bins(self, reach: float, zeros: int) -> tuple[Array, Array]:
        """Edges, ascending from -reach to reach, float64, and the number of values in each bin between them.

        `zeros` is how often zero was seen.
        """
        ends = (_value(self.keys), _value(self.keys + 1))
        below = np.minimum(*ends)
        edges = np.unique(np.concatenate([[-reach, 0.0, LEAST, reach], *ends]))
        counts = np.zeros(len(edges) - 1, np.int64)
        np.add.at(counts, np.searchsorted(edges, np.append(below, 0.0)), np.append(self.counts, zeros))
        return edges, counts


class NearZeroCounter:
    """Counts the values of one tensor that are near zero: within CENTRAL equal bins of a width that only grows.

    When it grows, bins that come to be near zero are taken over as they are: each lies within one bin of a key.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(KEYS, np.int64)

    def add(self, values: Array, near: Array, times: Array | None = None) -> None:
        """Count those of `values`, float32 (any,), that are `near` zero, (any,) bool: in a central bin, and not zero.

        Each is counted as often as `times`, (any,), says. The least negative number counts as zero.
        """
        chosen = np.flatnonzero(near)
        if not len(chosen):
            return
        bits = _shifted(values[chosen])
        if not (kept := (bits << ONE) != 0).all():
            bits, chosen = bits[kept], chosen[kept]
        self._count(bits, np.int64(1) if times is None else times[chosen].astype(np.int64))

    def take_over(self, lows: Array, counts: Array) -> None:
        """Count all values in bins that begin at `lows`."""
        self._count(_shifted(lows.astype(np.float32)), counts.astype(np.int64))

    def counted(self) -> NearZero:
        """What was counted so far."""
        keys = np.flatnonzero(self._counts)
        return NearZero(keys, self._counts[keys])

    def _count(self, bits: Array, times: Any) -> None:
        np.add.at(self._counts, (bits >> SHIFT).astype(np.intp), times)


def _shifted(values: Array) -> Array:
    """The bits of float32 values, of negative ones less 1: so that their bins are half open as others are."""
    bits = values.view(np.uint32)
    return np.asarray(bits - (bits >> SIGN))


def is_central(places: Array) -> Array:
    """Which numbers of equal bins are near zero."""
    return np.asarray((places >= -CENTRAL) & (places < CENTRAL))


def _value(keys: Array) -> Array:
    """The float32 whose upper half is the key, as float64."""
    return np.asarray((keys.astype(np.uint32) << SHIFT).view(np.float32).astype(np.float64))
