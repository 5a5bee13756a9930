"""What flows through an evaluation: samples, batches of them, and a model's outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from autoquant.array import Array as Array
from autoquant.errors import DataError

Outputs = Mapping[str, Array]
"""A model's outputs for one batch, by name; the first axis is the batch."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples side by side: `inputs` by input name, each (batch, ...); `labels` (batch, ...) where there are any."""

    inputs: Mapping[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


class Sample(NamedTuple):
    """One sample: `inputs` by input name, without the batch axis; `label` without it, or None."""

    inputs: Mapping[str, Array]
    label: Array | None


class SampleSource(Protocol):
    """Raw samples in a fixed order, numbered from 0, that can be read again and again."""

    @property
    def name(self) -> str:
        """What the user called it; errors start with it."""

    @property
    def has_labels(self) -> bool:
        """Whether samples have labels."""

    @property
    def digest(self) -> str:
        """A sha256, in hex, of the raw content."""

    def __len__(self) -> int:
        """How many samples there are; a stream is read once to count them."""

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Raw batches of at most `size` of the chosen samples (ascending; None: all), the others not decoded."""


@contextmanager
def reading(path: Path, kind: type[Exception] = OSError) -> Iterator[None]:
    """Turn an error of this kind into a DataError that names the path."""
    try:
        yield
    except kind as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise DataError(str(path), what, hint="is it still there, and may you read it?") from error


def stacked(samples: Iterable[Sample], size: int) -> Iterator[Batch]:
    """Put samples into batches of `size`; one ends early where the samples' shapes change."""
    group: list[Sample] = []
    for sample in samples:
        if group and _shapes(sample) != _shapes(group[0]):
            yield _stack(group)
            group = []
        group.append(sample)
        if len(group) == size:
            yield _stack(group)
            group = []
    if group:
        yield _stack(group)


def blocks(indices: Array | None, total: int, size: int) -> Iterator[slice | Array]:
    """Subscripts that take the chosen samples `size` at a time; a slice, thus no copy, where they lie side by side."""
    count = total if indices is None else len(indices)
    for start in range(0, count, size):
        stop = min(start + size, count)
        if indices is None:
            yield slice(start, stop)
        elif indices[stop - 1] - indices[start] == stop - 1 - start:
            yield slice(int(indices[start]), int(indices[stop - 1]) + 1)
        else:
            yield indices[start:stop]


def _shapes(sample: Sample) -> tuple[tuple[int, ...] | None, ...]:
    label = None if sample.label is None else sample.label.shape
    return (*(array.shape for array in sample.inputs.values()), label)


def _stack(group: list[Sample]) -> Batch:
    inputs = {name: np.stack([sample.inputs[name] for sample in group]) for name in group[0].inputs}
    labels = [sample.label for sample in group if sample.label is not None]
    return Batch(inputs, np.stack(labels) if labels else None)
