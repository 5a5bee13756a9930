"""What calibration saw of one tensor, channel by channel: what it takes to balance its channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import LIMIT, Collector, Distribution, Exact, ExactCollector
from autoquant.calibration.sketch import RowSketcher, Sketcher

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
        """What would have been seen of the whole tensor, had each channel been divided by its factor, (channels,)."""
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
        self._rows: _ExactRows | RowSketcher | None = None

    def add(self, values: Array) -> None:
        """Take in `values`, float32, with as many channels as before. Raises TrialError as `ExactCollector.add`."""
        last = np.moveaxis(values, self._axis, -1)
        rows = last.reshape(-1, last.shape[-1]).T  # a view of channels that are last in memory
        if self._rows is None:
            self._rows = self._collector(len(rows))
        self._rows.add(rows)

    def channels(self) -> Channels:
        """What has been seen so far; it does not change when more is added."""
        return Channels(self._name, () if self._rows is None else self._rows.distributions())

    def _collector(self, channels: int) -> _ExactRows | RowSketcher:
        if self._exact:  # every channel gets as many values as any other
            return _ExactRows([ExactCollector(self._name, limit=self._limit // channels) for _ in range(channels)])
        return RowSketcher(channels, bins=CHANNEL_BINS)


class _ExactRows:
    """Every value of each row of a matrix."""

    def __init__(self, collectors: Sequence[ExactCollector]) -> None:
        self._collectors = collectors

    def add(self, values: Array) -> None:
        for collector, row in zip(self._collectors, values, strict=True):
            collector.add(row)

    def distributions(self) -> tuple[Distribution, ...]:
        return tuple(collector.distribution() for collector in self._collectors)
