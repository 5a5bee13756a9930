"""Multiply-adds of operators that are no layers, counted by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import placeholder

from autoquant.model.graph import Graph
from autoquant.model.layer import Rejected
from autoquant.model.survey import survey_graph

Write = Callable[[Any], Any]


def ones(*shape: int) -> Any:
    return tf.constant(np.ones(shape, np.float32))


def half(x: Any) -> Any:
    return tf.cast(tf.nn.conv2d(tf.cast(x, tf.half), tf.cast(ones(3, 3, 2, 5), tf.half), 2, "SAME"), tf.float32)


def worked_out(x: Any) -> Any:
    kernel = tf.reshape(tf.reduce_mean(x), (1, 1, 1, 1)) * ones(3, 3, 2, 5)
    return tf.nn.conv2d(x, kernel, 1, "VALID")


def computed_depthwise(x: Any) -> Any:
    kernel = tf.reshape(tf.reduce_mean(x), (1, 1, 1, 1)) * ones(3, 3, 2, 4)
    return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME")


def volume_back(x: Any) -> Any:
    shape = tf.stack([tf.shape(x)[0], 2, 12, 12, 3])
    return tf.nn.conv3d_transpose(tf.expand_dims(x, 1), ones(2, 3, 3, 3, 2), shape, 2)


def transposed(x: Any) -> Any:
    rows = tf.reshape(x, (-1, 36, 2))
    return tf.raw_ops.BatchMatMulV2(x=rows, y=ones(36, 3), adj_x=True, adj_y=False)


def einsum(x: Any) -> Any:
    return tf.raw_ops.Einsum(inputs=[x, ones(2, 6, 4)], equation="...wc,cwk->...k")


def called(x: Any) -> Any:
    def convolution(y: Any) -> Any:
        return tf.nn.conv2d(y, ones(1, 1, 2, 3), 1, "SAME")

    inner = tf.function(convolution)
    outer = tf.function(lambda y: inner(y) + inner(y * 2.0))
    return outer.get_concrete_function(tf.TensorSpec((None, 6, 6, 2)))(x)


def condition(x: Any) -> Any:
    def convolution(size: int) -> Any:
        return tf.nn.conv2d(x, ones(size, size, 2, 3), 1, "SAME")

    return tf.compat.v1.cond(tf.reduce_sum(x) > 0.0, lambda: convolution(1), lambda: convolution(3))


def loop(times: Callable[[Any], Any]) -> Write:
    def write(x: Any) -> Any:
        rows = tf.reshape(x, (-1, 72))
        matrix = tf.concat([ones(72, 36), ones(72, 36)], 1)
        return tf.while_loop(lambda i, _: i < times(x), lambda i, y: (i + 1, y @ matrix), (tf.constant(0), rows))[1]

    return write


COUNTED: dict[str, tuple[Write, str, int]] = {
    "half precision": (half, "Conv2D", 3 * 3 * 5 * 18),
    "a weight that is worked out": (worked_out, "Conv2D", 4 * 4 * 5 * 18),
    "one of a depthwise convolution": (computed_depthwise, "DepthwiseConv2dNative", 6 * 6 * 8 * 9),
    "a transposed convolution of volumes": (volume_back, "Conv3DBackpropInputV2", 6 * 6 * 2 * 2 * 3 * 3 * 3),
    "a transposed factor": (transposed, "BatchMatMulV2", 2 * 36 * 3),
    "a sum of products": (einsum, "Einsum", 6 * 4 * (2 * 6)),
    "an average of volumes": (lambda x: tf.nn.avg_pool3d(x[:, None], (1, 3, 3), 3, "VALID"), "AvgPool3D", 4 * 2 * 9),
    "a maximum of volumes": (lambda x: tf.nn.max_pool3d(x[:, None], (1, 3, 3), 3, "VALID"), "MaxPool3D", 0),
    "functions": (called, "PartitionedCall", 2 * 36 * 2 * 3),
    "the larger branch": (condition, "If", 36 * 2 * 3 * 9),
    "all iterations": (loop(lambda x: 5), "While", 5 * 72 * 72),
    "as many iterations as there are rows": (loop(lambda x: tf.shape(x)[1]), "While", 6 * 72 * 72),
}


def surveyed(build: Callable[..., Graph], write: Write, *, batch: int | None = None, size: int | None = 6) -> Rejected:
    """The only operator that is rejected beside a convolution."""

    def both() -> None:
        x = placeholder(batch, size, 6, 2)
        tf.nn.conv2d(x, ones(1, 1, 2, 3), 1, "SAME", name="good")
        tf.identity(write(x), name="y")

    (one,) = survey_graph(build(both, outputs=("good", "y"))).rejected
    return one


@pytest.mark.parametrize("name", COUNTED)
@pytest.mark.parametrize("batch", [None, 4])
def test_they_are_counted_for_one_sample(build: Callable[..., Graph], name: str, batch: int | None) -> None:
    write, op, macs = COUNTED[name]
    found = surveyed(build, write, batch=batch)
    assert (found.op.removeprefix("Stateless"), found.macs) == (op, macs)
    assert found.computes is (macs > 0)


@pytest.mark.parametrize("name", ["half precision", "a sum of products"])
def test_they_are_not_known_where_a_size_is_open(build: Callable[..., Graph], name: str) -> None:
    found = surveyed(build, COUNTED[name][0], size=None)
    assert found.macs is None and found.computes


def test_weights_are_counted_too(build: Callable[..., Graph]) -> None:
    assert surveyed(build, volume_back).parameters == 2 * 3 * 3 * 3 * 2
    assert surveyed(build, worked_out).parameters == 0
