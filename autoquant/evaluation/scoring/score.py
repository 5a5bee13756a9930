"""A score, and the rows of a metric that it is made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.metric import Metric

OnProgress = Callable[[int, int], None]
"""Called with the number of samples done and of all."""
OnOutputs = Callable[[slice, Outputs], None]
"""Called with the places of a batch's samples in the data, and the model's outputs for them."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value, finite, and its rows, first axis the samples."""

    value: float
    rows: Array

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, got {self.value}")

    @property
    def samples(self) -> int:
        """How many samples were scored."""
        return len(self.rows)


def stack_rows(metric: Metric, rows: Sequence[Array]) -> Array:
    """The rows of all batches together. Raises DataError where they do not fit."""
    try:
        return np.concatenate(rows)
    except TypeError as error:  # rows that hold whole outputs, of images of several sizes
        what = "the outputs' shapes differ, and per_sample = False"
        raise DataError(f"metric {metric.name}", what, hint="return values per sample, or use one shape") from error


def score_of(metric: Metric, rows: Array) -> Score:
    """The score of the rows of all samples. Raises TrialError where it is no finite number."""
    value = float(metric.combine(rows))
    if not math.isfinite(value):
        hint = "are outputs and labels of one scale? a metric of your own must return finite numbers"
        raise TrialError("metric", f"'{metric.name}' is {value}", hint=hint)
    return Score(value, rows)
