"""What calibration saw of one tensor, channel by channel: what it takes to balance its channels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoquant.calibration.exact import LIMIT, Exact, Keeper
from autoquant.calibration.seen import Collector, Seen
from autoquant.calibration.sketch import Sketcher
from autoquant.quantization.affine import Array

CHANNEL_BINS = 1 << 10
"""Most bins of the sketch of one channel."""


@dataclass(frozen=True, eq=False)
class Channels:
    """One tensor, channel by channel: all are sketches, or all are exact. `name` is what errors call the tensor."""

    name: str
    each: tuple[Seen, ...]

    @property
    def largest(self) -> Array:
        """The largest absolute value of each channel, float64, exact."""
        return np.array([max(-seen.low, seen.high) for seen in self.each])

    def divided(self, factors: Array) -> Seen:
        """What would have been seen of the whole tensor, had each channel been divided by its factor, (channels,)."""
        exact = all(isinstance(seen, Exact) for seen in self.each)
        whole: Collector = Keeper(self.name) if exact else Sketcher()
        for seen, factor in zip(self.each, factors, strict=True):
            values, counts = seen.values()
            whole.add((values / np.float64(factor)).astype(np.float32), counts)
        nonfinite = np.array([seen.nonfinite for seen in self.each])
        whole.add(np.full(len(nonfinite), np.nan, np.float32), nonfinite)
        return whole.seen()


class ChannelCollector:
    """Takes in one tensor batch by batch, each channel by itself."""

    def __init__(self, name: str, axis: int, *, exact: bool = False, limit: int = LIMIT) -> None:
        """`axis` numbers the channels. `exact` keeps every value, at most `limit` in all channels together."""
        self._name = name
        self._axis = axis
        self._exact = exact
        self._limit = limit
        self._each: list[Collector] = []

    def add(self, values: Array) -> None:
        """Take in `values`, float32, with as many channels as before. Raises TrialError as `Keeper.add`."""
        rows = np.ascontiguousarray(np.moveaxis(values, self._axis, 0))
        self._each = self._each or [self._collector(len(rows)) for _ in rows]
        for collector, row in zip(self._each, rows, strict=True):
            collector.add(row)

    def seen(self) -> Channels:
        """What has been seen so far; it does not change when more is added."""
        return Channels(self._name, tuple(collector.seen() for collector in self._each))

    def _collector(self, channels: int) -> Collector:
        if self._exact:  # every channel gets as many values as any other
            return Keeper(self._name, limit=self._limit // channels)
        return Sketcher(bins=CHANNEL_BINS)
