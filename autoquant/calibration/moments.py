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
