"""Calls of functions that are inlined, and the grouped convolutions that Keras writes so, against plain TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal

from autoquant.model.graph import Graph
from autoquant.model.inlining import inline_calls, without_idle_functions
from autoquant.model.normalize import normalize
from autoquant.model.open import open_model
from autoquant.model.survey import survey_graph

RUN = Callable[..., list[Any]]


def ops(graph: Graph) -> set[str]:
    return {node.op for node in graph.nodes.values()}


def traced(function: Callable[[Any], Any], *shape: int | None) -> Graph:
    """The graph of x -> function(x), not optimized: calls of functions that are not to be inlined stay."""
    concrete = tf.function(function).get_concrete_function(tf.TensorSpec(shape, tf.float32, name="x"))
    outputs = [tensor.name for tensor in concrete.outputs]
    return Graph.from_graph_def(concrete.graph.as_graph_def(), inputs=["x"], outputs=outputs)


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow has no types
def twice_and_more(x: Any) -> tuple[Any, Any]:
    return 2 * x, x + 1


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow has no types
def nested(x: Any) -> Any:
    double, more = twice_and_more(x)
    return twice_and_more(double)[0] - more


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow has no types
def until_large(x: Any) -> Any:
    return tf.while_loop(lambda t: tf.reduce_sum(t) < 100, lambda t: twice_and_more(t)[0], [x])[0]


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (lambda x: twice_and_more(x)[1] * twice_and_more(x + 1)[0], set[str]()),
        (nested, set[str]()),
        (until_large, {"While", "StatelessWhile"}),
    ],
)
def test_calls_give_what_they_gave(function: Callable[[Any], Any], left: set[str], run: RUN) -> None:
    graph = traced(function, None, 3)
    inlined = inline_calls(graph)
    assert any("PartitionedCall" in op for op in ops(graph))
    assert not any("PartitionedCall" in op for op in ops(inlined))
    assert bool(ops(inlined) & left) == bool(left)
    x = np.array([[1, 2, 3.5]], np.float32)
    np.testing.assert_array_equal(run(inlined, {"x": x})[0], function(x))
    names = {f.signature.name for f in without_idle_functions(inlined).library.function} if left else set()
    assert (without_idle_functions(inlined).library is None) == (not left)
    assert len(names) < len(graph.library.function)


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]  # TensorFlow has no types
def around(x: Any) -> Any:
    return nested(x)


@pytest.mark.parametrize("function", [nested, around])
def test_a_function_that_calls_itself_stays(function: Callable[[Any], Any]) -> None:
    """And so does one that calls such a function."""
    graph = traced(function, 1, 3)
    library = type(graph.library)()
    library.CopyFrom(graph.library)
    for one in library.function:
        for node in one.node_def:
            if "PartitionedCall" in node.op and "nested" in one.signature.name:
                node.attr["f"].func.name = one.signature.name
    again = Graph(graph.nodes, graph.inputs, graph.outputs, library)
    assert inline_calls(again) is again


def convolution(x: Any, weight: Any, **options: Any) -> Any:
    """A convolution with groups, one after the other: what TensorFlow documents them to be."""
    groups = x.shape[-1] // weight.shape[2]
    parts = zip(tf.split(x, groups, -1), tf.split(weight, groups, -1), strict=True)
    return tf.concat([tf.nn.conv2d(part, own, **options) for part, own in parts], -1)


@pytest.mark.parametrize(
    ("groups", "outputs", "options", "op"),
    [
        (8, 8, {"strides": 1, "padding": "SAME"}, "DepthwiseConv2dNative"),
        (8, 24, {"strides": 2, "padding": "VALID"}, "DepthwiseConv2dNative"),
        (4, 8, {"strides": 2, "padding": "SAME"}, "Conv2D"),
        (1, 8, {"strides": 1, "padding": "SAME"}, "Conv2D"),
        (8, 8, {"strides": [1, 2], "padding": "SAME"}, "Conv2D"),  # which a depthwise convolution does not have
        (8, 8, {"strides": 1, "padding": "SAME", "dilations": 2}, "Conv2D"),
        (8, 8, {"strides": 1, "padding": [[0, 0], [1, 1], [0, 2], [0, 0]]}, "Conv2D"),
    ],
)
def test_a_group_for_each_channel_is_a_depthwise_convolution(
    groups: int, outputs: int, options: dict[str, Any], op: str, build: Callable[..., Graph], run: RUN
) -> None:
    rng = np.random.default_rng(0)
    weight, x = normal(rng, 3, 3, 8 // groups, outputs), normal(rng, 2, 9, 9, 8)

    def write() -> None:
        data = tf.compat.v1.placeholder(tf.float32, (None, 9, 9, 8), name="x")
        tf.nn.relu(tf.nn.conv2d(data, tf.constant(weight), name="conv", **options), name="y")

    graph = normalize(build(write))
    assert graph.nodes["conv"].op == op
    np.testing.assert_allclose(run(graph, {"x": x})[0], tf.nn.relu(convolution(x, weight, **options)), atol=1e-5)


def test_a_single_channel_or_an_unknown_number_of_them_stays(build: Callable[..., Graph]) -> None:
    for channels in (1, None):

        def write(channels: int | None = channels) -> None:
            data = tf.compat.v1.placeholder(tf.float32, (None, 9, 9, channels), name="x")
            tf.nn.relu(tf.nn.conv2d(data, tf.ones((3, 3, 1, 8)), 1, "SAME", name="conv"), name="y")

        assert normalize(build(write)).nodes["conv"].op == "Conv2D"


def test_a_shared_weight_stays_for_others(build: Callable[..., Graph], run: RUN) -> None:
    rng = np.random.default_rng(0)
    weight, x = normal(rng, 1, 1, 1, 4), normal(rng, 2, 3, 3, 4)

    def write() -> None:
        data = tf.compat.v1.placeholder(tf.float32, (None, 3, 3, 4), name="x")
        shared = tf.constant(weight)
        tf.add(tf.nn.conv2d(data, shared, 1, "SAME", name="conv"), shared, name="y")

    graph = normalize(build(write))
    assert graph.nodes["conv"].op == "DepthwiseConv2dNative"
    np.testing.assert_allclose(run(graph, {"x": x})[0], x * weight + weight, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras and NumPy 2
def test_keras_convolutions_with_groups_are_layers(tmp_path: Path, run: RUN) -> None:
    """Also dilated ones, whose function holds SpaceToBatchND, and with a batch norm behind."""
    layers = keras.layers
    image = keras.Input((16, 16, 8))
    x = layers.Conv2D(16, 3, groups=4, activation="relu", name="groups")(image)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(16, 3, strides=2, groups=16, name="depthwise")(x))
    x = layers.Conv2D(32, 2, groups=16, dilation_rate=2, name="dilated")(x)
    model = keras.Model(image, layers.GlobalAveragePooling2D()(x))
    model.get_layer("norm").set_weights([np.linspace(0.5, 2, 16)] * 4)
    model.save(tmp_path / "m.keras")
    opened = open_model(tmp_path / "m.keras").graph
    found = survey_graph(opened)
    expected = [("Conv2D", 4), ("DepthwiseConv2dNative", 1), ("DepthwiseConv2dNative", 1)]
    assert [(layer.op, layer.groups) for layer in found.layers if layer.weight] == expected
    assert not found.rejected
    assert not ops(opened) & {"AddV2", "Mul"}
    data = normal(np.random.default_rng(1), 2, 16, 16, 8)
    wanted = np.asarray(model(data))
    np.testing.assert_allclose(run(opened, {opened.inputs[0]: data})[0], wanted, atol=1e-5)
