"""The divergence measured on LiteRT against NumPy in float64, and why it is measured."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import rel_entr, softmax
from sensitivity_requests import opened, sensitivity_request

from autoquant.calibration.plan import LayerPlan, layer_plan
from autoquant.calibration.ranges import MinMax, Percentile
from autoquant.errors import ModelError, PlanError
from autoquant.model.litert.convert import convert
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.tuning.sensitivity import divergence as module
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.fisher import fisher
from autoquant.tuning.sensitivity.measure import measure_sensitivity

RNG = np.random.default_rng(1)
FIRST, SECOND = RNG.normal(size=(6, 5)).astype("f"), RNG.normal(size=(5, 3)).astype("f")
X = RNG.normal(size=(150, 6)).astype("f")


def network(tf: Any, x: Any) -> Any:
    """Layer `one`, whose rounding has no gradient to tell of, and `two`."""
    hidden = tf.nn.relu(tf.round(64.0 * tf.matmul(x, tf.constant(FIRST), name="one")) / 64.0)
    return tf.matmul(hidden, tf.constant(SECOND), name="two")


def data_int8(values: NDArray[Any]) -> Any:
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    scale = float(np.float32((high - low) / 255))
    zero = np.rint(-128 - low / scale)
    return (np.clip(np.rint(values / scale) + zero, -128, 127) - zero) * scale


def weight_int8(weight: NDArray[Any], *, steps: int, each: bool) -> Any:
    """Of the TensorFlow target, -128..127 by the side that reaches further, in all; of LiteRT -127..127 by column."""
    if each:
        scale = np.abs(weight).max(axis=0) / 127
        return np.clip(np.rint(weight / scale), -127, 127) * scale
    scale = weight.max() / 127 if weight.max() > -weight.min() else -weight.min() / 128
    return np.clip(np.rint(weight / scale), -128, 127) * scale


def by_hand(**how: Any) -> dict[str, float]:
    """The divergence of the output's softmax when one of the layers is quantized, float64."""
    x, first, second = X.astype(float), FIRST.astype(float), SECOND.astype(float)

    def hidden(z: NDArray[Any]) -> NDArray[Any]:
        return np.maximum(np.rint(64.0 * z) / 64.0, 0.0)

    before = hidden(x @ first)
    p = softmax(before @ second, axis=1)
    changed = {
        "one": hidden(data_int8(x) @ weight_int8(first, **how)) @ second,
        "two": data_int8(before) @ weight_int8(second, **how),
    }
    return {name: rel_entr(p, softmax(z, axis=1)).sum(axis=1).mean() for name, z in changed.items()}


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return opened(tmp_path, network, (None, 6))


@pytest.fixture
def lite(model: Model, tmp_path: Path) -> Model:
    path = tmp_path / "net.tflite"
    path.write_bytes(convert(model.graph).content)
    return open_model(path)


def test_of_a_graph_without_gradients(model: Model) -> None:
    found = measure_sensitivity(sensitivity_request(model, X))
    assert (found.method, found.samples) == ("divergence", 150)
    assert "one" in found.reason and "no gradient" in found.reason
    expected = by_hand(steps=128, each=False)
    # A value that NumPy rounds up here, LiteRT may round down.
    assert {name: value for name, (value,) in found.values.items()} == pytest.approx(expected, rel=0.05)


def test_of_a_tflite(lite: Model) -> None:
    found = measure_sensitivity(sensitivity_request(lite, X, target="litert"))
    assert (found.method, found.reason) == ("divergence", "a .tflite has no gradients")
    expected = by_hand(steps=127, each=True)
    assert [value for (value,) in found.values.values()] == pytest.approx(list(expected.values()), rel=0.05)


def test_groups_change_nothing_and_balancing_does(lite: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = sensitivity_request(lite, X, target="litert")
    candidates = {
        name: [
            layer_plan(layer, LayerPlan(MinMax())),
            layer_plan(layer, LayerPlan(Percentile(0.6))),
            layer_plan(layer, LayerPlan(MinMax(), dmq=0.5)),
        ]
        for name, layer in asked.layers.items()
    }
    found = divergence(replace(asked, candidates=candidates)).values
    assert all(clipped > 10 * plain for plain, clipped, _ in found.values())
    monkeypatch.setattr(module, "OPERATORS", 1)
    for name, values in divergence(replace(asked, candidates=candidates)).values.items():
        assert values == pytest.approx(found[name], rel=1e-5)


def branches(tf: Any, x: Any) -> tuple[Any, Any]:
    """Layers on two ways, one of them past another, an input that is quantized alone, and two outputs."""
    rng = np.random.default_rng(2)
    left = tf.nn.conv2d(x, tf.constant(rng.normal(size=(3, 3, 2, 4)), tf.float32), 1, "SAME", name="left")
    right = tf.nn.conv2d(x, tf.constant(rng.normal(size=(1, 1, 2, 4)), tf.float32), 1, "SAME", name="right")
    both = tf.raw_ops.AddV2(x=tf.nn.relu(left), y=tf.nn.relu(right), name="sum")
    means = tf.reduce_mean(both, [1, 2])
    first = tf.matmul(means, tf.constant(rng.normal(size=(4, 3)), tf.float32), name="first")
    return first, tf.matmul(tf.nn.relu(means), tf.constant(rng.normal(size=(4, 2)), tf.float32), name="second")


def test_both_ways_agree_on_branches_and_several_outputs(tmp_path: Path) -> None:
    asked = sensitivity_request(
        opened(tmp_path, branches, (None, 6, 6, 2)), np.random.default_rng(3).normal(size=(256, 6, 6, 2))
    )
    measured, estimated = divergence(asked).values, fisher(asked).values
    assert measured.keys() == estimated.keys() == {"left", "right", "sum:0", "sum:1", "first", "second"}
    for name, values in measured.items():
        assert estimated[name] == pytest.approx(values, rel=0.5)


def test_where_neither_way_is_open(tmp_path: Path) -> None:
    def write(tf: Any, x: Any) -> Any:
        y = tf.nn.conv2d(x, tf.constant(np.ones((1, 1, 1, 1)), tf.float32), 1, "SAME", name="conv")
        return tf.raw_ops.ResizeArea(images=y, size=[2, 2], name="area")

    asked = sensitivity_request(opened(tmp_path, write, (None, 4, 4, 1)), RNG.normal(size=(16, 4, 4, 1)))
    with pytest.raises(ModelError, match=r"^net: .*cannot be found: .*ResizeArea.*on LiteRT, .*ResizeArea"):
        measure_sensitivity(asked)


def test_a_request_for_no_layer_is_refused(model: Model) -> None:
    asked = sensitivity_request(model, X)
    with pytest.raises(PlanError, match=r"tow: is not a quantizable layer.*did you mean 'two'"):
        replace(asked, candidates={"tow": asked.candidates["two"]})


def test_a_tflite_needs_no_tensorflow(lite: Model, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    np.savez(tmp_path / "data.npz", x=X)
    code = (
        "import sys, autoquant\n"
        "found = autoquant.inspect(sys.argv[1], calibration=sys.argv[2]).sensitivity\n"
        "print(len(found.default), 'tensorflow' in sys.modules)"
    )
    words = [sys.executable, "-W", "ignore", "-c", code, str(path), str(tmp_path / "data.npz")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3])
    assert done.stdout.split()[-2:] == ["2", "False"], done.stderr
