"""A Relu6 before quantizers that clip below 6."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_networks import Network

from autoquant.calibration.record import LayerRecord
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.formats.quant_json import load_quant_json
from autoquant.model.graph import Graph
from autoquant.model.nodes import FLOAT, make_node
from autoquant.quantization.affine import Affine
from autoquant.targets.attributes import type_attr
from autoquant.targets.tensorflow import quantize


def f32(value: float) -> float:
    return float(np.float32(value))


BELOW = Affine(f32(5.99 / 255), -128)
"""Covers 0 to 5.99."""
ABOVE = Affine(f32(6.01 / 255), -128)
SYMMETRIC_BELOW = Affine(f32(5.9 / 127), 0)


@pytest.fixture(scope="module")
def made(network: Callable[..., Network], request: pytest.FixtureRequest) -> Network:
    """Relu6 of the input, read by two MatMuls, and where the parameter says so by a float operator too."""

    def write(x: Any) -> None:
        import tensorflow as tf

        clipped = tf.raw_ops.Relu6(features=x, name="relu6")
        weights = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
        both = [tf.raw_ops.MatMul(a=clipped, b=tf.constant(w), name=f"layer{i}") for i, w in enumerate(weights)]
        if request.param:
            both.append(tf.raw_ops.Sigmoid(x=clipped))
        tf.concat(both, 1, name="y")

    return network(write, x=(None, 5))


def int8(made: Network, *activations: Affine, **more: Any) -> Graph:
    record = {f"layer{i}": LayerRecord(affine, (0.03125,), **more) for i, affine in enumerate(activations)}
    return quantize(made.graph, made.layers, record)


@pytest.mark.parametrize("made", [False], indirect=True)
@pytest.mark.parametrize("pair", [(BELOW, BELOW), (BELOW, SYMMETRIC_BELOW)])
def test_results_are_the_same_to_the_last_bit(made: Network, pair: tuple[Affine, Affine]) -> None:
    after = int8(made, *pair)
    assert after.nodes["relu6"].op == "Relu"
    before = after.edit(put=[make_node("relu6", "Relu6", ["x"], T=type_attr(FLOAT))])
    x = np.linspace(-1.0, 9.0, 1000 * 5, dtype=np.float32).reshape(1000, 5)
    x[:4] = [[6.0] * 5, [np.nextafter(np.float32(6), np.float32(0))] * 5, [1e30] * 5, [5.99] * 5]
    one, other = (TensorFlowEngine().open_graph(graph)({"x": x})["y"] for graph in (before, after))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("made", [False], indirect=True)
def test_the_map_tells_of_it(made: Network, tmp_path: Path) -> None:
    record = {f"layer{i}": LayerRecord(BELOW, (0.03125,)) for i in range(2)}
    made.save(record, tmp_path / "net_quantized.pb")
    assert load_quant_json(tmp_path / "net_quant.json").nodes["relu6"] == ("relu6",)


@pytest.mark.parametrize("made", [False], indirect=True)
@pytest.mark.parametrize("pair", [(ABOVE, BELOW), (BELOW, ABOVE), (BELOW,), (BELOW, Affine(f32(6 / 255), -128))])
def test_it_stays_where_one_reader_would_see_the_difference(made: Network, pair: tuple[Affine, ...]) -> None:
    assert int8(made, *pair).nodes["relu6"].op == "Relu6"


@pytest.mark.parametrize("made", [True], indirect=True)
def test_it_stays_where_something_else_reads_it(made: Network) -> None:
    assert int8(made, BELOW, BELOW).nodes["relu6"].op == "Relu6"


@pytest.mark.parametrize("made", [False], indirect=True)
def test_it_stays_before_a_balancer(made: Network) -> None:
    assert int8(made, BELOW, BELOW, balance=(0.5,) * 5).nodes["relu6"].op == "Relu6"


def test_it_stays_where_it_is_an_output(network: Callable[..., Network]) -> None:
    def write(x: Any) -> None:
        import tensorflow as tf

        clipped = tf.raw_ops.Relu6(features=x, name="y")
        tf.raw_ops.MatMul(a=clipped, b=tf.ones([5, 4]), name="layer0")

    record = {"layer0": LayerRecord(BELOW, (0.03125,))}
    for outputs, op in ((("y", "layer0"), "Relu6"), (("layer0",), "Relu")):
        made = network(write, outputs=outputs, x=(None, 5))
        assert quantize(made.graph, made.layers, record).nodes["y"].op == op
