"""What a metric is: how it measures the outputs of a batch, and makes one score of the rows of all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError, UsageError, listed
from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.tables import AT_LABEL

AT_OUTPUT = "@output="
"""What comes before the name of the output that a metric scores, at the end of its spelling."""
ANOTHER = "use another metric"
"""The hint of a built-in metric that cannot take these outputs or labels; advice.py says which one can."""
WITHOUT_LABELS = "`--metric sqnr`, which compares any outputs with FP32's, or, of classes, agreement"
OnProgress = Callable[[int, int], None]
"""Called with the number of samples done and of all."""
OnOutputs = Callable[[slice, Batch, Outputs], None]
"""Called with the places of a batch's samples in the data, the batch, and the outputs for it that are scored."""


class Measure(Protocol):
    """Measures the outputs of one batch."""

    def __call__(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """Rows, first axis the batch, from the outputs that the metric scores (`Metric.scored`).

        `reference` is what is `kept` of the FP32 model's, where the metric needs it.

        Raises DataError for labels or outputs that the metric cannot take, TrialError for NaN.
        """
        ...


def mean(rows: Array) -> float:
    """The mean over samples, added up in float64."""
    return float(np.mean(rows, dtype=np.float64))


def whole(outputs: Outputs) -> Outputs:
    """The outputs as they are."""
    return outputs


@dataclass(frozen=True, slots=True)
class Metric:
    """Scores a model's outputs: the one called `output`, else the first, or with `all_outputs` all of them.

    `name` is as written after --metric; `key` identifies the arithmetic: equal keys give equal scores. `kept` is what
    of the FP32 model's outputs is kept, and given as `reference`, where the metric needs them. `combine` makes the
    score of the rows of all batches, put together with np.concatenate. `per_sample` says that rows are numbers (batch,)
    and the score is their mean, and `bounds` what they can be at least and at most, None where that is not known; those
    of a metric of `shares` may be anything between, unless their type is bool. `of_classes` says that outputs are
    scores of classes, on `axis` (classes.py), and labels, where it needs them, are classes: the FP32 margin is then
    that of the `k` highest, or of a single column from the `threshold`.
    """

    name: str
    key: str
    measure: Measure
    combine: Callable[[Array], float] = mean
    higher_is_better: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    kept: Callable[[Outputs], Outputs] = whole
    per_sample: bool = True
    bounds: tuple[float, float] | None = None
    shares: bool = False
    of_classes: bool = False
    axis: int | None = None
    k: int = 1
    threshold: float = 0.5
    output: str = ""
    all_outputs: bool = False

    def names(self, outputs: Iterable[str]) -> tuple[str, ...]:
        """The names, among those of a model's outputs, of what it scores."""
        if self.output:
            return (self.output,)
        return tuple(outputs) if self.all_outputs else (next(iter(outputs)),)

    def scored(self, outputs: Outputs) -> Outputs:
        """Those of a model's outputs that it scores."""
        return {name: outputs[name] for name in self.names(outputs)}

    def reference(self, outputs: Outputs) -> Outputs:
        """What is kept of the FP32 model's outputs."""
        return self.kept(self.scored(outputs))


def require_output(metric: Metric, outputs: Sequence[str]) -> None:
    """Raise UsageError if the metric is to score an output that is none of the model's."""
    if metric.output and metric.output not in outputs:
        near = get_close_matches(metric.output, outputs, n=len(outputs), cutoff=0.0)
        hint = f"its outputs, the nearest first: {', '.join(near)}"
        raise UsageError(f"--metric {metric.name}", f"the model has no output '{metric.output}'", hint=hint)


def require_labels(metric: Metric, data: Dataset) -> None:
    """Raise DataError if the metric needs labels that the data does not have."""
    if metric.needs_labels and not data.has_labels:
        what = f"has no labels, which the metric '{metric.name}' needs"
        others = listed(list(data.source.columns())) if isinstance(data.source, ArraySource) else ""
        add = f"are they {others}? call them 'y', or give FILE.csv{AT_LABEL}NAME" if others else "add them"
        raise DataError(data.name, what, hint=f"{add}, or use {WITHOUT_LABELS}")


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
    require_numbers(name, array)
    return array


def require_numbers(name: str, array: Array) -> None:
    """Raise TrialError if an output has a NaN."""
    if array.dtype.kind == "f" and np.isnan(array).any():
        bad = int(np.isnan(array).reshape(len(array), -1).any(axis=1).sum())
        raise TrialError("metric", f"output '{name}' is NaN for {bad} of {len(array)} samples")


def given_labels(labels: Array | None, who: str) -> Array:
    """The labels; raises DataError for None."""
    if labels is None:
        raise DataError(f"metric {who}", "needs labels", hint=f"use {WITHOUT_LABELS}")
    return labels


def given_reference(reference: Outputs | None, who: str) -> Outputs:
    """The FP32 model's outputs."""
    if reference is None:
        raise ValueError(f"{who} is with the reference outputs, and there are none")
    return reference


def require_shape(name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Raise TrialError where an output has not the shape of the FP32 model's."""
    if shape != wanted:
        what = f"output '{name}' has shape {shape}, the FP32 model's {wanted}"
        raise TrialError("metric", what, hint="what depends on the values in FP32 cannot be compared")


def reachable(done: int, total: int, *, spent: float, left: float, step: int = 1) -> int:
    """Steps that a phase which ends in time comes to: those done in `spent` seconds, and what `left` seconds allow.

    While there are seconds left, that is `step` more at least.

    >>> reachable(10, 200, spent=4.0, left=6.0), reachable(10, 200, spent=4.0, left=0.0)
    (25, 10)
    """
    if left <= 0.0:
        return done
    return min(done + max(step, int(left * done / spent)), total) if spent > 0.0 else total
