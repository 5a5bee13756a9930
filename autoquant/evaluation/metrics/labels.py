"""Class scores and labels of classifiers, in one form."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs


def first_output(outputs: Outputs) -> Array:
    """The first output; raises TrialError if it has a NaN."""
    name, array = next(iter(outputs.items()))
    if array.dtype.kind == "f" and np.isnan(array).any():
        bad = int(np.isnan(array).reshape(len(array), -1).any(axis=1).sum())
        raise TrialError("metric", f"output '{name}' is NaN for {bad} of {len(array)} samples")
    return array


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


def given_labels(labels: Array | None, who: str) -> Array:
    """The labels; raises DataError for None."""
    if labels is None:
        raise DataError(f"metric {who}", "needs labels", hint="use `--metric agreement`, which does without")
    return labels
