"""Sensitivities by gradients are those of formulas in NumPy, for every kind of layer; 0 where nothing changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sensitivity_requests import opened, sensitivity_request

from autoquant.calibration.plan import LayerPlan, layer_plan
from autoquant.calibration.ranges import MinMax, Percentile
from autoquant.errors import ModelError
from autoquant.tuning.sensitivity import fisher as module
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.fisher import fisher

SIZES = (6, 5)


def regression(classes: int) -> tuple[Any, ...]:
    """A softmax regression on a hidden layer with ReLU: what writes it, and its weights."""
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=SIZES), rng.normal(size=(SIZES[1], classes))
    bias = rng.normal(size=SIZES[1])

    def write(tf: Any, x: Any) -> Any:
        hidden = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, tf.constant(first, tf.float32), name="one"), bias.astype("f")))
        return tf.matmul(hidden, tf.constant(second, tf.float32), name="two")

    return write, first.astype("f").astype(float), bias.astype("f").astype(float), second.astype("f").astype(float)


def int8(values: NDArray[Any], *, symmetric: bool) -> Any:
    """What INT8 leaves of values, by their largest and smallest, float64."""
    low, high = min(values.min(), 0.0), max(values.max(), 0.0)
    if symmetric:
        scale = np.float64(np.float32(high / 127 if high > -low else -low / 128))
        return np.clip(np.rint(values / scale), -128, 127) * scale
    scale = np.float64(np.float32((high - low) / 255))
    zero = np.rint(-128 - low / scale)
    return (np.clip(np.rint(values / scale) + zero, -128, 127) - zero) * scale


def by_hand(x: NDArray[Any], first: NDArray[Any], bias: NDArray[Any], second: NDArray[Any]) -> dict[str, float]:
    """Half the mean of dz^T (diag(p) - p p^T) dz, dz the change of the logits to first order, float64, two layers."""
    z1 = x @ first + bias
    hidden = np.maximum(z1, 0)
    p = softmax(hidden @ second, axis=1)
    error1 = int8(x, symmetric=False) @ int8(first, symmetric=True) - x @ first
    error2 = int8(hidden, symmetric=False) @ int8(second, symmetric=True) - hidden @ second
    changes = {"one": (error1 * (z1 > 0)) @ second, "two": error2}
    return {name: 0.5 * np.mean((p * d**2).sum(1) - (p * d).sum(1) ** 2) for name, d in changes.items()}


def test_two_classes_to_the_digit(tmp_path: Path) -> None:
    write, *weights = regression(2)
    x = np.random.default_rng(2).normal(size=(100, SIZES[0])).astype(np.float32)
    found = fisher(sensitivity_request(opened(tmp_path, write, (None, SIZES[0])), x))
    expected = by_hand(x.astype(float), *weights)
    assert (found.method, found.reason, found.samples) == ("fisher", "", 100)
    assert {name: value for name, (value,) in found.values.items()} == pytest.approx(expected, rel=2e-3)


def test_more_classes_on_the_mean(tmp_path: Path) -> None:
    write, *weights = regression(4)
    x = np.random.default_rng(2).normal(size=(4000, SIZES[0])).astype(np.float32)
    asked = sensitivity_request(opened(tmp_path, write, (None, SIZES[0])), x, samples=4000)
    expected = by_hand(x.astype(float), *weights)
    found = fisher(asked)
    assert {name: value for name, (value,) in found.values.items()} == pytest.approx(expected, rel=0.1)
    assert fisher(asked) == found
    assert fisher(replace(asked, seed=1)).values != found.values


def test_probabilities_and_logits_say_the_same(tmp_path: Path) -> None:
    write, *_ = regression(2)
    x = np.random.default_rng(2).normal(size=(50, SIZES[0])).astype(np.float32)
    logits = fisher(sensitivity_request(opened(tmp_path, write, (None, SIZES[0])), x))
    sure = fisher(sensitivity_request(opened(tmp_path, lambda tf, x: tf.nn.softmax(write(tf, x)), (None, SIZES[0])), x))
    for name in ("one", "two"):
        assert sure.values[name] == pytest.approx(logits.values[name], rel=1e-3)


def test_weights_on_the_grid_do_not_change(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, weight = rng.integers(-128, 128, (64, 6)), rng.integers(-127, 128, (6, 3))
    x[0, :2], weight[0, 0] = (-128, 127), 127
    model = opened(
        tmp_path, lambda tf, x: tf.matmul(x, tf.constant(weight / 64.0, tf.float32), name="dense"), (None, 6)
    )
    (value,) = fisher(sensitivity_request(model, x / 32.0)).values["dense"]
    assert value < 1e-9


def every_kind(tf: Any, x: Any) -> Any:
    """(batch, 8, 8, 4): each kind of layer, nothing but sums and products, so that errors pass on as they are."""
    rng = np.random.default_rng(4)

    def weight(*shape: int) -> Any:
        return tf.constant(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), tf.float32)

    y = tf.nn.conv2d(x, weight(3, 3, 4, 4), 1, "SAME", name="conv")
    y = tf.compat.v1.nn.depthwise_conv2d_native(y, weight(3, 3, 4, 2), [1, 1, 1, 1], "SAME", name="depthwise")
    y = tf.nn.avg_pool2d(y, 2, 2, "VALID", name="pool")
    size = tf.stack([tf.shape(y)[0], 8, 8, 4])
    y = tf.nn.conv2d_transpose(y, weight(2, 2, 4, 8), size, 2, "SAME", name="up")
    y = tf.raw_ops.AddV2(x=y, y=x, name="sum")
    volume = tf.nn.conv3d(y[..., None], weight(1, 1, 3, 1, 2), [1] * 5, "SAME", name="volume")
    y = tf.reduce_sum(volume, 4)
    rows = tf.reshape(y, [-1, 32, 8])
    product = tf.raw_ops.BatchMatMulV2(x=tf.transpose(rows, [0, 2, 1]), y=rows, name="product")
    return tf.raw_ops.BatchMatMulV2(x=product, y=weight(8, 3), name="mixed")


def test_every_kind_of_layer(tmp_path: Path) -> None:
    x = np.random.default_rng(5).normal(size=(192, 8, 8, 4))
    asked = sensitivity_request(opened(tmp_path, every_kind, (None, 8, 8, 4)), x)
    found = fisher(asked)
    kinds = {"conv", "depthwise", "pool", "up", "sum:0", "sum:1", "volume", "product", "mixed"}
    assert found.values.keys() == kinds
    measured = divergence(asked).values
    for name, (value,) in found.values.items():  # one sign for each of the output's values, of 192 samples
        assert value == pytest.approx(measured[name][0], rel=0.4), name


def test_outputs_that_are_no_scores_and_several_outputs_count(tmp_path: Path) -> None:
    weight = np.random.default_rng(6).normal(size=(4, 2))

    def write(tf: Any, x: Any) -> tuple[Any, Any, Any]:
        y = tf.matmul(x, tf.constant(weight, tf.float32), name="dense")
        return y[:, None, :], 1000.0 * y[:, None, :], tf.argmax(y, axis=1)

    x = np.random.default_rng(7).normal(size=(2000, 4)).astype(np.float32)
    (value,) = fisher(sensitivity_request(opened(tmp_path, write, (None, 4)), x, samples=2000)).values["dense"]
    exact = x.astype(float)
    y = exact @ weight.astype("f").astype(float)
    error = int8(exact, symmetric=False) @ int8(weight.astype("f").astype(float), symmetric=True) - y
    # Each of the two, whatever its unit: half the mean square relative to the output's variance.
    assert value == pytest.approx(2 * 0.5 * np.mean(error**2) / np.var(y), rel=0.1)


def test_candidates_of_every_target_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, *_ = regression(2)
    x = np.random.default_rng(2).normal(size=(64, SIZES[0])).astype(np.float32)
    model = opened(tmp_path, write, (None, SIZES[0]))
    plain = LayerPlan(MinMax(), channel_wise=False)
    candidates = {
        "one": [plain, replace(plain, activation=Percentile(0.6)), replace(plain, channel_wise=True)],
        "two": [
            plain,
            replace(plain, dmq=0.5),
            replace(plain, weight_algorithm="octav"),
            replace(plain, weight_bits=6),
        ],
    }
    asked = sensitivity_request(model, x, candidates=candidates)
    found = fisher(asked).values
    assert [len(found[name]) for name in ("one", "two")] == [3, 4]
    assert found["one"][1] > 10 * found["one"][0]
    assert found["two"][3] > found["two"][0]
    assert len({*found["two"]}) == 4
    monkeypatch.setattr(module, "TOGETHER", 1)
    for name, values in fisher(asked).values.items():
        assert values == pytest.approx(found[name], rel=1e-6)


def test_candidates_that_cannot_be_calibrated_are_infinite(tmp_path: Path) -> None:
    def write(tf: Any, x: Any) -> Any:
        y = tf.matmul(x, tf.constant(np.eye(4) * 3e38, tf.float32), name="huge")
        return tf.matmul(tf.nn.relu(x), tf.constant(np.eye(4), tf.float32), name="fine") + tf.tanh(y)

    x = np.random.default_rng(8).normal(size=(32, 4))
    model = opened(tmp_path, write, (None, 4))
    found = fisher(sensitivity_request(model, x)).values
    assert found["huge"] == (np.inf,)
    assert found["fine"][0] < 1.0


def test_a_fixed_batch(tmp_path: Path) -> None:
    write, *_ = regression(2)
    x = np.random.default_rng(2).normal(size=(50, SIZES[0])).astype(np.float32)
    free = fisher(sensitivity_request(opened(tmp_path, write, (None, SIZES[0])), x)).values
    fixed = fisher(sensitivity_request(opened(tmp_path, write, (16, SIZES[0])), x)).values
    for name, values in free.items():
        assert fixed[name] == pytest.approx(values, rel=1e-4)


def test_without_a_gradient_it_says_where(tmp_path: Path) -> None:
    def write(tf: Any, x: Any) -> Any:
        y = tf.matmul(x, tf.constant(np.eye(4), tf.float32), name="before")
        return tf.matmul(tf.round(4.0 * y), tf.constant(np.eye(4), tf.float32), name="behind")

    asked = sensitivity_request(opened(tmp_path, write, (None, 4)), np.random.default_rng(9).normal(size=(32, 4)))
    with pytest.raises(ModelError, match=r"before.*no gradient"):
        fisher(asked)
    behind = {"behind": [layer_plan(asked.layers["behind"], LayerPlan(MinMax()))]}
    assert fisher(replace(asked, candidates=behind)).values.keys() == {"behind"}
