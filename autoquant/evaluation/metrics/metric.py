"""How good outputs are: each metric measures one batch at a time and makes one score of all.

To add a metric: one class, one row here. A user's own is a function `f(outputs, labels)`, see user_metric.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import isfinite
from types import MappingProxyType
from typing import Any, Protocol

from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.batch import Array, Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.plugins import load_function, name_of, nearest
from autoquant.evaluation.metrics.classification import Agreement, AreaUnderCurve, TopK
from autoquant.evaluation.metrics.regression import PeakSignalToNoise, SquaredError
from autoquant.evaluation.metrics.user_metric import UserMetric


class Metric(Protocol):
    """Scores a model's outputs. Built-in metrics look at the first output only."""

    @property
    def name(self) -> str:
        """As written after --metric."""

    @property
    def key(self) -> str:
        """Identifies the arithmetic: equal keys give equal scores. Part of digests."""

    @property
    def higher_is_better(self) -> bool:
        """Which way is up."""

    @property
    def needs_labels(self) -> bool:
        """Whether `measure` wants labels."""

    @property
    def needs_reference(self) -> bool:
        """Whether `measure` wants the FP32 model's outputs."""

    @property
    def per_sample(self) -> bool:
        """Whether rows are numbers (batch,) and the score is their mean."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The least and the largest value that a row can have, where rows are numbers; None where that is not known."""

    @property
    def of_classes(self) -> bool:
        """Whether the first output is scores of classes, and labels, where it needs them, are classes."""

    def measure(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """Rows for one batch, first axis the batch.

        Raises DataError for labels or outputs that this metric cannot take, TrialError for NaN.
        """

    def combine(self, rows: Array) -> float:
        """The score, from the rows of all batches put together with np.concatenate."""


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "top1": TopK("top1", 1),
        "top5": TopK("top5", 5),
        "agreement": Agreement(),
        "mse": SquaredError(),
        "psnr": PeakSignalToNoise(),
        "auc": AreaUnderCurve(),
    }
)


def open_metric(spec: str | Callable[..., Any]) -> Metric:
    """A metric by name, 'module:function', or function.

    'top1@0' and 'agreement@0' move the threshold of a model with a single output column from 0.5, which is for
    probabilities, to 0, which is for logits, or elsewhere. Raises UsageError for an unknown name, DataError for a
    function that is not there.
    """
    if not isinstance(spec, str):
        return UserMetric.of(name_of(spec), spec)
    if ":" in spec:
        return UserMetric.of(spec, load_function(spec))
    name, at, threshold = spec.partition("@")
    if name not in METRICS:
        raise UsageError("--metric", f"unknown '{name}'", hint=nearest(name, [*METRICS, "module:function"]))
    metric = METRICS[name]
    if not at:
        return metric
    if not isinstance(metric, Agreement | TopK) or name == "top5":
        raise UsageError("--metric", f"'{name}' has no threshold", hint="top1@0 and agreement@0 have")
    value = _threshold(threshold)
    return metric if value == metric.threshold else replace(metric, name=spec, threshold=value)


def require_labels(metric: Metric, data: Dataset) -> None:
    """Raise DataError if the metric needs labels that the data does not have."""
    if metric.needs_labels and not data.has_labels:
        what = f"has no labels, which the metric '{metric.name}' needs"
        raise DataError(data.name, what, hint="add them, or use `--metric agreement`, which compares with the model")


def _threshold(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value):
        raise UsageError("--metric", f"'{text}' is not a number", hint="write for example top1@0")
    return value
