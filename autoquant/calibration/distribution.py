"""The distribution of one tensor's values in calibration, and what collects it; and every value, kept in memory.

AMCT's IFMR calibrates on all values; sketch.py is the compact way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError

LIMIT = 2**31 - 1
"""Most values of one tensor, as in AMCT."""
WAY_OUT = 'use act_algo hfmg, or sketches ("exact": false), or a smaller batch_num or batch size'


class Distribution(Protocol):
    """The values of one tensor in calibration: a sketch of them, or all.

    `low` and `high` are the smallest and the largest finite value, `count` the number of finite values, `nonfinite` of
    NaN and infinities.
    """

    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def nonfinite(self) -> int: ...  # noqa: D102
    @property
    def count(self) -> int: ...  # noqa: D102

    def values(self) -> tuple[Array, Array]:
        """Values, ascending, and how often each was seen, two vectors."""
        ...

    def largest(self, k: int) -> float:
        """The k-th largest value, k from 1."""
        ...

    def smallest(self, k: int) -> float:
        """The k-th smallest value, k from 1."""
        ...

    def histogram(self, edges: Array) -> Array:
        """Numbers of values in the bins between ascending `edges`, float64; bins are half open, the last is closed."""
        ...


class Collector(Protocol):
    """Takes in one tensor batch by batch."""

    def add(self, values: Array, counts: Array | None = None) -> None:
        """Take in `values`, float32 of any shape, each as often as `counts` (same shape, whole numbers) says."""
        ...

    def distribution(self) -> Distribution:
        """The distribution so far; it does not change when more is added."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Exact:
    """All values of one tensor: `ordered` are the finite ones, ascending; `nonfinite` counts the others."""

    ordered: Array
    nonfinite: int = 0

    def __post_init__(self) -> None:
        if self.ordered.ndim != 1 or not (self.ordered[:-1] <= self.ordered[1:]).all():  # NaN fails too
            raise ValueError(f"values must be a vector in ascending order, got shape {self.ordered.shape}")

    @property
    def low(self) -> float:
        """The smallest value; 0 where there is none."""
        return self.smallest(1) if self.count else 0.0

    @property
    def high(self) -> float:
        """The largest value; 0 where there is none."""
        return self.largest(1) if self.count else 0.0

    @property
    def count(self) -> int:
        """Number of finite values seen."""
        return len(self.ordered)

    def values(self) -> tuple[Array, Array]:
        """All values, ascending, each seen once."""
        return self.ordered, np.broadcast_to(np.int64(1), self.ordered.shape)

    def largest(self, k: int) -> float:
        """The k-th largest value, k from 1."""
        return float(self.ordered[-k])

    def smallest(self, k: int) -> float:
        """The k-th smallest value, k from 1."""
        return float(self.ordered[k - 1])

    def histogram(self, edges: Array) -> Array:
        """Numbers of values in the bins between ascending `edges`, float64; bins are half open, the last is closed."""
        # Edges become float32 as well, away from what they leave out, lest all values become float64.
        single = edges.astype(np.float32)
        up = np.where(single < edges, np.nextafter(single, np.float32(np.inf)), single)
        down = np.nextafter(single[-1], np.float32(-np.inf)) if single[-1] > edges[-1] else single[-1]
        below = np.searchsorted(self.ordered, up, side="left")
        below[-1] = np.searchsorted(self.ordered, down, side="right")
        return np.diff(below).astype(np.float64)


class ExactCollector:
    """Keeps every value, as float32: four bytes a value, and as much again when they are put in order."""

    def __init__(self, name: str, *, limit: int = LIMIT) -> None:
        """`name` is what errors call the tensor; more values than `limit` raise TrialError."""
        self._name = name
        self._limit = limit
        self._parts: list[Array] = []
        self._count = 0
        self._nonfinite = 0

    def add(self, values: Array, counts: Array | None = None) -> None:
        """Keep `values`, float32 of any shape, each as often as `counts` says.

        Raises TrialError where that is more than the limit or does not fit into memory.
        """
        total = self._count + self._nonfinite + (values.size if counts is None else int(counts.sum()))
        if total > self._limit:
            what = f"calibration is too large: it keeps all values, and {total} are more than {self._limit}"
            raise TrialError(self._name, what, hint=WAY_OUT)
        try:
            every = values if counts is None else np.repeat(values.reshape(-1), counts.reshape(-1))
            finite = np.array(every, np.float32).reshape(-1)
            if not (mask := np.isfinite(finite)).all():
                finite = finite[mask]
        except MemoryError as error:
            raise self._full(total) from error
        self._nonfinite = total - self._count - len(finite)
        self._count += len(finite)
        self._parts.append(finite)

    def distribution(self) -> Exact:
        """All values so far. Raises TrialError where there is no memory to put them in order."""
        try:
            ordered = np.concatenate([np.zeros(0, np.float32), *self._parts])
            ordered.sort()
        except MemoryError as error:
            raise self._full(self._count) from error
        self._parts = [ordered]  # shared: neither changes it
        return Exact(ordered, self._nonfinite)

    def _full(self, count: int) -> TrialError:
        what = f"calibration is too large: it keeps all values, and {count} do not fit into memory"
        return TrialError(self._name, what, hint=WAY_OUT)
