"""Metrics of classifiers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Array, Outputs
from autoquant.evaluation.metrics.labels import (
    class_labels,
    class_scores,
    first_output,
    given_labels,
    mean_row,
    predicted,
)


@dataclass(frozen=True, slots=True)
class TopK:
    """Share of samples whose label is among the k highest scores; of equal scores the lower class comes first.

    With a single output column, samples above the threshold are class 1. Rows: 1.0 right, 0.0 wrong.
    """

    name: str
    k: int
    threshold: float = 0.5
    higher_is_better: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    per_sample: bool = True
    of_classes: bool = True
    bounds: tuple[float, float] | None = (0.0, 1.0)

    @property
    def key(self) -> str:
        """Its name and parameters."""
        return f"{self.name} k={self.k} threshold={self.threshold!r}"

    def measure(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """1.0 where the label is among the k highest."""
        scores = class_scores(first_output(outputs), self.name)
        classes = scores.shape[1]
        if self.k > 1 and classes <= self.k:
            what = f"the model has {max(classes, 2)} classes: every answer would be right"
            raise DataError(f"metric {self.name}", what, hint="use --metric top1")
        truth = class_labels(given_labels(labels, self.name), classes, self.name)
        if self.k == 1:
            return np.asarray(predicted(scores, self.threshold, self.name) == truth, np.float64)
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        before = (scores > own) | ((scores == own) & (np.arange(classes) < truth[:, None]))
        return np.asarray(before.sum(axis=1) < self.k, np.float64)

    def combine(self, rows: Array) -> float:
        """The share of right answers."""
        return mean_row(rows)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of samples for which the model predicts the class that the FP32 model predicts."""

    name: str = "agreement"
    threshold: float = 0.5
    higher_is_better: bool = True
    needs_labels: bool = False
    needs_reference: bool = True
    per_sample: bool = True
    of_classes: bool = True
    bounds: tuple[float, float] | None = (0.0, 1.0)

    @property
    def key(self) -> str:
        """Its name and threshold."""
        return f"{self.name} threshold={self.threshold!r}"

    def measure(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """1.0 where both predict the same."""
        if reference is None:
            raise ValueError("agreement is with the reference outputs, and there are none")
        ours, theirs = (class_scores(first_output(o), self.name) for o in (outputs, reference))
        same = predicted(ours, self.threshold, self.name) == predicted(theirs, self.threshold, self.name)
        return np.asarray(same, np.float64)

    def combine(self, rows: Array) -> float:
        """The share of equal predictions."""
        return mean_row(rows)


@dataclass(frozen=True, slots=True)
class AreaUnderCurve:
    """Area under the ROC curve of two classes: how often a positive is above a negative, ties counting half.

    From a single output column, or the second of two minus the first. Rows: (score, label), not per-sample values.
    """

    name: str = "auc"
    higher_is_better: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    per_sample: bool = False
    of_classes: bool = False
    bounds: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        """Its name."""
        return self.name

    def measure(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """(batch, 2): score and label."""
        scores = class_scores(first_output(outputs), self.name).astype(np.float64)
        if scores.shape[1] > 2:
            what = f"is for two classes, the model has {scores.shape[1]}"
            raise DataError("metric auc", what, hint="use --metric top1")
        truth = class_labels(given_labels(labels, self.name), scores.shape[1], self.name)
        score = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
        return np.stack([score, truth.astype(np.float64)], axis=1)

    def combine(self, rows: Array) -> float:
        """The area, from ranks (Mann-Whitney)."""
        from scipy.stats import rankdata

        positive = rows[:, 1] == 1.0
        count, others = int(positive.sum()), int((~positive).sum())
        if not count or not others:
            what = f"needs samples of both classes, there are {count} positive and {others} negative ones"
            raise DataError("metric auc", what, hint="give more data")
        rank_sum = float(rankdata(rows[:, 0])[positive].sum())
        return (rank_sum - count * (count + 1) / 2) / (count * others)
