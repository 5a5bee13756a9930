"""The built-in metrics: of classes, from class scores and labels in one form, and of values."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.metric import Metric, first_output, given_labels

PSNR_CAP = 100.0
"""dB; equal images would have infinitely many."""


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


def class_scores(array: Array, who: str) -> Array:
    """An output as (batch, classes); axes of length 1 go. Raises DataError for what is not a score per class."""
    scores: Array = array.reshape(len(array), -1)
    if max(array.shape[1:], default=1) != scores.shape[1]:  # more than one axis that is longer than 1
        shape = ", ".join(["batch", *map(str, array.shape[1:])])
        what = f"takes one score per class, the model's output has shape ({shape})"
        hint = "write a metric of your own (module:function), or name the right output with --outputs, if no .tflite"
        raise DataError(f"metric {who}", what, hint=hint)
    return scores


def class_labels(labels: Array, classes: int, who: str) -> Array:
    """Labels as int64 class numbers (batch,), from numbers or one-hot rows.

    `classes` is the number of output columns; 1 stands for two classes. Raises DataError for labels that are no
    whole numbers, no classes of the model, or rows that are not one-hot.
    """
    count = max(classes, 2)
    if labels.ndim == 2 and labels.shape[1] == count:
        if not np.array_equal(labels, labels.astype(bool)) or not (np.count_nonzero(labels, axis=1) == 1).all():
            raise DataError(f"metric {who}", "label rows are not one-hot", hint="give the numbers of the classes")
        return np.asarray(labels.argmax(axis=1), np.int64)
    if labels.size != len(labels):
        what = f"labels of shape {('batch', *labels.shape[1:])} are not for {count} classes".replace("'", "")
        raise DataError(f"metric {who}", what, hint=f"give class numbers (batch,) or one-hot rows (batch, {count})")
    flat = labels.reshape(-1)
    if flat.dtype.kind not in "iub" and not (flat.dtype.kind == "f" and np.array_equal(flat, np.rint(flat))):
        shown = next((label for label in flat if flat.dtype.kind != "f" or label != np.rint(label)), None)
        what = f"label {shown!s} ({flat.dtype}) is not a class number"
        raise DataError(f"metric {who}", what, hint="is it the right metric? mse and psnr compare values")
    numbers = flat.astype(np.int64)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
        what = f"labels are in {numbers.min()}..{numbers.max()}, the model has {count} classes (0..{count - 1})"
        from_one = numbers.min() >= 1 and numbers.max() == count
        hint = "use `--label-offset -1`" if from_one else "shift them with --label-offset, e.g. -1 for labels from 1"
        raise DataError(f"metric {who}", what, hint=hint)
    return numbers


def predicted(scores: Array, threshold: float, who: str) -> Array:
    """The class of each row of (batch, classes); of a single column, 1 where it is above the threshold, else 0.

    A single column is taken for a probability unless the threshold was moved; raises DataError when it is none.
    """
    if scores.shape[1] > 1:
        return np.asarray(scores.argmax(axis=1), np.int64)
    column = scores[:, 0]
    # Rounding of a quantized output may step over the ends a little.
    if threshold == 0.5 and len(column) and (column.min() < -0.1 or column.max() > 1.1):
        what = f"the single output is in {column.min():.3g}..{column.max():.3g}: no probability"
        raise DataError(f"metric {who}", what, hint=f"if it is a logit, use --metric {who}@0")
    return np.asarray(column > threshold, np.int64)


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
        raise DataError(f"metric {who}", what, hint="they must be equal, or write a metric of your own")
    difference = output.reshape(len(output), -1).astype(np.float64) - labels.reshape(len(labels), -1)
    error: Array = np.mean(np.square(difference), axis=1)
    if not np.isfinite(error).all():
        raise TrialError("metric", f"{who} is not finite: the output is infinite")
    return error


def _sizes(array: Array) -> tuple[int, ...]:
    return (len(array), *(n for n in array.shape[1:] if n != 1))
