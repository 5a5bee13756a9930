"""What the samples of a dataset hold, input by input: the smallest and the largest value of each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import value_place
from autoquant.evaluation.data.dataset import Dataset
from autoquant.quiet import no_progress

READ = 32
"""Samples that are read at a time."""
USUAL = 0.1
"""The share of samples that may be unusual at either end: the usual range leaves them out."""


class Interval(NamedTuple):
    """Values from `low` to `high`, real units."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.4g}..{self.high:.4g}"


@dataclass(frozen=True, slots=True, eq=False)
class InputSummary:
    """One input of some samples, as the model takes it.

    `low` and `high` are the smallest and the largest value of each sample, (samples,), float64. `identical` says that
    all samples are the same, `size` how many values the smallest sample has, `real` that these are quantities: integers
    may as well be indices.
    """

    low: Array
    high: Array
    identical: bool
    size: int
    real: bool

    @property
    def magnitude(self) -> Array:
        """The largest absolute value of each sample, (samples,)."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)))

    @property
    def whole(self) -> Interval:
        """From the smallest to the largest value of all."""
        return Interval(float(self.low.min()), float(self.high.max()))

    @property
    def usual(self) -> Interval:
        """The same without the samples that reach farthest, a tenth at either end."""
        return Interval(float(np.quantile(self.low, USUAL)), float(np.quantile(self.high, 1.0 - USUAL)))


def summarize(data: Dataset, on_progress: Callable[[int, int], None] = no_progress) -> Mapping[str, InputSummary]:
    """A summary of each input that holds numbers, by its name; `data` has one sample at least.

    Reads all samples. Raises DataError as `Dataset.batches`: NaN and infinities are found here.
    """
    found: dict[str, list[InputSummary]] = {}
    first: dict[str, Array] = {}
    done = 0
    for batch in data.batches(READ):
        for name, array in batch.inputs.items():
            if array.dtype.kind in "fiub":
                first.setdefault(name, array[0].copy())
                found.setdefault(name, []).append(_summary(array, first[name]))
        done += len(batch)
        on_progress(done, len(data))
    return {name: _joined(parts) for name, parts in found.items()}


def farthest(data: Dataset, name: str, position: int) -> tuple[str, float]:
    """Where in a sample, by its position in the data, an input is farthest from 0, for a person; and its value."""
    (batch,) = data.subset(np.array([position])).batches(1)
    sample = np.asarray(batch.inputs[name][0])
    index = np.unravel_index(int(np.abs(sample.astype(np.float64)).argmax()), sample.shape)
    number = position if data.indices is None else int(data.indices[position])
    place = value_place(f"input '{name}'", index)
    return f"sample {number}, {place}", float(sample[index])


def _summary(array: Array, first: Array) -> InputSummary:
    rows, real = array.reshape(len(array), -1), array.dtype.kind == "f"
    same = array.shape[1:] == first.shape and bool((array == first).all())
    if not rows.shape[1]:
        return InputSummary(np.zeros(len(rows)), np.zeros(len(rows)), same, 0, real)
    low, high = rows.min(axis=1).astype(np.float64), rows.max(axis=1).astype(np.float64)
    return InputSummary(low, high, same, rows.shape[1], real)


def _joined(parts: list[InputSummary]) -> InputSummary:
    return InputSummary(
        np.concatenate([part.low for part in parts]),
        np.concatenate([part.high for part in parts]),
        all(part.identical for part in parts),
        min(part.size for part in parts),
        all(part.real for part in parts),
    )
