"""Scoring an opened model on a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Array, Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.prefetch import overlapped
from autoquant.evaluation.engines.engine import Runner, run_batch
from autoquant.evaluation.metrics.metric import Metric
from autoquant.quiet import no_progress

Progress = Callable[[int, int], None]
"""Called with the number of samples done and of all."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value, finite, and its rows, one per sample where the metric has per-sample values."""

    value: float
    rows: Array
    samples: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, got {self.value}")


def evaluate(
    runner: Runner,
    data: Dataset,
    metric: Metric,
    *,
    batch_size: int,
    reference: Callable[[slice], Outputs] | None = None,
    on_progress: Progress = no_progress,
) -> Score:
    """Score every sample. `reference` gives FP32 outputs of samples by place, for metrics that compare with them.

    The model runs in a thread of its own, unless the data is at hand, and is at rest when this returns or raises; data
    and metric stay in the caller's thread.

    Raises TrialError where the model does not run, the metric does not take its outputs, or the score is no finite
    number; DataError where the data cannot be read.
    """
    rows: list[Array] = []
    done, total = 0, len(data)
    with overlapped(partial(run_batch, runner), data.batches(batch_size), threaded=not data.at_hand) as pairs:
        for batch, outputs in pairs:
            wanted = None if reference is None else reference(slice(done, done + len(batch)))
            with _metric_refusing():
                rows.append(metric.measure(outputs, batch.labels, wanted))
            done += len(batch)
            on_progress(done, total)
    with _metric_refusing():
        return score_of(metric, rows, done)


@contextmanager
def _metric_refusing() -> Iterator[None]:
    """The metric has taken the FP32 model's outputs; what it refuses now is this model's doing, not the data's."""
    try:
        yield
    except DataError as error:
        raise TrialError(error.where, error.what, hint=error.hint) from error


def score_of(metric: Metric, rows: Sequence[Array], samples: int) -> Score:
    """The score of the rows of all batches. Raises TrialError where it is no finite number."""
    try:
        stacked = np.concatenate(rows)
    except TypeError as error:  # rows that hold whole outputs, of images of several sizes
        hint = "give values per sample, or data of one shape"
        raise DataError(
            f"metric {metric.name}", "the outputs' shapes differ, and per_sample = False", hint=hint
        ) from error
    value = float(metric.combine(stacked))
    if not math.isfinite(value):
        hint = "are outputs and labels of one scale? a metric of your own must give finite numbers"
        raise TrialError("metric", f"'{metric.name}' is {value}", hint=hint)
    return Score(value, stacked, samples)
