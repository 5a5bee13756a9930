from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal, placeholder

from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.balance import balance_way
from autoquant.model.litert.convert import convert

RNG = np.random.default_rng(3)
FACTORS = np.array([0.25, 2, 8, 0.5], np.float32)


def weight(*shape: int) -> Any:
    return tf.constant(normal(RNG, *shape))


def conv(x: Any, name: str, *shape: int) -> Any:
    return tf.nn.bias_add(tf.nn.conv2d(x, weight(*shape), 1, "SAME", name=name), weight(shape[-1]))


def depthwise(x: Any, name: str) -> Any:
    return tf.compat.v1.nn.depthwise_conv2d_native(x, weight(3, 3, 4, 1), (1, 1, 1, 1), "SAME", name=name)


def dense(x: Any, name: str, *shape: int) -> Any:
    return tf.linalg.matmul(x, weight(*shape), name=name)


first: Callable[[Any], Any] = lambda x: conv(x, "first", 3, 3, 2, 4)  # noqa: E731, one word in the rows below
second: Callable[[Any], Any] = lambda t: conv(t, "second", 3, 3, 4, 3)  # noqa: E731
mean: Callable[[Any], Any] = lambda t: tf.reduce_mean(t, (1, 2))  # noqa: E731
BALANCED: dict[str, Callable[[Any], Any]] = {
    "straight": lambda x: second(first(x)),
    "relu": lambda x: second(tf.nn.relu(first(x))),
    "leaky relu": lambda x: second(tf.nn.leaky_relu(first(x), 0.3)),
    "into depthwise": lambda x: depthwise(tf.nn.relu(first(x)), "second"),
    "out of depthwise": lambda x: second(depthwise(conv(x, "zeroth", 1, 1, 2, 4), "first")),
    "max pooling": lambda x: second(tf.nn.max_pool2d(first(x), 2, 2, "SAME")),
    "average pooling": lambda x: second(tf.nn.avg_pool2d(tf.nn.relu(first(x)), 2, 2, "SAME")),
    "padding": lambda x: conv(tf.pad(first(x), ((0, 0), (1, 1), (1, 1), (0, 0))), "second", 3, 3, 4, 3),
    "mean over space": lambda x: dense(mean(first(x)), "second", 4, 3),
    "flattened pixels": lambda x: dense(tf.reshape(mean(tf.nn.relu(first(x))), (-1, 4)), "second", 4, 3),
    "dense to dense": lambda x: dense(tf.nn.relu(dense(tf.reshape(x, (-1, 72)), "first", 72, 4)), "second", 4, 3),
}
CHANNELWISE: dict[str, Callable[[Any], Any]] = {
    "the input of the model": lambda x: conv(x, "second", 3, 3, 2, 3),
    "clipped": lambda x: second(tf.nn.relu6(first(x))),
    "not homogeneous": lambda x: second(tf.sigmoid(first(x))),
    "read twice": lambda x: (lambda t: second(t) + tf.reduce_sum(t))(tf.nn.relu(first(x))),
    "an addition": lambda x: second(first(x) + conv(x, "other", 1, 1, 2, 4)),
    "channels mixed by flattening": lambda x: dense(tf.reshape(first(x), (-1, 144)), "second", 144, 3),
    "channels moved": lambda x: second(tf.transpose(first(x), (0, 3, 1, 2))[:, :, :, :4]),
    "padded channels": lambda x: conv(tf.pad(first(x), ((0, 0), (0, 0), (0, 0), (1, 1))), "second", 3, 3, 6, 3),
    "mean over channels": lambda x: dense(tf.reduce_mean(first(x), (2, 3)), "second", 6, 3),
    "groups": lambda x: conv(first(x), "second", 3, 3, 2, 4),
}


@pytest.mark.parametrize("write", BALANCED.values(), ids=BALANCED.keys())
def test_factors_go_into_the_layer_before_and_nothing_changes(
    write: Callable[[Any], Any],
    build: Callable[..., Graph],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    lite = convert(build(lambda: tf.identity(write(placeholder(None, 6, 6, 2)), name="y")))
    way = balance_way(lite, lite.layers["second"])
    assert way is not None
    assert way.source == lite.layers["first"]
    x = normal(RNG, 2, 6, 6, 2)
    want = ran_lite(lite.content, {"x": x})["y"]
    np.testing.assert_allclose(ran_lite(balanced(lite, way.source), {"x": x})["y"], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("write", CHANNELWISE.values(), ids=CHANNELWISE.keys())
def test_where_factors_would_change_the_result_there_is_no_source(
    write: Callable[[Any], Any], build: Callable[..., Graph]
) -> None:
    lite = convert(build(lambda: tf.identity(write(placeholder(None, 6, 6, 2)), name="y")))
    assert balance_way(lite, lite.layers["second"]) is None


def test_an_output_of_the_model_keeps_its_values(build: Callable[..., Graph]) -> None:
    def write() -> None:
        second(tf.nn.relu(first(placeholder(None, 6, 6, 2)), name="seen"))

    graph = build(write, outputs=("seen", "second"))
    lite = convert(graph)
    assert balance_way(lite, lite.layers["second"]) is None


def balanced(lite: Any, source: int) -> bytes:
    """The model with the results of an operator times FACTORS, and the weight of 'second' divided by them."""
    model = flatbuffer.read(lite.content)
    graph = model.subgraphs[0]

    def scale(op: Any, place: int, factors: Any, axis: int) -> None:
        tensor = graph.tensors[op.inputs[place]]
        value = flatbuffer.value_of(model, tensor)
        assert value is not None
        shape = [1] * value.ndim
        shape[axis] = 4
        scaled = (value * factors.reshape(shape)).astype(np.float32)
        tensor.buffer = flatbuffer.add_buffer(model, np.frombuffer(scaled.tobytes(), np.uint8))

    before, behind = graph.operators[source], graph.operators[lite.layers["second"]]
    depth = flatbuffer.op_name(model, before) == "DEPTHWISE_CONV_2D"
    scale(before, 1, FACTORS, -1 if depth else 0)
    if len(before.inputs) > 2 and before.inputs[2] >= 0:
        scale(before, 2, FACTORS, 0)
    scale(behind, 1, 1 / FACTORS, -1)
    return flatbuffer.write(model)
