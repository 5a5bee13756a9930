"""The rows of a metric, put together sample by sample in one array."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.decoding import free_memory
from autoquant.evaluation.metrics.metric import Metric

LARGE = 1 << 30
"""Bytes of rows that a person should know of."""


class Rows:
    """The rows of so many samples, by place; zeros where none were put yet.

    A metric that is called once, with the outputs of all samples, has all of them as its rows: then it is known from
    the first batch on whether there is memory for them.
    """

    def __init__(self, metric: Metric, total: int) -> None:
        self._metric = metric
        self._total = total
        self.array: Array = np.zeros(total)
        self._begun = False

    def put(self, places: slice | Array, rows: Array) -> None:
        """Put in the rows of a batch. Raises DataError where they do not fit those before, or memory."""
        if not self._begun:
            self._refuse_too_many(rows)
            self.array = np.zeros((self._total, *rows.shape[1:]), rows.dtype)
            self._begun = True
        if rows.dtype != self.array.dtype:
            try:
                self.array = self.array.astype(np.promote_types(rows.dtype, self.array.dtype), copy=False)
            except TypeError as error:  # rows that hold whole outputs, of images of several sizes
                raise self._misfit() from error
        if rows.shape[1:] != self.array.shape[1:]:
            raise self._misfit()
        self.array[places] = rows

    def warnings(self) -> Iterator[str]:
        """What a person should know of the memory that they take."""
        if self.array.nbytes > LARGE:
            size = size_text(self.array.nbytes)
            name = self._metric.name
            yield f"metric '{name}' takes the outputs of all samples at once: {size} of memory, twice during a trial"

    def _refuse_too_many(self, rows: Array) -> None:
        needed, free = rows.nbytes // max(len(rows), 1) * self._total, free_memory()
        if free is not None and needed > free:
            what = f"takes the outputs of all {self._total} samples at once: {size_text(needed)} of memory"
            hint = f"{size_text(free)} are free; return one value a sample, or give fewer samples"
            raise DataError(f"metric {self._metric.name}", what, hint=hint)

    def _misfit(self) -> DataError:
        what = "the outputs' shapes differ, and per_sample = False"
        return DataError(f"metric {self._metric.name}", what, hint="return values per sample, or use one shape")


def size_text(size: int) -> str:
    """Bytes for a person.

    >>> size_text(5_368_709_120), size_text(3_000_000)
    ('5.4 GB', '3 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
