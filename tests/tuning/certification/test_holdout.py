"""Samples that are kept aside: none, some of the evaluation data, or others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.metric import open_metric
from autoquant.evaluation.scoring.baseline import measure_baseline
from autoquant.evaluation.scoring.subset import Part
from autoquant.model.model import InputSpec
from autoquant.tuning.certification.holdout import Held

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

    def __call__(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.run += len(inputs["x"])
        return {"y": inputs["x"]}

    def close(self) -> None:
        self.closed += 1


def test_nothing() -> None:
    held = Held.nothing("too few")
    assert (len(held), held.data, held.reason, held.open) == (0, None, "too few", None)


def test_some_of_the_evaluation_data_was_scored_with_the_rest() -> None:
    data, metric = open_data((X, LABELS), [SPEC]), open_metric("top1")
    baseline = measure_baseline(Model(), data, metric, batch_size=10, key="")
    part = Part.of(data, np.arange(5, 25), metric, baseline)
    held, model = Held.part_of(part), Model()
    assert (len(held), held.reason, held.left_out) == (20, "", 0)
    assert Held.part_of(part, 3).left_out == 3
    assert held.data is part.data
    assert held.open is not None
    assert held.open(model.open, 10) is part
    assert model.opened == 0
    assert part.score.value == 15 / 20


def test_other_data_is_scored_when_it_is_opened() -> None:
    held, model = Held.given(open_data((X, LABELS), [SPEC]), open_metric("top1")), Model()
    assert (len(held), held.reason, model.opened) == (40, "", 0)
    assert held.open is not None
    part = held.open(model.open, 10)
    assert (model.opened, model.closed) == (1, 1)
    assert part.score.value == 0.75
    assert part.score.rows.tolist() == (X.argmax(axis=1) == LABELS).tolist()
    assert part.positions.tolist() == list(range(40))


def test_a_model_that_does_not_run_on_it_is_closed_all_the_same() -> None:
    model = Model()
    held = Held.given(open_data((X, LABELS + 1), [SPEC]), open_metric("top1"))
    assert held.open is not None
    with pytest.raises(DataError, match="--label-offset"):
        held.open(model.open, 10)
    assert model.closed == 1


def test_labels_that_are_missing_are_told_before_the_search() -> None:
    with pytest.raises(DataError, match="labels"):
        Held.given(open_data((X, None), [SPEC]), open_metric("top1"))
