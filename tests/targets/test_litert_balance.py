"""Balanced layers: the float model stays what it was, the INT8 one gets better."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import LiteNetwork, SavedLite

from autoquant.calibration.plan import Plan
from autoquant.errors import PlanError
from autoquant.model.litert import flatbuffer
from autoquant.quantization.affine import balance_factors
from autoquant.targets.litert_calibration import LiteCalibrator
from autoquant.targets.litert_file import prepare, with_constants

CHANNELS = 6
SIZES = np.array([1.0, 30.0, 0.1, 5.0, 300.0, 0.02], np.float32)
"""How large the channels between the layers are."""


def network(kind: str) -> Callable[..., None]:
    """Channels of unequal size between `first` and `second`; those of `second` mend what those of `first` did."""
    import tensorflow as tf

    rng = np.random.default_rng(4)
    first = rng.normal(size=(3, 3, 4, CHANNELS)).astype(np.float32) * SIZES
    plain = (rng.normal(size=(3, 3, CHANNELS, 5)) / SIZES[:, None]).astype(np.float32)
    depthwise = (rng.normal(size=(3, 3, CHANNELS, 2)) / SIZES[:, None]).astype(np.float32)
    dense = (rng.normal(size=(CHANNELS, 5)) / SIZES[:, None]).astype(np.float32)

    def write(x: Any) -> None:
        h = tf.nn.conv2d(x, first, 1, "SAME", name="first")
        h = tf.nn.relu(tf.nn.bias_add(h, tf.constant(rng.normal(size=CHANNELS).astype(np.float32) * SIZES)))
        if kind == "pooled":
            h = tf.nn.max_pool2d(h, 2, 2, "SAME")
        if kind == "depthwise":
            h = tf.nn.depthwise_conv2d(h, depthwise, (1, 1, 1, 1), "SAME", name="second")
        elif kind == "dense":
            h = tf.matmul(tf.reduce_mean(h, (1, 2)), dense, name="second")
        else:
            h = tf.nn.conv2d(h, plain, 1, "SAME", name="second")
        tf.nn.bias_add(h, tf.constant(rng.normal(size=h.shape[-1]).astype(np.float32)), name="y")

    return write


@pytest.fixture(params=["direct", "pooled", "depthwise", "dense"])
def net(request: pytest.FixtureRequest, lite_network: Callable[..., LiteNetwork]) -> LiteNetwork:
    return lite_network(network(request.param), (None, 8, 8, 4))


def plan_of(net: LiteNetwork, dmq: float | None) -> Plan:
    settings = net.plan().int8
    return Plan({**settings, "second": replace(settings["second"], dmq=dmq)})


def test_the_float_model_computes_what_it_did(net: LiteNetwork) -> None:
    balance = LiteCalibrator(net.lite, net.layers, net.statistics).balance(plan_of(net, 0.5))
    assert list(balance.factors) == ["second"]
    model = prepare(flatbuffer.read(net.lite.content))
    changed = with_constants(model, {net.lite.tensors[name]: value for name, value in balance.constants.items()})

    output = SavedLite(flatbuffer.write(changed))
    want = net.float_outputs()["y"]
    np.testing.assert_allclose(output.run(net.x)["y"], want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
    again = SavedLite(flatbuffer.write(model))
    np.testing.assert_array_equal(again.run(net.x)["y"], want)


def test_factors_are_those_of_the_record_and_the_file_is_scaled_by_them(net: LiteNetwork, tmp_path: Path) -> None:
    made = net.make(tmp_path / "m", plan_of(net, 0.5))
    second = net.layers["second"]
    values = net.float_values(second.activations[0])
    inputs = np.abs(values).reshape(-1, CHANNELS).max(axis=0)
    weight = net.lite.constant(second.weight)
    axis = 3 if second.op == "DepthwiseConv2dNative" else -1
    largest = np.abs(np.moveaxis(weight, axis, -1)).reshape(-1, weight.shape[axis]).max(axis=0)
    factors = balance_factors(inputs, largest.reshape(CHANNELS, -1).max(axis=1), 0.5)
    np.testing.assert_allclose(made.record["second"].balance, factors, rtol=1e-6)
    assert made.record["first"].balance == ()
    high = (values / factors).max()
    assert made.record["second"].activation.scale == pytest.approx(high / 255, rel=0.01)


def test_unequal_channels_are_quantized_better(net: LiteNetwork, tmp_path: Path) -> None:
    want = net.float_outputs()["y"]
    errors = {}
    for dmq in (None, 0.5):
        net.make(tmp_path / "m", plan_of(net, dmq))
        saved = (tmp_path / "m").read_bytes()

        errors[dmq] = np.linalg.norm(SavedLite(saved).run(net.x)["y"] - want) / np.linalg.norm(want)
    assert errors[0.5] < 0.05
    assert errors[None] > 4 * errors[0.5]


def test_a_layer_at_the_input_cannot_be_balanced(net: LiteNetwork, tmp_path: Path) -> None:
    settings = dict(net.plan().int8)
    settings["first"] = replace(settings["first"], dmq=0.5)
    with pytest.raises(PlanError, match="first: it cannot be balanced on this target"):
        net.make(tmp_path / "m", Plan(settings))


def chain(x: Any) -> None:
    """Three layers; the weight of the second is multiplied twice."""
    import tensorflow as tf

    rng = np.random.default_rng(8)
    for name in ("first", "second", "third"):
        weight = rng.normal(size=(1, 1, x.shape[-1], CHANNELS)).astype(np.float32) * SIZES
        x = tf.nn.relu(tf.nn.conv2d(x, weight, 1, "SAME", name=name))
    tf.identity(x, name="y")


def test_the_order_in_which_a_plan_names_its_layers_changes_nothing(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path
) -> None:
    """A plan that was read from a file names them in another order than one that was proposed."""
    net = lite_network(chain, (None, 4, 4, CHANNELS))
    settings = {name: replace(one, dmq=0.7 if name != "first" else None) for name, one in net.plan().int8.items()}
    for path, order in (("forth", list(settings)), ("back", list(settings)[::-1])):
        net.make(tmp_path / path, Plan({name: settings[name] for name in order}))
    assert (tmp_path / "forth").read_bytes() == (tmp_path / "back").read_bytes()
