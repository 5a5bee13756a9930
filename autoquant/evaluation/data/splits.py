"""Samples kept apart: what calibrates, what is searched on and what certifies must not be the same."""

from __future__ import annotations

import numpy as np

from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.data.content import content_hashes, shared
from autoquant.evaluation.data.dataset import Dataset


def without_shared(data: Dataset, other: Dataset) -> Dataset:
    """The samples whose content is not in `other` as well. Raises DataError where none is left."""
    same = shared(content_hashes(data), content_hashes(other))
    if len(same) == len(data):
        what = "has no samples beside those kept for calibration, whose content is the same"
        raise DataError(data.name, what, hint="are all samples alike? give --calibration data of its own")
    return data.subset(np.delete(np.arange(len(data)), same)) if len(same) else data


def fresh(data: Dataset, *others: Dataset) -> Array:
    """Positions of samples whose content is in none of the others, ascending."""
    seen = np.concatenate([content_hashes(other) for other in others])
    return np.delete(np.arange(len(data)), shared(content_hashes(data), seen))


def check_apart(one: str, data: Dataset, another: str, other: Dataset) -> None:
    """Raise DataError where samples of `data` are in `other` as well; `one` and `another` is what they are for."""
    same = shared(content_hashes(data), content_hashes(other))
    if len(same):
        what = f"{len(same)} of {len(data)} samples for {one} are for {another} too (the first is sample {same[0]})"
        hint = f"a score on what was used before is too good: give other data for {one}, or --allow-overlap"
        raise DataError(data.name, what, hint=hint)
