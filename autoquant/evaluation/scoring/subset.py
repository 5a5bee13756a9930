"""Samples of the evaluation data with the FP32 model's score on them, which INT8 models are scored against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, TrialError, UserFunctionError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import prefetched
from autoquant.evaluation.engines.engine import Runner, bounded_batch, run_batch
from autoquant.evaluation.metrics.metric import Metric, OnOutputs, OnProgress, Score, score_of
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.rows import Rows
from autoquant.quiet import no_progress


@dataclass(frozen=True, eq=False)
class EvaluationSubset:
    """Samples, and the FP32 model's score on them. `positions` are theirs in the data of the baseline, ascending."""

    data: Dataset
    positions: Array
    metric: Metric
    score: Score
    baseline: Baseline = field(repr=False)

    @classmethod
    def of(
        cls, evaluation: Dataset, metric: Metric, baseline: Baseline, part: Dataset | None = None
    ) -> EvaluationSubset:
        """A part of the evaluation data, or all of it; the baseline is that of all."""
        if part is None or len(part) == len(evaluation):
            return cls(evaluation, np.arange(len(evaluation)), metric, baseline.score, baseline)
        positions = part.positions_in(evaluation)
        rows = baseline.score.rows[positions]
        return cls(part, positions, metric, Score(float(metric.combine(rows)), rows), baseline)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def margins(self) -> Array | None:
        """How far the FP32 model is from another answer, (samples,), where the metric is of classes."""
        return self.of_samples("margins")

    def drops(self, rows: Array, places: Array) -> Array:
        """How much worse than FP32 the rows of some samples are, (samples,), by place, for rows that are numbers."""
        sign = 1.0 if self.metric.higher_is_better else -1.0
        return np.asarray(sign * (self.score.rows[places].astype(np.float64) - rows))

    def of_samples(self, name: str) -> Array | None:
        """What the baseline knows of each sample, (samples,), by the field's name; None where it does not."""
        known = getattr(self.baseline, name)
        return None if known is None else np.asarray(known[self.positions])

    def evaluate(
        self,
        runner: Runner,
        *,
        batch_size: int,
        on_progress: OnProgress = no_progress,
        on_outputs: OnOutputs | None = None,
    ) -> Score:
        """Score an opened model on all samples. Raises as `measure`, and TrialError for a score that is not finite."""
        rows = self.measure(
            runner, np.arange(len(self)), batch_size=batch_size, on_progress=on_progress, on_outputs=on_outputs
        )
        with _as_trial_error():
            return score_of(self.metric, rows)

    def measure(
        self,
        runner: Runner,
        places: Array,
        *,
        batch_size: int,
        on_progress: OnProgress = no_progress,
        on_outputs: OnOutputs | None = None,
        into: Rows | None = None,
    ) -> Array:
        """The metric's rows of the samples at these ascending places, which are put `into` those of all, or some new.

        There are fewer than `batch_size` samples at a time where their outputs are large (outputs.py). The model runs
        in a thread of its own, unless the data is at hand, and is at rest when this returns or raises; data and metric
        stay in the caller's thread. Raises TrialError where the model does not run or the metric does not take its
        outputs; DataError where the data cannot be read.
        """
        data, metric, done = self.data.subset(places), self.metric, 0
        rows = Rows(metric, len(places)) if into is None else into
        batches = data.batches(bounded_batch(batch_size, self.baseline.sample_bytes, data.inputs))
        known = self.baseline.reference
        with prefetched(partial(run_batch, runner), batches, threaded=not data.at_hand) as pairs:
            for batch, outputs in pairs:
                own = slice(done, done + len(batch))
                reference = None if known is None else known.rows(self.positions[places[own]], batch)
                scored = metric.scored(outputs)
                with _as_trial_error():
                    rows.put(own if into is None else places[own], metric.measure(scored, batch.labels, reference))
                if on_outputs is not None:
                    on_outputs(own, batch, scored)
                done += len(batch)
                on_progress(done, len(data))
        return rows.array


@contextmanager
def _as_trial_error() -> Iterator[None]:
    """Raise a metric's DataError as TrialError: it took the FP32 outputs; what it refuses now is this model's doing.

    But not what a function of the user's raises.
    """
    try:
        yield
    except UserFunctionError:
        raise
    except DataError as error:
        raise TrialError(error.where, error.what, hint=error.hint) from error
