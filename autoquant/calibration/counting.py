"""Counting whole numbers, in compiled code that takes int32 as it is and adds in place."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from autoquant.array import Array

BLOCK = 1 << 16
"""Numbers to count at once: few enough for the cache with all that is made of them, and enough to be worth a call."""
TURNS = 8
"""Numbers among which one that comes often is divided: the same bin again and again takes three times as long."""
INT32 = 2**31 - 1
NOTHING = np.zeros(1, np.int32)


@cache
def first_step() -> Any:
    """How SciPy begins to choose columns of a sparse matrix: it counts how often each is asked for. None without it.

    That is no public part of SciPy, but takes a third of the time of np.add.at and np.bincount, which need 64 bits.
    """
    try:
        from scipy.sparse import _sparsetools
    except ImportError:
        return None
    return getattr(_sparsetools, "csr_column_index1", None)


class Counts:
    """How often each of the numbers 0..bins - 1 was there: `array`, (bins,), int32 while that is enough.

    `most` is what none can be above. One thread at a time.
    """

    def __init__(self, bins: int) -> None:
        self.array = np.zeros(bins, np.int32)
        self.most = 0

    def add(self, numbers: Array, times: Array | None = None, *, most: int | None = None) -> None:
        """Count `numbers`, (any,) int32, each as often as `times`, (any,), says. They must be bins: nobody looks.

        `most` says how often one of them is there at most, where that is less than all.
        """
        self.most += most or (len(numbers) if times is None else int(times.sum()))
        self._fit()
        step = first_step() if times is None and self.array.dtype == np.int32 else None
        if step is not None:
            step(len(numbers), numbers, 0, 1, NOTHING, NOTHING, self.array, NOTHING)
        else:
            one = np.ones((), self.array.dtype) if times is None else times.astype(self.array.dtype)
            np.add.at(self.array, numbers.astype(np.intp), one)

    def add_all(self, counts: Array, start: int = 0) -> None:
        """Add how often each of the numbers from `start` on was there, (any,)."""
        self.most += int(counts.sum())
        self._fit()
        self.array[start : start + len(counts)] += counts

    def clear(self) -> None:
        """Forget all."""
        if self.most:
            self.array[:] = 0
            self.most = 0

    def _fit(self) -> None:
        """Let counts be int64 where one can be larger than INT32."""
        if self.most > INT32:
            self.array = self.array.astype(np.int64, copy=False)


def in_turns(size: int) -> Array:
    """0, 1, ..., TURNS - 1 over and over, (size,) int32, at most BLOCK."""
    return _IN_TURNS[:size]


_IN_TURNS = np.arange(BLOCK, dtype=np.int32) % TURNS
