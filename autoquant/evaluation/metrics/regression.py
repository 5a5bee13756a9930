"""Metrics that compare values with values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Array, Outputs
from autoquant.evaluation.metrics.labels import first_output, given_labels, mean_row

PSNR_CAP = 100.0
"""dB; equal images would have infinitely many."""


@dataclass(frozen=True, slots=True)
class SquaredError:
    """Mean squared difference between output and label, in float64; the mean over samples of the mean in each."""

    name: str = "mse"
    higher_is_better: bool = False
    needs_labels: bool = True
    needs_reference: bool = False
    per_sample: bool = True
    of_classes: bool = False
    bounds: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        """Its name."""
        return self.name

    def measure(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """The mean squared difference of each sample."""
        return _squared_error(first_output(outputs), given_labels(labels, self.name), self.name)

    def combine(self, rows: Array) -> float:
        """The mean."""
        return mean_row(rows)


@dataclass(frozen=True, slots=True)
class PeakSignalToNoise:
    """10 log10(peak^2 / mse) in dB of each image, their mean; peak 255 for integer labels, else 1; at most 100 dB."""

    name: str = "psnr"
    higher_is_better: bool = True
    needs_labels: bool = True
    needs_reference: bool = False
    per_sample: bool = True
    of_classes: bool = False
    bounds: tuple[float, float] | None = None

    @property
    def key(self) -> str:
        """Its name."""
        return self.name

    def measure(self, outputs: Outputs, labels: Array | None, reference: Outputs | None) -> Array:
        """The ratio of each image, in dB."""
        truth = given_labels(labels, self.name)
        peak = 255.0 if truth.dtype.kind in "iu" else 1.0
        error = _squared_error(first_output(outputs), truth, self.name)
        ratio: Array = -10.0 * np.log10(np.maximum(error / peak**2, 10.0 ** (-PSNR_CAP / 10.0)))
        return ratio

    def combine(self, rows: Array) -> float:
        """The mean over images."""
        return mean_row(rows)


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
