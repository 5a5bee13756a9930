"""Conv1D in a .tflite: axes that are added and removed, and dilation; what they compute, against TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal, placeholder

from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.load import load_lite
from autoquant.model.litert.matching import MADE_OF

Ran = Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]]


def kernel(*shape: int) -> Any:
    return tf.constant(normal(np.random.default_rng(shape), *shape))


def conv1d(x: Any, padding: str, stride: int = 1, dilation: int = 1) -> Any:
    """As Keras writes it: with SpaceToBatchND where it is dilated."""
    x = tf.nn.convolution(x, kernel(3, x.shape[-1], 5), stride, padding, dilations=dilation, name="layer")
    return tf.nn.relu(tf.nn.bias_add(x, kernel(5)))


def causal(x: Any, dilation: int) -> Any:
    return conv1d(tf.pad(x, [[0, 0], [2 * dilation, 0], [0, 0]]), "VALID", 1, dilation)


def depthwise(x: Any, dilation: int) -> Any:
    x = tf.expand_dims(x, 1)
    x = tf.nn.depthwise_conv2d(x, kernel(1, 3, 4, 2), (1, 1, 1, 1), "SAME", dilations=(1, dilation), name="layer")
    return tf.squeeze(x, [1])


def by_height(x: Any) -> Any:
    """The axis is added behind the other: the convolution is dilated in height."""
    x = tf.space_to_batch(x, [3], [[1, 4]])
    x = tf.nn.conv2d(tf.expand_dims(x, 2), kernel(3, 1, 4, 5), 1, "VALID", name="layer")
    return tf.batch_to_space(tf.squeeze(x, [2]), [3], [[0, 2]])


WRITTEN: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "plain": (lambda x: conv1d(x, "VALID"), ["RESHAPE", "CONV_2D", "RESHAPE"]),
    "strided": (lambda x: conv1d(x, "SAME", stride=2), ["RESHAPE", "CONV_2D", "RESHAPE"]),
    "dilated": (lambda x: conv1d(x, "SAME", dilation=3), ["PAD", "RESHAPE", "CONV_2D", "RESHAPE", "ADD"]),
    "dilated, valid": (lambda x: conv1d(x, "VALID", dilation=2), ["RESHAPE", "CONV_2D", "RESHAPE", "ADD"]),
    "causal": (lambda x: causal(x, 1), ["PAD", "RESHAPE", "CONV_2D", "RESHAPE"]),
    "causal, dilated": (lambda x: causal(x, 2), ["PAD", "RESHAPE", "CONV_2D", "RESHAPE", "ADD"]),
    "depthwise": (lambda x: depthwise(x, 1), ["RESHAPE", "DEPTHWISE_CONV_2D", "RESHAPE"]),
    "dilated in height": (by_height, ["PAD", "RESHAPE", "CONV_2D", "RESHAPE"]),
}


def kinds(lite: LiteGraph) -> list[str]:
    return [lite.kind(index) for index in range(len(lite.operators))]


def check(graph: Graph, lite: LiteGraph, run: Callable[..., list[Any]], ran_lite: Ran, *shape: int) -> None:
    x = normal(np.random.default_rng(7), *shape)
    (want,) = run(graph, {"x": x})
    got = ran_lite(lite.content, {"x": x})["y"]
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize("length", [13, 16])
def test_only_operators_that_can_be_int8_are_left(
    name: str, length: int, build: Callable[..., Graph], run: Callable[..., list[Any]], ran_lite: Ran
) -> None:
    write, wanted = WRITTEN[name]
    graph = build(lambda: tf.identity(write(placeholder(None, length, 4)), name="y"))
    lite = convert(graph)
    assert kinds(lite) == wanted
    assert lite.layers.keys() == {node.name for node in graph.nodes.values() if node.op in MADE_OF}
    check(graph, lite, run, ran_lite, 3, length, 4)


def test_a_length_that_is_open_stays_so(
    build: Callable[..., Graph], run: Callable[..., list[Any]], ran_lite: Ran
) -> None:
    """No reshape says it, and what is added to divide it is only known at run time."""
    graph = build(lambda: tf.identity(conv1d(placeholder(None, None, 4), "SAME", dilation=2), name="y"))
    lite = convert(graph)
    assert "EXPAND_DIMS" in kinds(lite) and "BATCH_TO_SPACE_ND" in kinds(lite)
    check(graph, lite, run, ran_lite, 2, 11, 4)


def test_what_is_cut_in_front_is_not_joined(
    build: Callable[..., Graph], run: Callable[..., list[Any]], ran_lite: Ran
) -> None:
    def write(x: Any) -> Any:
        x = tf.space_to_batch(x, [2], [[2, 0]])
        x = tf.nn.conv2d(tf.expand_dims(x, 1), kernel(1, 3, 4, 5), 1, "VALID", name="layer")
        return tf.batch_to_space(tf.squeeze(x, [1]), [2], [[1, 0]])

    graph = build(lambda: tf.identity(write(placeholder(None, 12, 4)), name="y"))
    lite = convert(graph)
    assert "SPACE_TO_BATCH_ND" in kinds(lite)
    check(graph, lite, run, ran_lite, 2, 12, 4)


def test_a_part_that_something_else_reads_is_not_joined(
    build: Callable[..., Graph], run: Callable[..., list[Any]], ran_lite: Ran
) -> None:
    def write(x: Any) -> Any:
        divided = tf.space_to_batch(x, [2], [[0, 0]])
        y = tf.nn.conv2d(tf.expand_dims(divided, 1), kernel(1, 3, 4, 5), 1, "VALID", name="layer")
        y = tf.batch_to_space(tf.squeeze(y, [1]), [2], [[0, 0]])
        return tf.reduce_sum(y, [1]) + tf.reduce_mean(divided)

    graph = build(lambda: tf.identity(write(placeholder(None, 12, 4)), name="y"))
    lite = convert(graph)
    assert "SPACE_TO_BATCH_ND" in kinds(lite)
    check(graph, lite, run, ran_lite, 2, 12, 4)


def test_a_squeeze_in_a_file_of_a_fixed_batch(build: Callable[..., Graph], tmp_path: Any, ran_lite: Ran) -> None:
    """As files have it that were made by other converters; the batch is opened."""
    graph = build(lambda: tf.identity(conv1d(placeholder(1, 12, 4), "SAME"), name="y"))
    lite = convert(graph)
    model = flatbuffer.read(lite.content)
    squeeze = [op for op in model.subgraphs[0].operators if flatbuffer.op_name(model, op) == "RESHAPE"][-1]
    squeeze.inputs = [squeeze.inputs[0]]
    squeeze.opcodeIndex = flatbuffer.operator_index(model, flatbuffer.schema.BuiltinOperator.SQUEEZE)
    squeeze.builtinOptionsType = flatbuffer.schema.BuiltinOptions.SqueezeOptions
    squeeze.builtinOptions = flatbuffer.schema.SqueezeOptionsT(squeezeDims=[1])
    path = tmp_path / "squeeze.tflite"
    path.write_bytes(flatbuffer.write(model))
    opened = load_lite(path).program
    assert isinstance(opened, LiteGraph) and kinds(opened) == ["RESHAPE", "CONV_2D", "RESHAPE"]
    x = normal(np.random.default_rng(8), 1, 12, 4)
    want = ran_lite(path.read_bytes(), {"x": x})["y"]
    (name,) = opened.outputs
    np.testing.assert_array_equal(ran_lite(opened.content, {"x": x})[name], want)
    assert opened.shape_of(opened.subgraph.inputs[0])[0] is None
