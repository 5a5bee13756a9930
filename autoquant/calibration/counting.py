"""Counting whole numbers, in compiled code that takes int32 as it is."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

import numpy as np

from autoquant.array import Array

BLOCK = 1 << 17
"""Numbers to count at once, few enough for the cache and enough to be worth a call."""
SPARSE = 2
"""So many bins for each number to count are more than it takes to fill a vector of them."""


class Counter:
    """Adds to counts how often each of the numbers 0..bins - 1 is there. One thread at a time.

    SciPy multiplies a sparse matrix, whose only column has a one in the row of each number, in about half the time
    that np.add.at and np.bincount take, which need 64 bits. But it fills a vector of all bins: not for few numbers.
    """

    def __init__(self, bins: int) -> None:
        self._bins = bins

    def add(self, counts: Array, numbers: Array, times: Array | None = None) -> None:
        """Count `numbers`, (any,) int32, in `counts`, (bins,) int32 or int64.

        Each counts as often as `times`, (any,) of the type of `counts`, says. Raises IndexError for another number.
        """
        if len(numbers) * SPARSE < self._bins:
            np.add.at(counts, numbers.astype(np.intp), np.ones((), counts.dtype) if times is None else times)
            return
        # SciPy does not look; a negative number is a large one here.
        if int(numbers.view(np.uint32).max()) >= self._bins:
            raise IndexError(f"numbers must be in 0..{self._bins - 1}, got {numbers.min()}..{numbers.max()}")
        column = self._column
        column.data = _ones(len(numbers)) if times is None else times
        column.indices, column.indptr = numbers, np.array([0, len(numbers)], np.int32)
        counts += column @ np.ones(1, column.data.dtype)

    @cached_property
    def _column(self) -> Any:
        """A matrix that is told its entries for each product: making one takes as long as 50,000 entries of it."""
        from scipy.sparse import csc_array

        return csc_array((self._bins, 1), dtype=np.int32)


def _ones(size: int) -> Array:
    """So many ones, which are there already for a block."""
    return _block_of_ones()[:size] if size <= BLOCK else np.ones(size, np.int32)


@cache
def _block_of_ones() -> Array:
    ones = np.ones(BLOCK, np.int32)
    ones.flags.writeable = False
    return ones
