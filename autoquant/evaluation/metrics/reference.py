"""The built-in metrics that compare with the FP32 model's outputs, all of them, and need no labels."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.classes import predicted_positions
from autoquant.evaluation.metrics.metric import Metric, given_reference, require_numbers, require_shape

SQNR_CAP = 30.0
"""dB; the error is a thousandth of the signal's power, 3 % of its amplitude."""


def agreement(name: str = "agreement", *, threshold: float = 0.5, axis: int | None = None) -> Metric:
    """Share of a sample's positions at which the model predicts the class that the FP32 model predicts.

    The classes are on `axis` (`position_scores`), an output of whole numbers holds classes. Of several outputs it is
    the mean of theirs. Rows: bool where there is one position in all, else shares.
    """

    def classes(outputs: Outputs) -> Outputs:
        for output, array in outputs.items():
            require_numbers(output, array)
        return {output: predicted_positions(each, axis, threshold, name) for output, each in outputs.items()}

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        theirs = given_reference(reference, name)
        parts = []
        for output, ours in classes(outputs).items():
            wanted = predicted_positions(theirs[output], axis, threshold, name)
            require_shape(output, ours.shape, wanted.shape)
            parts.append(ours == wanted)
        if len(parts) == 1 and parts[0].shape[1] == 1:
            return np.asarray(parts[0][:, 0])
        return np.asarray(np.mean([part.mean(axis=1) for part in parts], axis=0))

    return Metric(
        name,
        f"agreement threshold={threshold!r} axis={axis}",
        measure,
        needs_labels=False,
        needs_reference=True,
        kept=lambda outputs: {key: _small(array) for key, array in classes(outputs).items()},
        bounds=(0.0, 1.0),
        shares=True,
        of_classes=True,
        axis=axis,
        threshold=threshold,
        all_outputs=True,
    )


def signal_to_noise(name: str = "sqnr", *, cap: float = SQNR_CAP) -> Metric:
    """10 log10(sum y^2 / sum (y - y_int8)^2) in dB of each sample, y in FP32, from 0 to `cap`; the mean over outputs.

    What is beyond the cap is as good as FP32, which has the cap; an error as large as the signal, or of a signal that
    is zero, has 0.
    """

    def measure(outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        theirs = given_reference(reference, name)
        return np.asarray(np.mean([_decibels(key, outputs[key], theirs[key], cap) for key in outputs], axis=0))

    return Metric(
        name,
        f"sqnr cap={cap!r}",
        measure,
        needs_labels=False,
        needs_reference=True,
        bounds=(0.0, cap),
        all_outputs=True,
    )


def _small(classes: Array) -> Array:
    """Class numbers in as few bytes as they take: maps of scores would have a hundred times as many."""
    ends = classes.min(initial=0), classes.max(initial=0)
    return classes.astype(np.promote_types(*map(np.min_scalar_type, ends)))


def _decibels(name: str, ours: Array, theirs: Array, cap: float) -> Array:
    """(batch,), in float64. Raises TrialError for an output that is not finite."""
    require_numbers(name, ours)
    require_shape(name, ours.shape, theirs.shape)
    if not np.isfinite(ours).all():
        raise TrialError("metric", f"output '{name}' is infinite")
    signal, quantized = (array.reshape(len(array), -1).astype(np.float64) for array in (theirs, ours))
    scale = np.abs(signal).max(axis=1, initial=0.0, keepdims=True)
    scale[scale == 0.0] = 1.0
    with np.errstate(over="ignore"):  # an infinite ratio has 0 dB
        noise = np.square((quantized - signal) / scale).sum(axis=1)
    power = np.square(signal / scale).sum(axis=1)
    found = np.full(len(ours), cap)
    wrong = noise > 0.0
    with np.errstate(divide="ignore"):
        found[wrong] = 10.0 * (np.log10(power[wrong]) - np.log10(noise[wrong]))
    return np.asarray(np.clip(found, 0.0, cap))
