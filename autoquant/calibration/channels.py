"""What calibration saw of tensors channel by channel: what it takes to balance channels, and to repair layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.column_sketcher import ColumnSketcher
from autoquant.calibration.distribution import LIMIT, Collector, Distribution, Exact, ExactCollector
from autoquant.calibration.sketcher import Sketcher

CHANNEL_BINS = 1 << 10
"""Most bins of the sketch of one channel."""


@dataclass(frozen=True, eq=False)
class Channels:
    """One tensor, channel by channel: all are sketches, or all are exact. `name` is what errors call the tensor."""

    name: str
    each: tuple[Distribution, ...]

    @property
    def largest(self) -> Array:
        """The largest absolute value of each channel, float64, exact."""
        return np.array([max(-one.low, one.high) for one in self.each])

    def divided(self, factors: Array) -> Distribution:
        """The distribution of the whole tensor, each channel divided by its factor, (channels,)."""
        exact = all(isinstance(one, Exact) for one in self.each)
        whole: Collector = ExactCollector(self.name) if exact else Sketcher()
        values, times = zip(*(one.values() for one in self.each), strict=True)
        parts = [(each / np.float64(f)).astype(np.float32) for each, f in zip(values, factors, strict=True)]
        if exact:  # each value was seen once
            whole.add(np.concatenate(parts))
        else:
            whole.add(np.concatenate(parts), np.concatenate(times))
        nonfinite = np.array([one.nonfinite for one in self.each])
        whole.add(np.full(len(nonfinite), np.nan, np.float32), nonfinite)
        return whole.distribution()


class ChannelCollector:
    """Takes in one tensor batch by batch, each channel by itself."""

    def __init__(self, name: str, axis: int, *, exact: bool = False, limit: int = LIMIT) -> None:
        """`axis` numbers the channels. `exact` keeps every value, at most `limit` in all channels together."""
        self._name = name
        self._axis = axis
        self._exact = exact
        self._limit = limit
        self._sketches: ColumnSketcher | None = None
        self._values: list[ExactCollector] = []

    def add(self, values: Array) -> None:
        """Take in `values`, float32, with as many channels as before. Raises TrialError as `ExactCollector.add`."""
        last = np.moveaxis(values, self._axis, -1)
        matrix = last.reshape(-1, last.shape[-1])  # a view of channels that are last in memory
        if self._exact:  # every channel gets as many values as any other
            each = self._limit // matrix.shape[1]
            self._values = self._values or [ExactCollector(self._name, limit=each) for _ in matrix.T]
            for collector, column in zip(self._values, matrix.T, strict=True):
                collector.add(column)
        else:
            self._sketches = self._sketches or ColumnSketcher(matrix.shape[1], bins=CHANNEL_BINS)
            self._sketches.add(matrix)

    def channels(self) -> Channels:
        """The channels so far; they do not change when more is added."""
        exact = tuple(collector.distribution() for collector in self._values)
        return Channels(self._name, exact if self._sketches is None else self._sketches.distributions())


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
    sums: dict[str, tuple[Moments, int]] = {}
    for part in parts:
        for name, axis in axes.items():
            values = np.moveaxis(part[name], axis, -1)
            rows = values.reshape(-1, values.shape[-1])
            if len(rows):
                sums[name] = _added(sums.get(name), rows)
            del values, rows
        del part  # what made it may need the memory for the next one
    return {name: Moments(of.low, of.high, of.mean / count) for name, (of, count) in sums.items()}


def _added(before: tuple[Moments, int] | None, rows: Array) -> tuple[Moments, int]:
    """Moments with sums for means, and their number of values, after some more: (values, channels), not empty."""
    low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    total = rows.sum(axis=0, dtype=np.float64)
    if before is None:
        return Moments(low, high, total), len(rows)
    of, count = before
    return Moments(np.minimum(of.low, low), np.maximum(of.high, high), of.mean + total), count + len(rows)
