"""Scores against NumPy, with runners that are plain functions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Never

import numpy as np
import pytest
from references import cached_reference

from autoquant.array import Array
from autoquant.errors import ModelError, TrialError, UserFunctionError
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.preprocessing import Custom
from autoquant.evaluation.engines.engine import run_batch
from autoquant.evaluation.metrics.metric import Score
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.model import InputSpec

SPEC = InputSpec("x", np.dtype(np.float32), (None, 4))


class Fake:
    """A model that is a function of its input."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {"y": self.function(inputs["x"])}

    def close(self) -> None:
        """Nothing to close."""


def subset(data: Dataset, metric: Any, outputs: Array | None = None) -> EvaluationSubset:
    """All of the data; the FP32 model gave these outputs, and some score."""
    reference = None if outputs is None else cached_reference({"y": outputs[:7]}, {"y": outputs[7:]})
    baseline = Baseline("", Score(0.5, np.zeros(len(data))), reference=reference)
    return EvaluationSubset.of(data, open_metric(metric), baseline)


@pytest.fixture(params=[None, Custom("f", lambda x: x)], ids=["at hand", "in a thread"])
def data(request: pytest.FixtureRequest) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 4)).astype(np.float32)
    return open_data((x, rng.integers(0, 4, 23)), [SPEC], preprocess=request.param)


@pytest.mark.parametrize("batch_size", [1, 7, 23, 100])
def test_score_does_not_depend_on_the_batch_size(data: Dataset, batch_size: int) -> None:
    batch = next(data.batches(23))
    score = subset(data, "top1").evaluate(Fake(lambda x: x), batch_size=batch_size)
    right = batch.inputs["x"].argmax(axis=1) == batch.labels
    assert score.value == pytest.approx(right.mean(), abs=1e-12)
    np.testing.assert_array_equal(score.rows, right)
    assert score.samples == 23


def test_progress_is_told_batch_by_batch(data: Dataset) -> None:
    seen = []
    progress = lambda done, total: seen.append((done, total))  # noqa: E731  # a name would say no more
    subset(data, "top1").evaluate(Fake(lambda x: x), batch_size=10, on_progress=progress)
    assert seen == [(10, 23), (20, 23), (23, 23)]


def test_agreement_compares_with_the_reference(data: Dataset) -> None:
    """Sample by sample, whatever the batches are, of the model and of the baseline."""
    images = next(data.batches(23)).inputs["x"]
    flipped = Fake(lambda x: np.where(np.arange(len(x))[:, None] == 0, -x, x))
    score = subset(data, "agreement", images).evaluate(flipped, batch_size=5)
    assert score.value == pytest.approx(1 - 5 / 23)


def test_a_part_of_the_samples_is_compared_with_its_own_reference(data: Dataset) -> None:
    images, places = next(data.batches(23)).inputs["x"], np.asarray([2, 6, 7, 20])
    whole = subset(data, "agreement", images)
    found = whole.measure(Fake(lambda x: x), places, batch_size=3)
    np.testing.assert_array_equal(found, np.ones(4))
    part = EvaluationSubset.of(data, whole.metric, whole.baseline, data.subset(places))
    np.testing.assert_array_equal(part.measure(Fake(lambda x: x), np.asarray([1, 3]), batch_size=3), np.ones(2))


def test_user_functions_run_in_the_callers_thread_one_call_after_the_other() -> None:
    calls: list[tuple[str, int]] = []

    def note(what: str) -> None:
        calls.append((what, threading.get_ident()))

    def source() -> Iterator[tuple[Array, Array]]:
        for start in range(0, 12, 4):
            note("source")
            yield np.arange(16.0).reshape(4, 4), np.full(4, start)

    def preprocess(batch: Array) -> Array:
        note("preprocess")
        return batch

    def metric(outputs: Array, labels: Array) -> Array:
        note("metric")
        return np.ones(len(outputs))

    runs: set[int] = set()

    def model(x: Array) -> Array:
        runs.add(threading.get_ident())
        return x

    data = open_data(source, [SPEC], preprocess=Custom("f", preprocess))
    calls.clear()
    subset(data, metric).evaluate(Fake(model), batch_size=4)
    assert {thread for _, thread in calls} == {threading.get_ident()}
    assert [what for what, _ in calls].count("metric") == 3
    assert threading.get_ident() not in runs


def test_the_model_is_at_rest_when_a_metric_fails(data: Dataset) -> None:
    running: list[int] = []

    def model(x: Array) -> Array:
        running.append(1)
        time.sleep(0.01)
        running.pop()
        return x

    def metric(outputs: Array, labels: Array) -> Never:
        raise TypeError("no such thing")

    with pytest.raises(UserFunctionError, match="no such thing") as caught:
        subset(data, metric).evaluate(Fake(model), batch_size=2)
    assert running == []  # although what was raised still holds everything it passed through
    assert caught.value.__traceback__ is not None


def test_nan_is_a_failed_trial(data: Dataset) -> None:
    with pytest.raises(TrialError, match="NaN"):
        subset(data, "top1").evaluate(Fake(lambda x: x * np.nan), batch_size=5)


def test_infinite_score_is_a_failed_trial(data: Dataset) -> None:
    infinite = lambda outputs, labels: np.full(len(outputs), np.inf)  # noqa: E731  # a name would say no more
    with pytest.raises(TrialError, match="is inf"):
        subset(data, infinite).evaluate(Fake(lambda x: x), batch_size=5)


def test_an_output_must_have_a_row_a_sample(data: Dataset) -> None:
    batch = next(data.batches(3))
    with pytest.raises(ModelError, match=r"output 'y': has shape \(12,\) for a batch of 3"):
        run_batch(Fake(lambda x: x.reshape(-1)), batch)


def test_a_score_is_a_finite_number() -> None:
    with pytest.raises(ValueError, match="finite"):
        Score(float("nan"), np.zeros(1))


def test_outputs_are_told_with_the_places_of_their_samples(data: Dataset) -> None:
    told: list[tuple[int, int, Any]] = []
    record = lambda places, batch, outputs: told.append((places.start, places.stop, outputs["y"]))  # noqa: E731
    subset(data, "top1").measure(Fake(lambda x: x), np.arange(23), batch_size=10, on_outputs=record)
    assert [each[:2] for each in told] == [(0, 10), (10, 20), (20, 23)]
    np.testing.assert_array_equal(np.concatenate([each[2] for each in told]), next(data.batches(23)).inputs["x"])
