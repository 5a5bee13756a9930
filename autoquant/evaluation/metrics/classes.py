"""How outputs and labels are read as classes, one a sample or one at each of its positions."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.metric import ANOTHER, Metric
from autoquant.evaluation.statistics.stream_order import margins_of

SUMS_TO_ONE = 1e-3
"""By how much the sum of probabilities may differ from 1."""
LEAST_SURE = 0.1
"""The quantile of the margins of a sample's positions that is the margin of the sample."""


def are_classes(array: Array) -> bool:
    """Whether an output holds class numbers, as an ArgMax gives them, and no scores."""
    return array.dtype.kind in "iub"


def class_scores(array: Array, who: str) -> Array:
    """An output as (batch, classes); axes of length 1 go. Raises DataError for what is not a score per class."""
    if not _is_one_position(array):
        what = f"takes one score per class, the model's output has shape {shape_text(array)}"
        raise DataError(f"metric {who}", what, hint=ANOTHER)
    scores: Array = array.reshape(len(array), -1)
    return scores


def class_axis(array: Array, axis: int | None, who: str) -> int:
    """Which axis of an output (batch, ...) is that of the classes, counted from 0, the batch's.

    Without an `axis` it is the last one; but where no more than one is longer than 1, it is that one, as for
    `class_scores`. Raises DataError where the output does not have the axis.
    """
    if axis is None:
        long = [number for number, size in enumerate(array.shape) if number and size > 1]
        return long[0] if len(long) == 1 else array.ndim - 1
    if axis == 0 or not -array.ndim < axis < array.ndim:
        what = f"there is no axis {axis}, the model's output has shape {shape_text(array)}"
        raise DataError(f"metric {who}", what, hint="count axes from 0, the batch, or from -1, the last one")
    return axis % array.ndim


def classes_last(array: Array, axis: int | None, who: str) -> Array:
    """An output as (batch, ..., classes), by its `class_axis`; a single score has an axis of its own."""
    rows = array[:, None] if array.ndim == 1 and axis is None else array
    return np.moveaxis(rows, class_axis(rows, axis, who), -1)


def position_scores(array: Array, axis: int | None, who: str) -> Array:
    """An output as (batch, positions, classes), from `classes_last`."""
    scores = classes_last(array, axis, who)
    return scores.reshape(len(array), math.prod(scores.shape[1:-1]), scores.shape[-1])


def predicted_positions(array: Array, axis: int | None, threshold: float, who: str) -> Array:
    """The class at each position, (batch, positions): the number that is there, or that of the highest score."""
    if are_classes(array):
        return array.reshape(len(array), -1).astype(np.int64)
    scores = position_scores(array, axis, who)
    return predicted(scores.reshape(-1, scores.shape[2]), threshold, who).reshape(scores.shape[:2])


def sample_margins(metric: Metric, outputs: Iterable[Array]) -> Array:
    """How far the FP32 model is from another answer, (batch,), from the outputs that a metric of classes scores.

    Of several positions it is a low quantile, of class numbers 0.
    """
    margins = np.concatenate([_position_margins(metric, array) for array in outputs], axis=1)
    return np.asarray(margins[:, 0] if margins.shape[1] == 1 else np.quantile(margins, LEAST_SURE, axis=1))


def _position_margins(metric: Metric, array: Array) -> Array:
    """The margin of each position of an output, (batch, positions)."""
    if are_classes(array):
        return np.zeros((len(array), 1))
    scores = position_scores(array, metric.axis, metric.name)
    margins = margins_of(scores.reshape(-1, scores.shape[2]), metric.threshold, metric.k)
    return margins.reshape(scores.shape[:2])


def sample_classes(metric: Metric, outputs: Outputs) -> Array | None:
    """The class of each sample, int64 (batch,), by the output that a metric of classes scores; None where it has none.

    That is where the metric is not of classes, or a sample has several positions, or outputs.
    """
    if not metric.of_classes or len(outputs) != 1:
        return None
    (array,) = outputs.values()
    if are_classes(array):
        return array.reshape(-1).astype(np.int64) if array.size == len(array) else None
    scores = position_scores(array, metric.axis, metric.name)
    return predicted(scores[:, 0], metric.threshold, metric.name) if scores.shape[1] == 1 else None


