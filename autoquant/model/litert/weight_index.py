"""Finds weights that are alike without comparing each with each: by a number that what may differ does not change."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np

from autoquant.array import Array


@dataclass(frozen=True)
class WeightIndex:
    """Operators by the kind and the size of their weights, and a number of each; those that have none are not there."""

    _sorted: dict[Hashable, tuple[list[float], list[int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[tuple[Hashable, float, int]]) -> WeightIndex:
        """From a group, a number and an index for each operator."""
        groups: dict[Hashable, list[tuple[float, int]]] = {}
        for group, number, operator in entries:
            groups.setdefault(group, []).append((number, operator))
        index = cls()
        for group, own in groups.items():
            numbers, operators = zip(*sorted(own), strict=True)
            index._sorted[group] = list(numbers), list(operators)
        return index

    def near(self, group: Hashable, number: float, within: float) -> list[int]:
        """The operators of a group whose number differs by no more than so much."""
        numbers, operators = self._sorted.get(group, ([], []))
        return operators[bisect_left(numbers, number - within) : bisect_right(numbers, number + within)]

    def all(self, group: Hashable) -> list[int]:
        """The operators of a group."""
        return self._sorted.get(group, ([], []))[1]


def peakedness(weight: Array, axis: int) -> float:
    """The sum over the indices of an axis of mean |w| / max |w|, which no factor for each of these changes.

    Rounding by a share r of the largest value changes each summand by less than 2 r. Infinite where a weight is not
    finite.

    >>> peakedness(np.array([[1.0, 3.0], [-2.0, 0.0]]), axis=0)
    1.1666666666666665
    """
    if not np.isfinite(weight).all():
        return np.inf
    rows = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64))
    largest = rows.max(axis=1, initial=0.0)
    return float((rows.mean(axis=1) / np.where(largest > 0.0, largest, 1.0)).sum())
