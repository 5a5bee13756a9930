"""Groups of samples that are each held to a tolerance: the classes, or what an array of the data numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.metrics.metric import Metric

CLASS = "class"
READ = 256
"""Samples that are read at a time, for their labels."""


def groups_of(data: Dataset, guard: str) -> Array:
    """The group of each sample, (samples,): its label where `guard` is 'class', else its value in that array.

    Raises DataError where there are no labels, or none that are classes, or no such array; UsageError where data of
    this kind has no arrays.
    """
    if guard == CLASS:
        return _classes(data)
    if not isinstance(data.source, ArraySource):
        raise UsageError(f"--guard {guard}", "is for data in arrays", hint=f"give --guard {CLASS}, or data as .npz")
    column = data.source.column(guard)
    return column if data.indices is None else column[data.indices]


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each sample that certifies, (samples,); `unseen` are others, of which there is none among these."""

    labels: Array
    unseen: tuple[str, ...]

    @classmethod
    def of(cls, labels: Array, everything: Array) -> Groups:
        """Those of the samples that certify, among those of all evaluation samples."""
        return cls(labels, tuple(map(str, np.setdiff1d(everything, labels).tolist())))


def check_guard(data: Dataset, guard: str, metric: Metric) -> None:
    """Raise as `groups_of` does, by a few samples, and UsageError where the metric has no values to guard groups by.

    So that a word mistaken is told before a search, not after it.
    """
    if not metric.per_sample:
        raise UsageError(
            f"--guard {guard}", f"'{metric.name}' has no value for each sample", hint="guard another metric"
        )
    groups_of(data.subset(np.arange(min(len(data), READ))), guard)


def _classes(data: Dataset) -> Array:
    if not data.has_labels:
        raise DataError(data.name, "has no labels, by which classes are guarded", hint="add them, or leave out --guard")
    found = [batch.labels for batch in data.source.read(data.indices, READ) if batch.labels is not None]
    labels = np.concatenate(found)
    if labels.ndim == 2 and labels.shape[1] > 1:
        labels = labels.argmax(axis=1)  # one-hot
    if labels.size != len(data) or not np.array_equal(labels, np.rint(labels)):
        what = f"labels of type {labels.dtype} and shape {labels.shape} are no classes"
        raise DataError(data.name, what, hint="guard what an array of the data numbers instead")
    return labels.reshape(-1).astype(np.int64)
