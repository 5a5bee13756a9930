"""The smallest, the largest and the mean value of each channel of a tensor: what repairs are computed from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array


@dataclass(frozen=True, eq=False)
class Moments:
    """Of each channel over everything seen, three vectors (channels,), float64; NaN where a channel held NaN."""

    low: Array
    high: Array
    mean: Array


def collect_moments(parts: Iterable[Mapping[str, Array]], axes: Mapping[str, int]) -> Mapping[str, Moments]:
    """See the tensors that `axes` names, each with the axis that numbers its channels, part by part.

    A tensor that was empty in every part is left out.
    """
    found: dict[str, _Running] = {}
    for part in parts:
        for name, axis in axes.items():
            _see(found, name, np.moveaxis(part[name], axis, -1))
        del part  # what made it may need the memory for the next one
    return {name: running.moments() for name, running in found.items()}


def _see(found: dict[str, _Running], name: str, values: Array) -> None:
    rows = values.reshape(-1, values.shape[-1])
    if len(rows):
        found.setdefault(name, _Running(rows.shape[1])).add(rows)


class _Running:
    """What was seen so far of one tensor."""

    def __init__(self, channels: int) -> None:
        self._low = np.full(channels, np.inf)
        self._high = np.full(channels, -np.inf)
        self._sum = np.zeros(channels)
        self._count = 0

    def add(self, rows: Array) -> None:
        """Take in (values, channels), not empty."""
        self._low = np.minimum(self._low, rows.min(axis=0))
        self._high = np.maximum(self._high, rows.max(axis=0))
        self._sum += rows.sum(axis=0, dtype=np.float64)
        self._count += len(rows)

    def moments(self) -> Moments:
        """Of all of it."""
        return Moments(self._low.astype(np.float64), self._high.astype(np.float64), self._sum / self._count)
