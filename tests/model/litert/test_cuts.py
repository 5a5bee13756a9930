"""What the converter joins, and what it leaves where a graph is cut, against TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal, placeholder

from autoquant.model.graph import Graph
from autoquant.model.litert.convert import convert
from autoquant.model.litert.cuts import cut
from autoquant.model.litert.graph import LiteGraph


def write() -> None:
    """A rescaling before a convolution, and one behind it, which a second branch reads too; two outputs."""
    rng = np.random.default_rng(2)
    x = placeholder(None, 5, 6, 3)
    rescaled = tf.multiply(x, tf.constant(normal(rng, 3)), name="rescaled")
    conv = tf.nn.conv2d(rescaled, tf.constant(normal(rng, 3, 3, 3, 4)), 1, "SAME", name="conv")
    again = tf.multiply(conv, tf.constant(normal(rng, 4)), name="again")
    tf.nn.relu(again, name="relu")
    tf.reduce_mean(tf.add(again, tf.reduce_mean(rescaled), name="sum"), [1, 2], name="y")


@pytest.fixture(scope="module")
def graph(build: Callable[..., Graph]) -> Graph:
    return build(write, outputs=["y", "relu"])


def kinds(lite: LiteGraph) -> list[str]:
    return [lite.kind(index) for index in range(len(lite.operators))]


@pytest.mark.parametrize(
    ("cuts", "multiplications"),
    [((), 1), (("rescaled",), 1), (("conv",), 2), (("rescaled", "conv"), 2), (("x", "rescaled", "conv", "y"), 2)],
    ids=str,
)
def test_nothing_is_joined_across_a_cut(
    graph: Graph,
    cuts: tuple[str, ...],
    multiplications: int,
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """The first multiplication stays in any case, since something else reads it."""
    lite = convert(graph, cuts=cuts)
    assert kinds(lite).count("MUL") == multiplications
    assert (lite.inputs, lite.outputs) == (("x",), ("y", "relu"))
    x = normal(np.random.default_rng(3), 2, 5, 6, 3)
    got = ran_lite(lite.content, {"x": x})
    for name, want in zip(("y", "relu"), run(graph, {"x": x}), strict=True):
        np.testing.assert_allclose(got[name], want, rtol=1e-5, atol=1e-5)


def test_the_weight_is_the_layers_behind_a_cut(graph: Graph) -> None:
    weight = graph.constant(graph.nodes["conv"].input[1])
    assert weight is not None
    same = {}
    for cuts in ((), ("rescaled", "conv")):
        lite = convert(graph, cuts=cuts)
        value = lite.value_of(lite.operators[lite.layers["conv"]].inputs[1])
        same[cuts] = value is not None and np.array_equal(value, weight.transpose(3, 0, 1, 2))
    assert same == {(): False, ("rescaled", "conv"): True}


def test_inputs_constants_and_unknown_ranks_are_not_cut(build: Callable[..., Graph]) -> None:
    def write_unknown() -> None:
        x = tf.compat.v1.placeholder(tf.float32, name="x")
        tf.add(tf.multiply(x, 2.0, name="twice"), tf.constant([1.0, 2.0], name="vector"), name="y")

    unknown = build(write_unknown)
    parts = cut(unknown, ["x", "twice", "vector"])
    assert (parts.sources, parts.graph.inputs, parts.graph.outputs) == ({}, ("x",), ("y",))


def test_a_cut_tensor_that_another_one_only_repeats(
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """The converter leaves out an addition of zero: behind the first cut is the second one at once."""
    rng = np.random.default_rng(4)

    def write_twice() -> None:
        first = tf.nn.relu(placeholder(None, 6), name="first")
        second = tf.add(first, tf.zeros(6), name="second")
        tf.linalg.matmul(second, tf.constant(normal(rng, 6, 3)), name="y")

    graph = build(write_twice)
    lite = convert(graph, cuts=["first", "second"])
    assert kinds(lite) == ["RELU", "FULLY_CONNECTED"]
    x = normal(rng, 4, 6)
    (want,) = run(graph, {"x": x})
    np.testing.assert_allclose(ran_lite(lite.content, {"x": x})["y"], want, rtol=1e-5, atol=1e-6)


def test_two_operators_that_are_alike_stay_two(
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """The cells of NASNet add two poolings of the same."""

    def write_equal_poolings() -> None:
        data = tf.nn.relu(placeholder(None, 6, 6, 2), name="data")
        tf.add(*(tf.nn.avg_pool2d(data, 3, 1, "SAME", name=f"pool{i}") for i in range(2)), name="y")

    graph = build(write_equal_poolings)
    x = normal(np.random.default_rng(5), 2, 6, 6, 2)
    (want,) = run(graph, {"x": x})
    for cuts, count in ((), 1), (("data", "pool1"), 2):
        lite = convert(graph, cuts=cuts)
        assert kinds(lite).count("AVERAGE_POOL_2D") == count
        np.testing.assert_allclose(ran_lite(lite.content, {"x": x})["y"], want, rtol=1e-5, atol=1e-6)
