"""What a metric is: how it measures the outputs of a batch, and makes one score of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.data.dataset import Dataset


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