def sample_labels(labels: Array) -> Array | None:
    """Labels as int64 class numbers (batch,), of one-hot rows too; None where a sample has several."""
    if labels.ndim == 2 and labels.shape[1] > 1:
        one_hot = np.array_equal(labels, labels.astype(bool)) and (np.count_nonzero(labels, axis=1) == 1).all()
        return np.asarray(labels.argmax(axis=1), np.int64) if one_hot else None
    return labels.reshape(-1).astype(np.int64) if labels.size == len(labels) and labels.dtype.kind in "iubf" else None


def class_labels(labels: Array, classes: int, who: str) -> Array:
    """Labels as int64 class numbers (batch,), from numbers or one-hot rows.

    `classes` is the number of output columns; 1 stands for two classes. Raises DataError for labels that are no
    whole numbers, no classes of the model, or rows that are not one-hot.
    """
    count = max(classes, 2)
    if labels.ndim == 2 and labels.shape[1] == count:
        return class_of_one_hot(labels, -1, who)
    if labels.size != len(labels):
        what = f"labels of shape {shape_text(labels)} are not for {count} classes"
        raise DataError(f"metric {who}", what, hint=f"give class numbers (batch,) or one-hot rows (batch, {count})")
    numbers = whole_numbers(labels.reshape(-1), who)
    if len(numbers) and (numbers.min() < 0 or numbers.max() >= count):
        what = f"labels are in {numbers.min()}..{numbers.max()}, the model has {count} classes (0..{count - 1})"
        from_one = numbers.min() >= 1 and numbers.max() == count
        hint = "use `--label-offset -1`" if from_one else "shift them with --label-offset, e.g. -1 for labels from 1"
        raise DataError(f"metric {who}", what, hint=hint)
    return numbers


def class_of_one_hot(labels: Array, axis: int, who: str) -> Array:
    """The classes, int64, of labels that are 1 at one place along an axis and 0 elsewhere. Raises DataError."""
    if not np.array_equal(labels, labels.astype(bool)) or not (np.count_nonzero(labels, axis=axis) == 1).all():
        raise DataError(f"metric {who}", "label rows are not one-hot", hint="give the numbers of the classes")
    return np.asarray(labels.argmax(axis=axis), np.int64)


def whole_numbers(labels: Array, who: str) -> Array:
    """Labels as int64. Raises DataError for what is not whole."""
    kind = labels.dtype.kind
    if kind not in "iub" and not (kind == "f" and np.array_equal(labels, np.rint(labels))):
        shown = next((label for label in labels.flat if kind != "f" or label != np.rint(label)), None)
        raise DataError(f"metric {who}", f"label {shown!s} ({labels.dtype}) is not a class number", hint=ANOTHER)
    return labels.astype(np.int64)


def predicted(scores: Array, threshold: float, who: str) -> Array:
    """The class of each row of (any, classes); of a single column, 1 where it is above the threshold, else 0.

    A single column is taken for a probability unless the threshold was moved; raises DataError when it is none.
    """
    if scores.shape[1] > 1:
        return np.asarray(scores.argmax(axis=1), np.int64)
    column = scores[:, 0]
    # Rounding of a quantized output may step over the ends a little.
    if threshold == 0.5 and len(column) and (column.min() < -0.1 or column.max() > 1.1):
        what = f"the single output is in {column.min():.3g}..{column.max():.3g}: no probability"
        name, at, settings = who.partition("@")
        hint = f"if it is a logit, use --metric {name}@0{at}{settings}; of other values, --metric sqnr"
        raise DataError(f"metric {who}", what, hint=hint)
    return np.asarray(column > threshold, np.int64)


def shape_text(array: Array) -> str:
    """The shape of outputs or labels for a person: '(batch, 8, 3)'."""
    return f"({', '.join(['batch', *map(str, array.shape[1:])])})"


def _is_one_position(array: Array) -> bool:
    """Whether no more than one axis behind the batch's is longer than 1."""
    return max(array.shape[1:], default=1) == math.prod(array.shape[1:])


def has_probabilities(output: Array) -> bool:
    """Whether an output of which nobody says what it is has probabilities of several classes along its last axis."""
    return output.ndim > 1 and output.shape[-1] > 1 and sum_to_one(output, -1)


def sum_to_one(output: Array, axis: int) -> bool:
    """Whether scores of classes, which `axis` numbers, are in [0, 1] and add up to 1; of a single class, in [0, 1]."""
    within = bool(output.size and (output >= 0.0).all() and (output <= 1.0 + SUMS_TO_ONE).all())
    return within and (output.shape[axis] == 1 or bool((np.abs(output.sum(axis=axis) - 1.0) <= SUMS_TO_ONE).all()))
