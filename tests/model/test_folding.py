from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoquant.model.folding import fold_constants
from autoquant.model.graph import Graph


def ops(graph: Graph) -> list[str]:
    return sorted(node.op for node in graph.nodes.values() if node.op != "Const")


def test_nodes_of_constants_alone_are_computed_in_one_run(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    variance = np.array([1.0, 3.0, 8.0], np.float32)

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        scale = tf.math.rsqrt(tf.constant(variance) + 1.0, name="rsqrt")
        tf.multiply(x, tf.reshape(scale, [1, 3]), name="y")

    graph = fold_constants(build(write))
    assert ops(graph) == ["Mul", "Placeholder"]
    x = np.ones((2, 3), np.float32)
    np.testing.assert_allclose(run(graph, {"x": x})[0], x / np.sqrt(variance.astype(np.float64) + 1), rtol=1e-6)


def test_each_output_of_a_node_becomes_its_own_constant(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        first, second, _ = tf.split(tf.constant([1.0, 2, 3, 4, 5, 6]), 3, name="split")
        tf.add(x * first, second, name="y")

    graph = fold_constants(build(write))
    assert ops(graph) == ["AddV2", "Mul", "Placeholder"]
    np.testing.assert_array_equal(run(graph, {"x": np.array([10.0, 20.0])})[0], [13.0, 44.0])


def test_an_output_keeps_its_name_and_a_second_output_its_node(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    def write() -> None:
        tf.compat.v1.placeholder(tf.float32, [2], name="x")
        tf.split(tf.constant([1.0, 2, 3, 4]), 2, name="split")
        tf.add(tf.constant(1.0), tf.constant(2.0), name="y")

    graph = fold_constants(build(write, outputs=("y", "split:1")))
    assert graph.outputs == ("y", "split:1")
    assert ops(graph) == ["Placeholder", "Split"]
    total, half = run(graph, {"x": np.zeros(2)})
    assert total == 3.0
    np.testing.assert_array_equal(half, [3.0, 4.0])


@pytest.mark.parametrize("op", ["random", "stateless", "state"])
def test_random_and_stateful_operators_are_left(build: Callable[..., Graph], op: str) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        noise = {
            "random": lambda: tf.random.uniform([2]),
            "stateless": lambda: tf.random.stateless_uniform([2], seed=[1, 2]),
            "state": lambda: tf.raw_ops.TruncatedNormal(shape=[2], dtype=tf.float32),
        }[op]()
        tf.add(x, noise, name="y")

    before = build(write)
    left = ops(fold_constants(before))
    assert any("Random" in name or "Normal" in name for name in left)


def test_a_result_much_larger_than_its_source_is_not_written_out(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [], name="x")
        tf.add(x, tf.fill([2048, 2048], tf.constant(1.0) + 1.0), name="y")

    assert "Fill" in ops(fold_constants(build(write)))


def test_a_large_result_of_a_large_source_is(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [], name="x")
        tf.add(x, tf.constant(np.random.default_rng(0).normal(size=(600, 600)).astype(np.float32)) * 2.0, name="y")

    assert ops(fold_constants(build(write))) == ["AddV2", "Placeholder"]


def test_a_part_that_fails_to_compute_is_left_and_the_rest_is_folded(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [], name="x")
        bad = tf.raw_ops.Gather(params=tf.constant([1.0]), indices=tf.constant(7) * 1, validate_indices=False)
        tf.add(tf.constant(1.0) + 2.0, x + bad, name="y")

    graph = fold_constants(build(write))
    assert "Gather" in ops(graph)
    assert ops(graph).count("AddV2") == 2


def test_nothing_to_fold_gives_the_same_graph(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    graph = build(lambda: tf.nn.relu(tf.compat.v1.placeholder(tf.float32, [2], name="x"), name="y"))
    assert fold_constants(graph) is graph
