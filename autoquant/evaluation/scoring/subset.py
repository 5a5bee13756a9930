"""A part of the evaluation data with what the FP32 model made of it: what an INT8 model is scored against."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autoquant.evaluation.data.batch import Array, Outputs
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.evaluator import Score


@dataclass(frozen=True, eq=False)
class Part:
    """Samples, and the FP32 model's score on them. `positions` are theirs in the data of the baseline, ascending."""

    data: Dataset
    positions: Array
    metric: Metric
    score: Score
    baseline: Baseline = field(repr=False)

    @classmethod
    def of(cls, data: Dataset, positions: Array, metric: Metric, baseline: Baseline) -> Part:
        """The samples of `data` at these positions; the baseline is that of all of `data`."""
        whole = len(positions) == len(data)
        rows = baseline.score.rows[positions]
        score = baseline.score if whole else Score(float(metric.combine(rows)), rows, len(positions))
        return cls(data if whole else data.subset(positions), positions, metric, score, baseline)

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def margins(self) -> Array | None:
        """How far the FP32 model is from another answer, (samples,), where the metric is of classes."""
        return None if self.baseline.margins is None else self.baseline.margins[self.positions]

    def reference(self, places: Array) -> Outputs:
        """The FP32 outputs of samples of this part, by place in it, for a metric that needs them."""
        return self.baseline.reference(self.positions[places])

    def losses(self, rows: Array, places: Array) -> Array:
        """How much worse than FP32 the rows of some samples are, (samples,), by place, for rows that are numbers."""
        sign = 1.0 if self.metric.higher_is_better else -1.0
        return np.asarray(sign * (self.score.rows[places].astype(np.float64) - rows))
