"""The mean intersection over union of segmentation maps."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.classes import (
    are_classes,
    class_of_one_hot,
    classes_last,
    position_scores,
    predicted_positions,
    shape_text,
    whole_numbers,
)
from autoquant.evaluation.metrics.metric import ANOTHER, Metric, first_output, given_labels

NUMBERED = 255
"""Classes that an output of class numbers can have, 0 to 254; nobody says how many it has."""


def mean_iou(name: str = "miou", *, threshold: float = 0.5, axis: int | None = None) -> Metric:
    """Intersection over union of each class, over the positions of all samples, and the mean over classes that occur.

    Labels are class numbers, one for each position, or one-hot. Positions whose label is no class of the model are not
    counted, as 255 and -1 customarily say. Rows, (batch, 3, classes) int64, count positions where prediction and label
    are a class both, the predictions, and the labels: not per-sample values.
    """

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        array = first_output(outputs)
        classes = NUMBERED if are_classes(array) else max(position_scores(array, axis, name).shape[2], 2)
        truth = _label_positions(given_labels(labels, name), array, axis, name)
        guess = predicted_positions(array, axis, threshold, name)
        if guess.min(initial=0) < 0 or guess.max(initial=0) >= classes:
            what = f"the output holds class numbers {guess.min()}..{guess.max()}"
            raise DataError(f"metric {name}", what, hint=f"they must be in 0..{classes - 1}")
        counted = (truth >= 0) & (truth < classes)
        parts = [(guess, counted & (guess == truth)), (guess, counted), (truth, counted)]
        return np.stack([_counts(numbers, where, classes) for numbers, where in parts], axis=1)

    return Metric(
        name,
        f"miou threshold={threshold!r} axis={axis}",
        measure,
        combine=_mean_over_classes,
        per_sample=False,
        of_classes=True,
        axis=axis,
        threshold=threshold,
    )


def _counts(numbers: Array, where: Array, classes: int) -> Array:
    """How often each class is there, (batch, classes), from (batch, positions) of which some count."""
    samples = len(numbers)
    keys = (numbers + classes * np.arange(samples)[:, None])[where]
    return np.bincount(keys, minlength=samples * classes).reshape(samples, classes).astype(np.uint32)


def _mean_over_classes(rows: Array) -> float:
    both, guessed, labelled = rows.sum(axis=0)
    if np.count_nonzero(labelled) < 2:
        named = ", ".join(map(str, np.flatnonzero(labelled))) or "none"
        what = f"needs labels of several classes, of those of the model there are: {named}"
        raise DataError("metric miou", what, hint="classes count from 0, so a mask of 0 and 255 must be one of 0 and 1")
    union = guessed + labelled - both
    return float(np.mean(both[union > 0] / union[union > 0]))


def _label_positions(labels: Array, output: Array, axis: int | None, who: str) -> Array:
    """The label at each position, (batch, positions), int64. Raises DataError where they do not fit the output."""
    shape = output.shape
    if not are_classes(output):
        scores = classes_last(output, axis, who)
        if scores.shape[-1] > 1 and labels.shape == output.shape:
            return class_of_one_hot(position_scores(labels, axis, who), -1, who)
        shape = scores.shape[:-1]
    if [n for n in labels.shape[1:] if n != 1] != [n for n in shape[1:] if n != 1]:
        what = f"the model's output has shape {shape_text(output)}, labels have {shape_text(labels)}"
        raise DataError(f"metric {who}", f"takes a class number for each position; {what}", hint=ANOTHER)
    return whole_numbers(labels.reshape(len(labels), -1), who)
