"""The FP32 model on the holdout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import numpy as np

from autoquant.evaluation.data.splits import DataSplits
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.scoring.baseline import Baseline, measure_baseline
from autoquant.evaluation.scoring.subset import Part


def holdout_subset(
    splits: DataSplits, metric: Metric, baseline: Baseline, opened: Callable[[], Runner], batch_size: int
) -> Part:
    """The holdout, which there is, with the FP32 model's score on it.

    That is part of the `baseline` of the evaluation data, or, of a holdout of its own, measured now: `opened` opens the
    FP32 model.
    """
    data = splits.holdout
    assert data is not None
    if not splits.has_own_holdout:
        return Part.of(splits.evaluation, data.positions_in(splits.evaluation), metric, baseline)
    with closing(opened()) as runner:
        own = measure_baseline(runner, data, metric, batch_size=batch_size, key="")
    return Part.of(data, np.arange(len(data)), metric, own)
