"""The baseline: run once, checked, kept."""

import numpy as np
import pytest

from autoquant.errors import DataError, ModelError, TrialError
from autoquant.evaluation.baseline import load_baseline, measure_baseline, save_baseline
from autoquant.evaluation.data import open_data
from autoquant.evaluation.metrics import open_metric
from autoquant.model.model import InputSpec

SPEC = InputSpec("x", np.dtype(np.float32), (None, 4))
RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 4)).astype(np.float32)
LABELS = X.argmax(axis=1)


class Fake:
    def __init__(self, function):
        self.function = function
        self.runs = 0

    def __call__(self, inputs):
        self.runs += 1
        return {"y": self.function(inputs["x"])}

    def close(self):
        """Nothing to close."""


def measure(function, labels=LABELS, metric="top1", **options):
    runner = Fake(function)
    data = open_data((X, labels), [SPEC])
    return measure_baseline(runner, data, open_metric(metric), batch_size=10, key="k", **options), runner


def test_every_batch_once_and_the_first_three_times():
    baseline, runner = measure(lambda x: x)
    assert runner.runs == 2 + 4
    assert baseline.score.value == 1.0
    np.testing.assert_array_equal(np.concatenate([o["y"] for o in baseline.outputs]), X)


def test_agreement_needs_no_labels_and_is_one():
    assert measure(lambda x: x, labels=None, metric="agreement")[0].score.value == 1.0


@pytest.mark.parametrize(
    ("function", "labels", "error", "message"),
    [
        (lambda x: x + np.random.default_rng().normal(size=x.shape), LABELS, ModelError, "two runs of the same batch"),
        (lambda x: np.where(x > 2.0, np.inf, x), LABELS, ModelError, "NaN or infinity"),
        (lambda x: np.ones_like(x), LABELS, DataError, "--preprocess"),
        (lambda x: x, LABELS + 1, DataError, "--label-offset"),
    ],
    ids=["random", "infinite", "constant", "label offset"],
)
def test_mistakes_are_named(function, labels, error, message: str):
    with pytest.raises(error, match=message):
        measure(function, labels)


def test_a_model_that_does_not_run_is_no_trial():
    def refuse(x):
        raise TrialError("TensorFlow", "the model does not run: shapes", hint="check the input data")

    with pytest.raises(ModelError, match="the FP32 model: the model does not run"):
        measure(refuse)


def test_a_warning_for_a_baseline_at_chance():
    heard: list[str] = []
    measure(lambda x: x, on_warning=heard.append)
    assert heard == []
    measure(lambda x: x, np.where(np.arange(40) % 5 == 0, 3, 0), on_warning=heard.append)
    assert len(heard) == 1
    assert "most frequent" in heard[0]


def test_round_trip_and_nothing_stale(tmp_path):
    baseline, _ = measure(lambda x: x)
    path = tmp_path / "baseline.npz"
    save_baseline(baseline, path)
    loaded = load_baseline(path, key="k")
    assert loaded is not None
    assert loaded.score.value == baseline.score.value
    np.testing.assert_array_equal(loaded.score.rows, baseline.score.rows)
    for one, other in zip(loaded.outputs, baseline.outputs, strict=True):
        np.testing.assert_array_equal(one["y"], other["y"])
    assert load_baseline(path, key="other") is None
    assert load_baseline(tmp_path / "absent.npz", key="k") is None
    path.write_bytes(path.read_bytes()[:-40])
    assert load_baseline(path, key="k") is None
