"""A score, and measuring what it is made of: a metric's rows of every sample of a dataset."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.prefetch import prefetched
from autoquant.evaluation.engines.engine import Runner, run_batch
from autoquant.evaluation.metrics.metric import Metric
from autoquant.quiet import no_progress

OnProgress = Callable[[int, int], None]
"""Called with the number of samples done and of all."""
OnOutputs = Callable[[slice, Outputs], None]
"""Called with the places of a batch's samples in the data, and the model's outputs for them."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value, finite, and its rows, first axis the samples."""

    value: float
    rows: Array

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, got {self.value}")

    @property
    def samples(self) -> int:
        """How many samples were scored."""
        return len(self.rows)


def measure(
    runner: Runner,
    data: Dataset,
    metric: Metric,
    *,
    batch_size: int,
    reference: Callable[[slice], Outputs] | None = None,
    on_progress: OnProgress = no_progress,
    on_outputs: OnOutputs | None = None,
) -> Array:
    """The metric's rows of every sample. `reference` gives FP32 outputs by place, for metrics that compare with them.

    The model runs in a thread of its own, unless the data is at hand, and is at rest when this returns or raises; data
    and metric stay in the caller's thread.

    Raises TrialError where the model does not run or the metric does not take its outputs; DataError where the data
    cannot be read.
    """
    rows: list[Array] = []
    done, total = 0, len(data)
    with prefetched(partial(run_batch, runner), data.batches(batch_size), threaded=not data.at_hand) as pairs:
        for batch, outputs in pairs:
            places = slice(done, done + len(batch))
            wanted = None if reference is None else reference(places)
            with as_trial_error():
                rows.append(metric.measure(outputs, batch.labels, wanted))
            if on_outputs is not None:
                on_outputs(places, outputs)
            done += len(batch)
            on_progress(done, total)
    with as_trial_error():
        return stack_rows(metric, rows)


@contextmanager
def as_trial_error() -> Iterator[None]:
    """Raise a metric's DataError as TrialError: it took the FP32 outputs; what it refuses now is this model's doing."""
    try:
        yield
    except DataError as error:
        raise TrialError(error.where, error.what, hint=error.hint) from error


def stack_rows(metric: Metric, rows: Sequence[Array]) -> Array:
    """The rows of all batches together. Raises DataError where they do not fit."""
    try:
        return np.concatenate(rows)
    except TypeError as error:  # rows that hold whole outputs, of images of several sizes
        what = "the outputs' shapes differ, and per_sample = False"
        raise DataError(f"metric {metric.name}", what, hint="return values per sample, or use one shape") from error


def score_of(metric: Metric, rows: Array) -> Score:
    """The score of the rows of all samples. Raises TrialError where it is no finite number."""
    value = float(metric.combine(rows))
    if not math.isfinite(value):
        hint = "are outputs and labels of one scale? a metric of your own must return finite numbers"
        raise TrialError("metric", f"'{metric.name}' is {value}", hint=hint)
    return Score(value, rows)
