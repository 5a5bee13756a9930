"""Metrics that compare values with values."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.metrics.labels import first_output, given_labels
from autoquant.evaluation.metrics.metric import Metric

PSNR_CAP = 100.0
"""dB; equal images would have infinitely many."""


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
