"""The holdout: how many samples it takes, and the FP32 model on it: some of the evaluation data, or others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.splits import DataSplits
from autoquant.evaluation.metrics.metric import Metric
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import measure_baseline
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.evaluation.statistics.bounds import FEWEST
from autoquant.evaluation.statistics.paired import least_bounded, least_samples
from autoquant.model.model import InputSpec
from autoquant.tuning.certification.holdout import holdout_subset, least_certifiable

SPEC = InputSpec("x", np.dtype(np.float32), (None, 3))
X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
LABELS = np.where(np.arange(40) < 10, (X.argmax(axis=1) + 1) % 3, X.argmax(axis=1))


class Model:
    """Gives its input; counts how often it is opened, run and closed."""

    def __init__(self) -> None:
        self.opened = self.run = self.closed = 0

    def open(self) -> Model:
        self.opened += 1
        return self

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self.run += len(inputs["x"])
        return {"y": inputs["x"]}

    def close(self) -> None:
        self.closed += 1


def splits(labels: Array) -> DataSplits:
    """A holdout of some of the evaluation data."""
    data = open_data((X, labels), [SPEC])
    return replace(DataSplits.of(data, data), holdout=data.subset(np.arange(5, 25)))


def own(labels: Array) -> DataSplits:
    """A holdout of its own."""
    data = open_data((X[10:], LABELS[10:]), [SPEC])
    return DataSplits.of(data, data, open_data((X, labels), [SPEC]))


def subset(splits: DataSplits, model: Model) -> EvaluationSubset:
    metric = open_metric("top1")
    baseline = measure_baseline(Model(), splits.evaluation, metric, batch_size=10, key="")
    return holdout_subset(splits, baseline, metric, model.open, 10)


def test_some_of_the_evaluation_data_was_scored_with_the_rest() -> None:
    model = Model()
    part = subset(splits(LABELS), model)
    assert part.positions.tolist() == list(range(5, 25))
    assert part.score.value == 15 / 20
    assert model.opened == 0


def test_a_holdout_of_its_own_is_scored_now() -> None:
    model = Model()
    part = subset(own(LABELS), model)
    assert (model.opened, model.closed) == (1, 1)
    assert part.score.value == 0.75
    assert part.score.rows.tolist() == (X.argmax(axis=1) == LABELS).tolist()
    assert part.positions.tolist() == list(range(40))


def test_a_model_that_does_not_run_on_it_is_closed_all_the_same() -> None:
    model = Model()
    with pytest.raises(DataError, match="--label-offset"):
        subset(own(LABELS + 1), model)
    assert model.closed == 1


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
        (open_metric("agreement"), RIGHT == 1, 0.05, least_samples(0.05, 0.95)),
        (open_metric("agreement"), RIGHT, 0.05, least_bounded(0.05, 0.95, reach=1.0)),
        (open_metric("sqnr"), 30 * RIGHT, 1.5, least_bounded(0.05, 0.95, reach=1.0)),
    ],
    ids=[
        *("right answers", "tolerance of 0", "no bounds", "bounds", "bounds, and only right or wrong"),
        *("one answer a sample", "shares", "decibels"),
    ],
)
def test_least_certifiable(metric: Metric, rows: Array, allowed: float, least: int | None) -> None:
    assert least_certifiable(metric, rows, max_drop=allowed, confidence=0.95) == least
