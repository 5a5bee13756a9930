"""Is the FP32 model fed and scored as it should be? Asked before anything is searched."""

from __future__ import annotations

import numpy as np

from autoquant.errors import DataError, ModelError
from autoquant.evaluation.batch import Array, Outputs
from autoquant.evaluation.labels import class_labels

TOLERANCE = 1e-5
"""Relative difference of two runs that still counts as the same: threads may add numbers up in another order."""
FEW = 10
"""Fewer samples than this prove nothing about a classifier."""
PREPROCESS = "is the preprocessing that of the training? try --preprocess tf, torch or caffe, or --scale, --mean, --std"


def check_deterministic(first: Outputs, second: Outputs) -> None:
    """Two runs of one batch must agree within 1e-5 of the largest output; raises ModelError."""
    for name, array in first.items():
        a, b = array.astype(np.float64), second[name].astype(np.float64)
        largest = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
        with np.errstate(invalid="ignore"):  # infinities: check_finite has a better word for them
            apart = float(np.abs(a - b).max(initial=0.0))
        if not apart <= TOLERANCE * largest:  # NaN is found here too
            what = f"two runs of the same batch differ by {apart:.3g} (outputs go up to {largest:.3g})"
            hint = "the model has random operators (dropout, noise): export it for inference, training=False"
            raise ModelError(f"output '{name}'", what, hint=hint)


def check_finite(outputs: Outputs) -> None:
    """No NaN, no infinity; raises ModelError with the share of samples that have some."""
    for name, array in outputs.items():
        bad = np.any(~np.isfinite(array.reshape(len(array), -1)), axis=1)
        if bad.any():
            what = f"the FP32 model gives NaN or infinity for {bad.sum()} of {len(bad)} samples (first: {bad.argmax()})"
            raise ModelError(f"output '{name}'", what, hint=PREPROCESS)


def check_not_constant(outputs: Outputs, labels: Array | None = None) -> None:
    """The first output must depend on the sample; raises DataError.

    Give it samples from all over the data: a folder sorted by class begins with one class. Always the same class is
    refused for 10 samples and more, unless nine in ten labels are one class too, or labels are no classes.
    """
    name, array = next(iter(outputs.items()))
    rows = array.reshape(len(array), -1)
    if len(rows) < 2:
        return
    if float(np.ptp(rows, axis=0).max(initial=0.0)) <= TOLERANCE * float(np.abs(rows).max(initial=0.0)):
        raise DataError(f"output '{name}'", f"is the same for all {len(rows)} samples", hint=PREPROCESS)
    if rows.shape[1] < 2 or max(array.shape[1:]) != rows.shape[1] or len(rows) < FEW:
        return
    predictions = rows.argmax(axis=1)
    classes = labels is None or (labels.dtype.kind in "iu" and labels.size == len(labels)) or _one_hot(labels)
    if classes and (predictions == predictions[0]).all() and not _one_sided(labels):
        what = f"the FP32 model predicts class {predictions[0]} for all {len(rows)} samples"
        raise DataError(f"output '{name}'", what, hint=PREPROCESS)


def check_label_offset(outputs: Outputs, labels: Array) -> None:
    """Labels must count classes as the model's first output does; raises DataError naming the offset that fits.

    For class scores (batch, classes); anything else passes. Refused are labels that are no class, labels 0..999 for
    1001 outputs where one more fits better, and labels that one more or one less turns from mostly wrong into right
    (top-1 at least doubled, and 20 points higher).
    """
    scores = next(iter(outputs.values()))
    scores = scores.reshape(len(scores), -1)
    classes = scores.shape[1]
    if classes < 2 or labels.size != len(labels) or labels.dtype.kind not in "iu" or not len(labels):
        return
    truth = labels.reshape(-1).astype(np.int64)
    low, high = int(truth.min()), int(truth.max())
    if low >= 1 and high == classes:
        what = f"labels are in {low}..{high}, the model counts its {classes} classes from 0"
        raise DataError("labels", what, hint="use `--label-offset -1`")
    class_labels(truth, classes, "top1")  # refuses what is no class
    predictions = scores.argmax(axis=1)
    right, right_up, right_down = (float(np.mean(predictions == truth + shift)) for shift in (0, 1, -1))
    if classes == 1001 and high <= 999 and right_up > right:
        what = f"labels are in {low}..{high}, the model has 1001 classes, the first of which is the background"
        raise DataError("labels", what, hint="use `--label-offset 1`")
    # Of two classes, one shifted away, nothing can be told: that would be classes in the wrong order.
    better, shift = max((right_up, 1), (right_down, -1))
    if classes > 2 and len(truth) >= FEW and better >= 2 * right and better >= right + 0.2:
        what = f"top-1 is {right:.3f}, and {better:.3f} with all labels shifted by {shift:+d}"
        raise DataError("labels", what, hint=f"use `--label-offset {shift}`")


def check_baseline_above_chance(outputs: Outputs, labels: Array) -> str | None:
    """A warning if the FP32 model's top-1 is not better than always saying the most frequent class; None if it is.

    Only for class scores (batch, classes) with class numbers; None for anything else.
    """
    scores = next(iter(outputs.values()))
    scores = scores.reshape(len(scores), -1)
    if scores.shape[1] < 2 or labels.size != len(labels) or labels.dtype.kind not in "iu" or len(labels) < FEW:
        return None
    truth = labels.reshape(-1)
    right = float(np.mean(scores.argmax(axis=1) == truth))
    guess = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    if right > guess or guess == 1.0:
        return None
    return (
        f"the FP32 model's top-1 is {right:.3f} on {len(truth)} samples; always saying the most frequent class would "
        f"give {guess:.3f}. Are preprocessing and the order of the classes right?"
    )


def _one_hot(labels: Array) -> bool:
    return labels.ndim == 2 and bool(((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all())


def _one_sided(labels: Array | None) -> bool:
    if labels is None or labels.size != len(labels):
        return False
    return bool(np.unique(labels, return_counts=True)[1].max() >= 0.9 * len(labels))
