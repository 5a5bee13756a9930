"""What calibration saw of one tensor, channel by channel: what it takes to balance its channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoquant.calibration.exact import LIMIT, Exact, Keeper
from autoquant.calibration.seen import Collector, Seen
from autoquant.calibration.sketch import RowSketcher, Sketcher
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
        held, times = zip(*(seen.values() for seen in self.each), strict=True)
        parts = [(values / np.float64(f)).astype(np.float32) for values, f in zip(held, factors, strict=True)]
        if exact:  # each value was seen once
            whole.add(np.concatenate(parts))
        else:
            whole.add(np.concatenate(parts), np.concatenate(times))
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
        self._rows: _KeptRows | RowSketcher | None = None

    def add(self, values: Array) -> None:
        """Take in `values`, float32, with as many channels as before. Raises TrialError as `Keeper.add`."""
        last = np.moveaxis(values, self._axis, -1)
        rows = last.reshape(-1, last.shape[-1]).T  # a view of channels that are last in memory
        if self._rows is None:
            self._rows = self._collector(len(rows))
        self._rows.add(rows)

    def seen(self) -> Channels:
        """What has been seen so far; it does not change when more is added."""
        return Channels(self._name, () if self._rows is None else self._rows.seen())

    def _collector(self, channels: int) -> _KeptRows | RowSketcher:
        if self._exact:  # every channel gets as many values as any other
            return _KeptRows([Keeper(self._name, limit=self._limit // channels) for _ in range(channels)])
        return RowSketcher(channels, bins=CHANNEL_BINS)


class _KeptRows:
    """Every value of each row of a matrix."""

    def __init__(self, keepers: Sequence[Keeper]) -> None:
        self._keepers = keepers

    def add(self, values: Array) -> None:
        for keeper, row in zip(self._keepers, values, strict=True):
            keeper.add(row)

    def seen(self) -> tuple[Seen, ...]:
        return tuple(keeper.seen() for keeper in self._keepers)
