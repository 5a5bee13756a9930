"""Checks that the FP32 model is fed and scored as it should be, before anything is searched."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, ModelError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.classes import are_classes, class_labels, position_scores, predicted
from autoquant.evaluation.metrics.metric import Metric

TOLERANCE = 1e-5
"""Relative difference of two runs that still counts as the same: threads may add numbers up in another order."""
FEW = 10
"""Fewer samples than this prove nothing about a classifier."""
SHUFFLES, SIGNIFICANT = 500, 0.01
"""Random orders of the labels, and the share of them that may be as good as the given one."""
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


def check_finite(outputs: Outputs, numbers: Array | range) -> None:
    """Numbers only, no NaN, no infinity; raises ModelError. `numbers` are those of the samples, (batch,)."""
    for name, array in outputs.items():
        if array.dtype.kind in "OSU":
            raise ModelError(f"output '{name}'", "holds text", hint="choose others with --outputs")
        bad = np.any(~np.isfinite(array.reshape(len(array), -1)), axis=1)
        if bad.any():
            found = f"{bad.sum()} of {len(bad)} samples (first: {numbers[int(bad.argmax())]})"
            raise ModelError(f"output '{name}'", f"the FP32 model returns NaN or infinity for {found}", hint=PREPROCESS)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What an output says of each sample, `numbers` (samples,), among so many `classes`.

    That is the class of the highest score; of a single column 1 where it is above the metric's threshold, else 0.
    """

    output: str
    numbers: Array
    classes: int

    @classmethod
    def of(cls, name: str, scores: Array, metric: Metric) -> Predictions:
        """From scores (batch, classes), or such with axes of length 1. Raises DataError as the metric does."""
        rows = scores.reshape(len(scores), -1)
        numbers = predicted(rows, metric.threshold, metric.name) if rows.shape[1] else np.zeros(len(rows), np.int64)
        return cls(name, numbers, rows.shape[1])


def check_not_constant(low: Outputs, high: Outputs, count: int) -> None:
    """Some output must depend on the sample; raises DataError. From the ends of each value over so many samples."""
    if count > 1 and all(_constant(low[name], high[name]) for name in low):
        where = ", ".join(f"output '{name}'" for name in low)
        raise DataError(where, f"is the same for all {count} samples", hint=PREPROCESS)


def one_position(outputs: Outputs, metric: Metric) -> Array | None:
    """The first output as scores of classes (batch, classes), or None where it has several positions or no scores."""
    array = next(iter(outputs.values()))
    if are_classes(array):
        return None
    scores = position_scores(array, metric.axis, metric.name)
    return np.asarray(scores[:, 0]) if scores.shape[1] == 1 else None


def positions_warning(output: str, classes: Collection[int], count: int) -> str | None:
    """A warning if an output has one class at all positions of all samples, so that INT8 cannot lose anything.

    None for fewer than 10 samples.
    """
    if count < FEW or len(classes) != 1:
        return None
    (only,) = classes
    return f"output '{output}' of the FP32 model has class {only} everywhere in {count} samples; {PREPROCESS}"


def check_not_one_class(predictions: Predictions, labels: Array | None = None) -> None:
    """An output must not favour one class for all samples; raises DataError.

    Give it samples from all over the data: a folder sorted by class begins with one class. Passes for fewer than 10
    samples, and where nine in ten labels are one class too.
    """
    numbers = predictions.numbers
    if predictions.classes < 2 or len(numbers) < FEW:
        return
    if (numbers == numbers[0]).all() and not _one_sided(labels):
        what = f"the FP32 model predicts class {numbers[0]} for all {len(numbers)} samples"
        raise DataError(f"output '{predictions.output}'", what, hint=PREPROCESS)


def check_label_offset(predictions: Predictions, labels: Array) -> None:
    """Labels must count classes as the model's first output does; raises DataError naming the offset that fits.

    Refused are labels that are no class, labels 0..999 for 1001 outputs where one more fits better, and labels that one
    more or one less turns from mostly wrong into right (top-1 at least doubled, and 20 points higher).
    """
    classes, numbers = predictions.classes, predictions.numbers
    if classes < 2 or labels.size != len(labels) or labels.dtype.kind not in "iu" or not len(labels):
        return
    truth = labels.reshape(-1).astype(np.int64)
    class_labels(truth, classes, "top1")  # refuses what is not a class
    right, right_up, right_down = (float(np.mean(numbers == truth + shift)) for shift in (0, 1, -1))
    low, high = truth.min(), truth.max()
    if classes == 1001 and high <= 999 and right_up > right:
        what = f"labels are in {low}..{high}, the model has 1001 classes, the first of which is the background"
        raise DataError("labels", what, hint="use `--label-offset 1`")
    # Of two classes, one shifted away, nothing can be told: that would be classes in the wrong order.
    better, shift = max((right_up, 1), (right_down, -1))
    if classes > 2 and len(truth) >= FEW and better >= 2 * right and better >= right + 0.2:
        what = f"top-1 is {right:.3f}, and {better:.3f} with all labels shifted by {shift:+d}"
        raise DataError("labels", what, hint=f"use `--label-offset {shift}`")


def chance_warning(predictions: Predictions, truth: Array) -> str | None:
    """A warning if the FP32 model's classes could as well be for labels in any other order; None if they could not.

    That is a permutation test: of SHUFFLES random orders of the labels, at most one in a hundred may have as many
    labels right as the given one. It is a warning too if always saying the most frequent class would be as good.
    `truth` are class numbers, (samples,). None for fewer than 10 samples.
    """
    if len(truth) < FEW:
        return None
    right = int((predictions.numbers == truth).sum())
    guess = int(np.unique(truth, return_counts=True)[1].max())
    if guess == len(truth):
        return None
    of_all = f"the FP32 model's top-1 is {right / len(truth):.3f} on {len(truth)} samples"
    if right <= guess:
        most = f"always saying the most frequent class would give {guess / len(truth):.3f}"
        return f"{of_all}; {most}. Are preprocessing and the order of the classes right?"
    by_chance, as_good = _shuffled(predictions.numbers, truth, right)
    if as_good <= SIGNIFICANT:
        return None
    chance = f"labels in random order give {by_chance:.3f}, and as much or more in {as_good:.0%} of {SHUFFLES} orders"
    return f"{of_all}: that proves nothing; {chance}. Do the labels belong to these samples, in this order?"


def _shuffled(predictions: Array, truth: Array, right: int) -> tuple[float, float]:
    """The mean share of right predictions for labels in random order, and the share of orders with as many as `right`.

    The given order counts as one of them.
    """
    rng = np.random.default_rng(0)
    hits = np.array([int((predictions == rng.permutation(truth)).sum()) for _ in range(SHUFFLES - 1)])
    return float(hits.mean()) / len(truth), float(np.append(hits >= right, True).mean())


def _constant(low: Array, high: Array) -> bool:
    low, high = low.astype(np.float64), high.astype(np.float64)
    largest = float(np.maximum(np.abs(low), np.abs(high)).max(initial=0.0))
    return float((high - low).max(initial=0.0)) <= TOLERANCE * largest


def _one_sided(labels: Array | None) -> bool:
    if labels is None or labels.size != len(labels):
        return False
    return bool(np.unique(labels, return_counts=True)[1].max() >= 0.9 * len(labels))
