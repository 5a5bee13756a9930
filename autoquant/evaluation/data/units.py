"""Units of samples: those that belong together, such as windows of one recording, and go into one part of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.image_names import beginning, pattern_of
from autoquant.evaluation.data.images import ImageFolder
from autoquant.evaluation.data.records import RecordSource

IDENTIFIES = re.compile(r"(^|[/_])(id|key|group|unit|patient|subject|speaker|video|clip|recording|session|scene)s?$")
"""What an array or a feature of a record is called that says what samples belong together; also with _id behind it."""
UNIT = "--unit"
TOGETHER = 2
"""Samples a group, on average, from which on they clearly come in groups."""


class Suspicion(NamedTuple):
    """What tells that samples come in groups that may belong together, and the `unit` that would say so."""

    text: str
    unit: str


def column_of(data: Dataset, name: str, option: str) -> Array:
    """One value of each sample, (samples,), numbers or text: what `option` names.

    That is an array, of arrays or of a function's batches; a feature of TFRecords; what a regular expression finds in
    the path of an image. Raises DataError where there is no such, saying what there is; UsageError for no expression.
    """
    column = data.source.column(name, option)
    column = column if data.indices is None else column[data.indices]
    if column.dtype.kind in "OS":
        column = np.asarray([one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in column])
    return column


def units_of(data: Dataset, name: str) -> Array | None:
    """The unit of each sample, (samples,), as this names it; None where none is named. Raises as above."""
    return column_of(data, name, UNIT) if name else None


def largest_unit(*parts: Array) -> int:
    """The number of samples of the largest unit in any of these."""
    return max(int(np.unique(labels, return_counts=True)[1].max()) for labels in parts)


def suspected_groups(data: Dataset) -> Suspicion | None:
    """What tells that samples come in groups that may belong together; None where nothing does."""
    source = data.source
    if isinstance(source, ImageFolder):
        groups = [beginning(name) for name in source.names]
        text = _grouped("file names", groups, classes=source.classes)
        return Suspicion(text, pattern_of(source.paths, groups)) if text else None
    if isinstance(source, RecordSource):
        columns, what = source.identifiers(IDENTIFIES), "values of"
    elif isinstance(source, ArraySource | FunctionSource):
        columns, what = {name: column.tolist() for name, column in source.columns().items()}, "values of the array"
    else:
        return None
    for name, values in columns.items():
        named = IDENTIFIES.search(name.removesuffix("_id").lower())
        if named and (text := _grouped(f"{what} '{name}'", values, classes=1)):
            return Suspicion(text, name)
    return None


def _grouped(what: str, values: Iterable[object], *, classes: int) -> str:
    """A sentence where values repeat, in more groups than there are classes."""
    counts = Counter(values)
    if len(counts) < TOGETHER * max(classes, 1) or counts.total() < TOGETHER * len(counts):
        return ""
    most, size = counts.most_common(1)[0]
    return f"{what} are in {len(counts):,} groups, the largest '{most}' of {size:,}"
