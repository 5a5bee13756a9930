"""The distribution of one tensor's values in calibration, and what collects it."""

from __future__ import annotations

from typing import Protocol

from autoquant.array import Array


class Distribution(Protocol):
    """What calibration saw of one tensor: a sketch of it, or every value.

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
        """What has been seen so far; it does not change when more is added."""
        ...
