"""AMCT's ranking, against NumPy in float64."""

from __future__ import annotations

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sensitivity_requests import opened, sensitivity_request

from autoquant.calibration.plan import LayerPlan, layer_plan
from autoquant.calibration.ranges import MinMax, Percentile
from autoquant.evaluation.engines.tensorflow import TensorFlowRunner
from autoquant.evaluation.metrics.divergence import cosine_similarity
from autoquant.model.model import Model
from autoquant.tuning.sensitivity.measure import cosines

RNG = np.random.default_rng(3)
FIRST, BIAS, SECOND = (RNG.normal(size=size).astype("f") for size in ((6, 5), (5,), (5, 3)))
X = RNG.normal(size=(150, 6)).astype("f")


def network(tf: Any, x: Any) -> Any:
    """Layer `one` with a bias, and `two` without."""
    hidden = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, tf.constant(FIRST), name="one"), BIAS))
    return tf.matmul(hidden, tf.constant(SECOND), name="two")


def data_int8(values: NDArray[Any], low: float, high: float) -> Any:
    scale = float(np.float32((high - low) / 255))
    zero = np.rint(-128 - low / scale)
    return (np.clip(np.rint(values / scale) + zero, -128, 127) - zero) * scale


def weight_int8(weight: NDArray[Any]) -> NDArray[Any]:
    scale = np.float64(np.float32(max(weight.max() / 127, -weight.min() / 128)))
    return np.clip(np.rint(weight / scale), -128, 127) * scale


def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return opened(tmp_path, network, (None, 6))


def test_of_what_a_layer_gives_with_its_bias(model: Model) -> None:
    """Over all samples, more than a batch of them; the other layers are in float."""
    x, first, second = X.astype(float), FIRST.astype(float), SECOND.astype(float)
    hidden = np.maximum(x @ first + BIAS, 0)
    expected = {
        "one": cosine(x @ first + BIAS, data_int8(x, x.min(), x.max()) @ weight_int8(first) + BIAS),
        "two": cosine(hidden @ second, data_int8(hidden, 0.0, hidden.max()) @ weight_int8(second)),
    }
    found = cosines(sensitivity_request(model, X))
    assert found == {name: pytest.approx(value, abs=2e-6) for name, value in expected.items()}
    assert all(0.99 < value < 1.0 for value in found.values())
    errors = [(1 - found[name]) / (1 - expected[name]) for name in expected]
    assert errors == [pytest.approx(1.0, rel=0.05)] * 2


def test_only_the_first_candidate_counts(model: Model) -> None:
    asked = sensitivity_request(model, X)
    layer = asked.layers["one"]
    both = [layer_plan(layer, LayerPlan(MinMax())), layer_plan(layer, LayerPlan(Percentile(0.6)))]
    one, other = (cosines(replace(asked, candidates={"one": order})) for order in (both, both[::-1]))
    assert one == {"one": cosines(asked)["one"]}
    assert other["one"] < one["one"] - 0.01


def test_a_layer_that_gives_nothing_does_not_change(tmp_path: Path) -> None:
    def silent(tf: Any, x: Any) -> Any:
        return tf.matmul(tf.nn.relu(tf.matmul(x, tf.zeros([6, 5]), name="one")), tf.constant(SECOND), name="two")

    found = cosines(sensitivity_request(opened(tmp_path, silent, (None, 6)), X))
    assert found["two"] == 1.0


def test_a_layer_that_cannot_be_quantized_is_the_first_to_stay_in_float(tmp_path: Path) -> None:
    def huge(tf: Any, x: Any) -> Any:
        return tf.matmul(
            tf.matmul(x, tf.constant(FIRST * np.float32(1e12)), name="one"), tf.constant(SECOND), name="two"
        )

    found = cosines(sensitivity_request(opened(tmp_path, huge, (None, 6)), X))
    assert found["one"] == -np.inf


def test_settings_of_litert_become_those_of_amct(model: Model) -> None:
    """A MatMul has a scale for each channel there, and one in all here."""
    asked = sensitivity_request(model, X)
    theirs = {
        name: [replace(each[0], channel_wise=True, weight_algorithm="octav")] for name, each in asked.candidates.items()
    }
    assert cosines(replace(asked, candidates=theirs)) == cosines(asked)


def test_a_cosine_of_parts_is_that_of_the_whole() -> None:
    """Whatever the sizes of the parts, and where some are all zero; no square overflows or vanishes."""
    random = np.random.default_rng(0)
    for sizes in ([1.0], [0.0, 1.0], [1e-200, 1.0, 0.0, 1e200], [1e200, 1e-200]):
        one = [size * random.normal(size=7) for size in sizes]
        other = [size * random.normal(size=7) for size in sizes[::-1]]
        a, b = (np.concatenate(parts).astype(np.longdouble) for parts in (one, other))
        expected = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))
        assert cosine_similarity(zip(one, other, strict=True)) == pytest.approx(expected, rel=1e-12)


def test_no_more_than_the_outputs_of_a_batch_are_held(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Any]] = []
    call = TensorFlowRunner.__call__

    def run(runner: TensorFlowRunner, inputs: Any) -> Any:
        assert sum(ref() is not None for ref in held) <= 2  # of the batch before
        found = call(runner, inputs)
        held.extend(weakref.ref(values) for values in found.values())
        return found

    asked = replace(sensitivity_request(model, X), samples=150)
    monkeypatch.setattr("autoquant.tuning.sensitivity.measure.BATCH", 50)
    monkeypatch.setattr(TensorFlowRunner, "__call__", run)
    cosines(asked)
    assert len(held) >= 2 * 2 * 3  # two layers, float and INT8, three batches
