"""Metrics of classifiers."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.labels import class_labels, class_scores, first_output, given_labels, predicted
from autoquant.evaluation.metrics.metric import Metric


def top_k(name: str, *, k: int = 1, threshold: float = 0.5) -> Metric:
    """Share of samples whose label is among the k highest scores; of equal scores the lower class comes first.

    With a single output column, samples above the threshold are class 1. Rows: 1.0 right, 0.0 wrong.
    """

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        scores = class_scores(first_output(outputs), name)
        classes = scores.shape[1]
        if k > 1 and classes <= k:
            what = f"the model has {max(classes, 2)} classes: every answer would be right"
            raise DataError(f"metric {name}", what, hint="use --metric top1")
        truth = class_labels(given_labels(labels, name), classes, name)
        if k == 1:
            return np.asarray(predicted(scores, threshold, name) == truth, np.float64)
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        before = (scores > own) | ((scores == own) & (np.arange(classes) < truth[:, None]))
        return np.asarray(before.sum(axis=1) < k, np.float64)

    key = f"{name} k={k} threshold={threshold!r}"
    return Metric(name, key, measure, bounds=(0.0, 1.0), of_classes=True, k=k, threshold=threshold)


def agreement(name: str = "agreement", *, threshold: float = 0.5) -> Metric:
    """Share of samples for which the model predicts the class that the FP32 model predicts."""

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        if reference is None:
            raise ValueError("agreement is with the reference outputs, and there are none")
        ours, theirs = (class_scores(first_output(o), name) for o in (outputs, reference))
        return np.asarray(predicted(ours, threshold, name) == predicted(theirs, threshold, name), np.float64)

    return Metric(
        name,
        f"{name} threshold={threshold!r}",
        measure,
        needs_labels=False,
        needs_reference=True,
        bounds=(0.0, 1.0),
        of_classes=True,
        threshold=threshold,
    )


def area_under_curve() -> Metric:
    """Area under the ROC curve of two classes: how often a positive is above a negative, ties counting half.

    From a single output column, or the second of two minus the first. Rows: (score, label), not per-sample values.
    """
    return Metric("auc", "auc", _scores_and_labels, combine=_area, per_sample=False)


def _scores_and_labels(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
    """(batch, 2): score and label."""
    scores = class_scores(first_output(outputs), "auc").astype(np.float64)
    if scores.shape[1] > 2:
        what = f"is for two classes, the model has {scores.shape[1]}"
        raise DataError("metric auc", what, hint="use --metric top1")
    truth = class_labels(given_labels(labels, "auc"), scores.shape[1], "auc")
    score = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
    return np.stack([score, truth.astype(np.float64)], axis=1)


def _area(rows: Array) -> float:
    """The area, from ranks (Mann-Whitney)."""
    from scipy.stats import rankdata

    positive = rows[:, 1] == 1.0
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        what = f"needs samples of both classes, there are {count} positive and {others} negative ones"
        raise DataError("metric auc", what, hint="give more data")
    rank_sum = float(rankdata(rows[:, 0])[positive].sum())
    return (rank_sum - count * (count + 1) / 2) / (count * others)
