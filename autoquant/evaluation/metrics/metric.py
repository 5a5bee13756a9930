"""What a metric is: how it measures the outputs of a batch, and makes one score of the rows of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.data.dataset import Dataset

OnProgress = Callable[[int, int], None]
"""Called with the number of samples done and of all."""
OnOutputs = Callable[[slice, Outputs], None]
"""Called with the places of a batch's samples in the data, and the model's outputs for them."""


class Measure(Protocol):
    """Measures the outputs of one batch."""

    def __call__(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """Rows, first axis the batch; `reference` are the FP32 model's outputs, where the metric needs them.

        Raises DataError for labels or outputs that the metric cannot take, TrialError for NaN.
        """
        ...


def mean(rows: Array) -> float:
    """The mean over samples, added up in float64."""
    return float(np.mean(rows, dtype=np.float64))


@dataclass(frozen=True, slots=True)
class Metric:
    """Scores a model's outputs; built-in metrics look at the first output only.

    `name` is as written after --metric; `key` identifies the arithmetic: equal keys give equal scores. `combine` makes
    the score of the rows of all batches, put together with np.concatenate. `per_sample` says that rows are numbers
    (batch,) and the score is their mean, and `bounds` what they can be at least and at most, None where that is not
    known. `of_classes` says that the first output is scores of classes, and labels, where it needs them, are classes:
    the FP32 margin is then that of the `k` highest, or of a single column from the `threshold`.
    """

    name: str
    key: str
    measure: Measure
    combine: Callable[[Array], float] = mean
    higher_is_better: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    per_sample: bool = True
    bounds: tuple[float, float] | None = None
    of_classes: bool = False
    k: int = 1
    threshold: float = 0.5


def require_labels(metric: Metric, data: Dataset) -> None:
    """Raise DataError if the metric needs labels that the data does not have."""
    if metric.needs_labels and not data.has_labels:
        what = f"has no labels, which the metric '{metric.name}' needs"
        raise DataError(data.name, what, hint="add them, or use `--metric agreement`, which compares with the model")


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


def first_output(outputs: Outputs) -> Array:
    """The first output; raises TrialError if it has a NaN."""
    name, array = next(iter(outputs.items()))
    if array.dtype.kind == "f" and np.isnan(array).any():
        bad = int(np.isnan(array).reshape(len(array), -1).any(axis=1).sum())
        raise TrialError("metric", f"output '{name}' is NaN for {bad} of {len(array)} samples")
    return array


def given_labels(labels: Array | None, who: str) -> Array:
    """The labels; raises DataError for None."""
    if labels is None:
        raise DataError(f"metric {who}", "needs labels", hint="use `--metric agreement`, which does without")
    return labels
