"""Operators that share a constant, or transpose it, get a weight of their own, and compute what they did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal, placeholder

from autoquant.model.graph import Graph
from autoquant.model.normalize import normalize
from autoquant.model.survey import survey_graph

RNG = np.random.default_rng(4)


def constant(*shape: int) -> Any:
    return tf.constant(normal(RNG, *shape), name="w")


def two_matmuls() -> Any:
    weight = constant(6, 6)
    return tf.matmul(tf.sin(tf.matmul(placeholder(None, 6), weight, name="a")), weight, name="b")


def two_kinds_of_matmul() -> Any:
    weight = constant(6, 6)
    hidden = tf.matmul(placeholder(None, 6), weight, name="a")
    return tf.raw_ops.BatchMatMulV2(x=tf.stack([hidden, tf.sin(hidden)]), y=weight, name="b")


def siamese() -> Any:
    """Two branches with one kernel, each with a batch norm of its own behind it."""
    weight, x = constant(3, 3, 2, 4), placeholder(None, 4, 4, 2)
    scale = tf.constant(normal(RNG, 4))
    one = tf.nn.relu(tf.nn.conv2d(x, weight, 1, "SAME", name="a") * scale)
    return tf.add(one, tf.nn.conv2d(tf.sin(x), weight, 1, "SAME", name="b"))


def two_convolutions() -> Any:
    """One kernel as that of a convolution and of a depthwise one."""
    weight, x = constant(3, 3, 4, 4), placeholder(None, 4, 4, 4)
    deep = tf.nn.conv2d(x, weight, 1, "SAME", name="a")
    return tf.nn.depthwise_conv2d(tf.sin(deep), weight, (1, 1, 1, 1), "SAME", name="b/depthwise")


def tied_embedding() -> Any:
    """A table that words are read from, and that scores words."""
    table = constant(20, 6)
    words = tf.cast(tf.abs(placeholder(None, 5)) * 5.0, tf.int32)
    hidden = tf.reduce_mean(tf.gather(table, words), axis=1)
    return tf.matmul(hidden, table, transpose_b=True, name="a")


def transposed() -> Any:
    x = placeholder(None, 5, 6)
    scores = tf.raw_ops.BatchMatMulV2(x=x, y=constant(4, 6), adj_y=True, name="a")
    return tf.nn.bias_add(scores * tf.constant(normal(RNG, 4)), tf.constant(normal(RNG, 4)))


def an_output() -> Any:
    weight = constant(6, 6)
    return tf.matmul(placeholder(None, 6), weight, name="a")


CASES: Mapping[str, tuple[Callable[[], Any], list[str], list[str]]] = {
    "two of a kind": (two_matmuls, ["a", "b"], ["y"]),
    "two kinds": (two_kinds_of_matmul, ["a", "b"], ["y"]),
    "two with other things behind them": (siamese, ["a", "b"], ["y"]),
    "convolutions of unlike layouts": (two_convolutions, ["a", "b/depthwise"], ["y"]),
    "an embedding, transposed": (tied_embedding, ["a"], ["y"]),
    "transposed": (transposed, ["a"], ["y"]),
    "an output": (an_output, ["a"], ["y", "w"]),
}
"""What is written, its layers, and the outputs."""


@pytest.mark.parametrize(("write", "layers", "outputs"), CASES.values(), ids=CASES.keys())
def test_each_has_a_weight_of_its_own(
    write: Callable[[], Any], layers: list[str], outputs: list[str], build: Callable[..., Graph], run: Any
) -> None:
    graph = build(lambda: tf.identity(write(), name="y"), outputs=tuple(outputs))
    found = normalize(graph)
    survey = survey_graph(found)
    assert [layer.name for layer in survey.layers] == layers
    assert survey.rejected == ()
    readers = [found.single_consumer(layer.weight or "") for layer in survey.layers]
    assert [reader and reader.name for reader in readers] == layers
    shape = tuple(dim.size or 3 for dim in graph.nodes["x"].attr["shape"].shape.dim)
    x = normal(RNG, 3, *shape[1:])
    for wanted, value in zip(run(graph, {"x": x}), run(found, {"x": x}), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def test_what_is_no_weight_stays_shared(build: Callable[..., Graph]) -> None:
    """A stack of matrices, and weights in double precision."""

    def write() -> None:
        stack, double = constant(2, 6, 6), tf.constant(np.eye(6), name="d")
        t = tf.matmul(tf.matmul(placeholder(2, 3, 6), stack), stack)
        flat = tf.cast(tf.reshape(t, (6, 6)), tf.float64)
        tf.matmul(tf.matmul(flat, double), double, name="y")

    found = normalize(build(write))
    assert {len(found.consumers[name]) for name in ("w", "d")} == {2}
