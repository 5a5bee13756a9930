"""Units of samples: those that belong together, such as windows of one recording, and go into one part of the data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from autoquant.array import Array
from autoquant.errors import UsageError
from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.images import ImageFolder
from autoquant.evaluation.data.records import RecordSource

IDENTIFIES = re.compile(r"(^|[/_])(id|key|group|unit|patient|subject|speaker|video|clip|recording|session|scene)s?$")
"""What an array or a feature of a record is called that says what samples belong together; also with _id behind it."""
NUMBERED = re.compile(r"(.*[^\W_])[\W_]+[a-z]{0,8}\d+", re.IGNORECASE)
"""A name that ends with a number, perhaps of a `frame` or `slice`, and what stands before it."""
UNIT = "--unit"
TOGETHER = 2
"""Samples a group, on average, from which on they clearly come in groups."""


def column_of(data: Dataset, name: str, option: str) -> Array:
    """One value of each sample, (samples,), from the array of this name, which `option` asks for.

    Raises DataError where there is no such array, UsageError where data of this kind has none.
    """
    if not isinstance(data.source, ArraySource):
        hint = "give data as .npz, or as arrays by name"
        raise UsageError(f"{option} {name}", "is the name of an array, and this data has none", hint=hint)
    column = data.source.column(name, option)
    return column if data.indices is None else column[data.indices]


def units_of(data: Dataset, name: str) -> Array | None:
    """The unit of each sample, (samples,), from the array of this name; None where none is named. Raises as above."""
    return column_of(data, name, UNIT) if name else None


def largest_unit(*parts: Array) -> int:
    """The number of samples of the largest unit in any of these."""
    return max(int(np.unique(labels, return_counts=True)[1].max()) for labels in parts)


def suspected_groups(data: Dataset) -> str:
    """What tells that samples come in groups that may belong together; empty where nothing does."""
    source = data.source
    if isinstance(source, ImageFolder):
        return _grouped("file names", [_beginning(name) for name in source.names], classes=source.classes)
    if isinstance(source, RecordSource):
        for feature, values in source.identifiers(IDENTIFIES).items():
            if text := _grouped(f"values of '{feature}'", values, classes=1):
                return text
    if isinstance(source, ArraySource):
        for name, column in source.columns().items():
            named = IDENTIFIES.search(name.removesuffix("_id").lower())
            if named and (text := _grouped(f"values of the array '{name}'", column.tolist(), classes=1)):
                return text
    return ""


def _beginning(name: str) -> str:
    """What a name has in common with others that are numbered like it; the name itself where it has no number.

    >>> _beginning("scans/patient12_slice003"), _beginning("a/7f3c")
    ('scans/patient12', 'a/7f3c')
    """
    found = NUMBERED.fullmatch(name)
    return found[1] if found else name


def _grouped(what: str, values: Iterable[object], *, classes: int) -> str:
    """A sentence where values repeat, in more groups than there are classes."""
    counts = Counter(values)
    if len(counts) < TOGETHER * max(classes, 1) or counts.total() < TOGETHER * len(counts):
        return ""
    most, size = counts.most_common(1)[0]
    return f"{what} are in {len(counts):,} groups, the largest '{most}' of {size:,}"
