"""What to use where a built-in metric cannot take a model's outputs and labels: one that was tried on them."""

from __future__ import annotations

from collections.abc import Iterator

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.metric import ANOTHER, AT_OUTPUT, Metric
from autoquant.evaluation.metrics.table import open_metric

CANDIDATES = (
    *("top1", "top1@0", "miou", "miou@0", "miou@axis=1", "miou@0@axis=1", "mse", "psnr"),
    *("agreement", "agreement@0", "sqnr"),
)
"""Those that need labels first; the last one takes any outputs."""


def with_alternative(error: DataError, metric: Metric, outputs: Outputs, labels: Array | None) -> DataError:
    """The error of a metric on a batch of the FP32 model's outputs, with a metric in its hint that takes them.

    Errors that have a hint of their own stay as they are.
    """
    if error.hint != ANOTHER:
        return error
    found = next(spec for spec in _candidates(metric, outputs) if _takes(spec, outputs, labels))
    return DataError(error.where, error.what, hint=f"use --metric {found}, or write one of your own (module:function)")


def _candidates(metric: Metric, outputs: Outputs) -> Iterator[str]:
    """The same metric on another output, then all others on the outputs that it is to score."""
    name, at_output, output = metric.name.partition(AT_OUTPUT)
    yield from (f"{name}{AT_OUTPUT}{other}" for other in outputs if len(outputs) > 1 and other != output)
    yield from (f"{spec}{at_output}{output}" for spec in CANDIDATES)


def _takes(spec: str, outputs: Outputs, labels: Array | None) -> bool:
    """Whether a metric takes the outputs of a batch."""
    metric = open_metric(spec)
    scored = metric.scored(outputs)
    try:
        metric.measure(scored, labels, scored)
    except (DataError, TrialError):
        return False
    return True
