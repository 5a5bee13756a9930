"""How many samples a holdout takes."""

from __future__ import annotations

import numpy as np
import pytest

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.score import Score
from autoquant.evaluation.statistics.bca import FEWEST
from autoquant.evaluation.statistics.paired import least_bounded, least_samples
from autoquant.tuning.certification.holdout import least_certifiable

RIGHT, VALUES = np.ones(1000), np.random.default_rng(1).random(1000)
BOUNDED = Metric("overlap", "overlap", lambda outputs, labels, reference: outputs["y"], bounds=(0.0, 1.0))


@pytest.mark.parametrize(
    ("metric", "rows", "allowed", "least"),
    [
        (open_metric("top1"), RIGHT, 0.01, least_samples(0.01, 0.95)),
        (open_metric("top1"), RIGHT, 0.0, None),
        (open_metric("psnr"), VALUES, 0.1, FEWEST),
        (BOUNDED, VALUES, 0.05, least_bounded(0.05, 0.95, reach=1.0)),
        (BOUNDED, RIGHT, 0.05, least_samples(0.05, 0.95)),
    ],
    ids=["right answers", "tolerance of 0", "no bounds", "bounds", "bounds, and only right or wrong"],
)
def test_least_certifiable(metric: Metric, rows: Array, allowed: float, least: int | None) -> None:
    baseline = Baseline("", (), Score(float(rows.mean()), rows))
    assert least_certifiable(metric, baseline, max_drop=allowed, confidence=0.95) == least
