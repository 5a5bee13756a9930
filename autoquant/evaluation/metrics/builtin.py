"""The built-in metrics of one output and its labels: of classes, from class scores, and of values."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.classes import class_labels, class_scores, predicted
from autoquant.evaluation.metrics.metric import ANOTHER, Metric, first_output, given_labels

PSNR_CAP = 100.0
"""dB; equal images would have infinitely many."""


def top_k(name: str, *, k: int = 1, threshold: float = 0.5) -> Metric:
    """Share of samples whose label is among the k highest scores; of equal scores the lower class comes first.

    With a single output column, samples above the threshold are class 1. Rows: 1.0 right, 0.0 wrong.
    """

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        scores = class_scores(first_output(outputs), name)
        classes = scores.shape[1]
        truth = class_labels(given_labels(labels, name), classes, name)
        if k > 1 and classes <= k:
            what = f"the model has {max(classes, 2)} classes: every answer would be right"
            raise DataError(f"metric {name}", what, hint=ANOTHER)
        if k == 1:
            return np.asarray(predicted(scores, threshold, name) == truth, np.float64)
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        before = (scores > own) | ((scores == own) & (np.arange(classes) < truth[:, None]))
        return np.asarray(before.sum(axis=1) < k, np.float64)

    key = f"top{k} k={k} threshold={threshold!r}"
    return Metric(name, key, measure, bounds=(0.0, 1.0), of_classes=True, k=k, threshold=threshold)


def area_under_curve() -> Metric:
    """Area under the ROC curve of two classes: how often a positive is above a negative, ties counting half.

    From a single output column, or the second of two minus the first. Rows: (score, label), not per-sample values.
    """
    return Metric("auc", "auc", _scores_and_labels, combine=_area, per_sample=False)


def _scores_and_labels(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
    """(batch, 2): score and label."""
    scores = class_scores(first_output(outputs), "auc").astype(np.float64)
    truth = class_labels(given_labels(labels, "auc"), scores.shape[1], "auc")
    if scores.shape[1] > 2:
        what = f"is for two classes, the model has {scores.shape[1]}"
        raise DataError("metric auc", what, hint=ANOTHER)
    score = scores[:, 0] if scores.shape[1] == 1 else scores[:, 1] - scores[:, 0]
    return np.stack([score, truth.astype(np.float64)], axis=1)


def _area(rows: Array) -> float:
    """The area, from ranks (Mann-Whitney)."""
    positive = rows[:, 1] == 1.0
    count, others = int(positive.sum()), int((~positive).sum())
    if not count or not others:
        what = f"needs samples of both classes, there are {count} positive and {others} negative ones"
        raise DataError("metric auc", what, hint="give more data")
    if np.isnan(rows[:, 0]).any():
        return np.nan
    ordered, own = np.sort(rows[:, 0]), np.sort(rows[positive, 0])
    ranks = (ordered.searchsorted(own, "left") + ordered.searchsorted(own, "right") + 1) / 2  # ties have their mean
    rank_sum = float(ranks.sum())
    return (rank_sum - count * (count + 1) / 2) / (count * others)


def mean_squared_error() -> Metric:
    """Mean squared difference between output and label, in float64; the mean over samples of the mean in each."""

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        return _squared_error(first_output(outputs), given_labels(labels, "mse"), "mse")

    return Metric("mse", "mse", measure, higher_is_better=False)


def peak_signal_to_noise() -> Metric:
    """10 log10(peak^2 / mse) in dB of each image, their mean; peak 255 for integer labels, else 1; at most 100 dB."""

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        truth = given_labels(labels, "psnr")
        peak = 255.0 if truth.dtype.kind in "iu" else 1.0
        error = _squared_error(first_output(outputs), truth, "psnr")
        ratio: Array = -10.0 * np.log10(np.maximum(error / peak**2, 10.0 ** (-PSNR_CAP / 10.0)))
        return ratio

    return Metric("psnr", "psnr", measure)


def _squared_error(output: Array, labels: Array, who: str) -> Array:
    """(batch,), in float64; raises DataError for different shapes, TrialError for infinite differences."""
    if _sizes(output) != _sizes(labels):
        what = f"outputs have shape {output.shape}, labels {labels.shape}"
        raise DataError(f"metric {who}", what, hint=ANOTHER)
    difference = output.reshape(len(output), -1).astype(np.float64) - labels.reshape(len(labels), -1)
    error: Array = np.mean(np.square(difference), axis=1)
    if not np.isfinite(error).all():
        raise TrialError("metric", f"{who} is not finite: the output is infinite")
    return error


def _sizes(array: Array) -> tuple[int, ...]:
    return (len(array), *(n for n in array.shape[1:] if n != 1))
