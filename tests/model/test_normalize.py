from __future__ import annotations

import time
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tensorflow.core.framework import attr_value_pb2

from autoquant.model.graph import Graph
from autoquant.model.nodes import make_const, make_node
from autoquant.model.normalize import normalize
from autoquant.model.shapes import make_placeholder

FLOAT = attr_value_pb2.AttrValue(type=1)


def ops(graph: Graph) -> list[str]:
    return sorted(node.op for node in graph.nodes.values() if node.op != "Const")


def normal(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    return rng.normal(size=shape).astype(np.float32)


def close(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


@pytest.mark.parametrize("op", ["Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot"])
def test_a_node_that_computes_nothing_is_bypassed_and_as_output_an_identity(op: str) -> None:
    extra = {"message": b"m"} if op == "CheckNumerics" else {}
    nodes = [
        make_placeholder("x", 1, (None, 2)),
        make_node("a", op, ["x"], T=FLOAT, **extra),
        make_node("b", "Relu", ["a"], T=FLOAT),
        make_node("y", op, ["b"], T=FLOAT, **extra),
    ]
    graph = normalize(Graph(MappingProxyType({n.name: n for n in nodes}), ("x",), ("y",)))
    assert ops(graph) == ["Identity", "Placeholder", "Relu"]
    assert graph.nodes["y"].op == "Identity"
    assert list(graph.nodes["b"].input) == ["x"]


def test_identity_n_is_bypassed_output_by_output(build: Callable[..., Graph], run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        first, second = tf.identity_n([x, tf.nn.relu(x)])
        tf.subtract(first, second, name="y")

    graph = normalize(build(write))
    assert ops(graph) == ["Placeholder", "Relu", "Sub"]
    np.testing.assert_array_equal(run(graph, {"x": [-1.0, 2.0]})[0], [-1.0, 0.0])


def test_a_placeholder_with_default_is_its_default_unless_it_is_an_input(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [2], name="x")
        rate = tf.compat.v1.placeholder_with_default(tf.constant(3.0), [], name="rate")
        tf.multiply(tf.nn.relu(x), rate * 2.0, name="y")

    graph = normalize(build(write))
    assert ops(graph) == ["Mul", "Placeholder", "Relu"]
    np.testing.assert_array_equal(run(graph, {"x": [1.0, -1.0]})[0], [6.0, 0.0])
    kept = normalize(build(write, inputs=("x", "rate")))
    assert "PlaceholderWithDefault" in ops(kept)


def dropouts() -> dict[str, Callable[..., Any]]:
    """Name -> a function that writes a dropout of x, which may need a fed keep probability."""
    import tensorflow as tf

    v1 = tf.compat.v1

    def floor(x: Any) -> Any:  # as TensorFlow before 1.13 wrote it
        keep = tf.constant(0.8)
        noise = tf.raw_ops.RandomUniform(shape=tf.shape(x), dtype=tf.float32)
        noise = noise * (tf.constant(1.0) - 0.0) + 0.0
        return (x / keep) * tf.floor(keep + noise)

    def cast(x: Any) -> Any:  # as TensorFlow 1.14, 1.15 and 2.0 wrote it
        noise = tf.raw_ops.RandomUniform(shape=tf.shape(x), dtype=tf.float32)
        return (x * (1.0 / (1.0 - tf.constant(0.2)))) * tf.cast(noise >= 0.2, tf.float32)

    return {
        "v1": lambda x: v1.nn.dropout(x, rate=0.2),
        "v1 fed": lambda x: v1.nn.dropout(x, rate=1 - v1.placeholder(tf.float32, name="keep")),
        "v2": lambda x: tf.nn.dropout(x, 0.2),
        "stateless": lambda x: tf.nn.experimental.stateless_dropout(x, 0.2, seed=[1, 2]),
        "floor": floor,
        "cast": cast,
    }


@pytest.mark.parametrize("kind", ["v1", "v1 fed", "v2", "stateless", "floor", "cast"])
@pytest.mark.parametrize("output", ["y", "inner"])
def test_dropout_in_training_mode_is_removed(
    build: Callable[..., Graph], run: Callable[..., list[Any]], kind: str, output: str
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    weight = normal(rng, 3, 4)
    names = []

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 3], name="x")
        # Straight after a product, so that its scale must not be folded into the weight.
        dropped = dropouts()[kind](tf.matmul(x, tf.constant(weight)))
        names.append(dropped.op.name)
        tf.nn.relu(dropped, name="y")

    build(write)
    out = "y" if output == "y" else names[0]
    inputs = ("x", "keep") if kind == "v1 fed" else ("x",)
    graph = normalize(build(write, inputs=inputs, outputs=(out,)))
    last = "Relu" if output == "y" else "Identity"
    assert ops(graph) == sorted(["MatMul", last] + ["Placeholder"] * len(inputs))
    assert graph.outputs == (out,)
    x = normal(rng, 5, 3)
    expected = x.astype(np.float64) @ weight
    close(run(graph, {"x": x})[0], np.maximum(expected, 0) if output == "y" else expected)


def test_noise_that_is_no_dropout_stays(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [4], name="x")
        mask = tf.random.uniform([4]) >= 0.5
        tf.where(mask, x * 2.0, tf.constant(1.0), name="y")

    assert "RandomUniform" in ops(normalize(build(write)))


def test_five_thousand_nodes_with_a_thousand_rewrites_take_seconds() -> None:
    nodes = [make_placeholder("x", 1, (None, 4)), make_const("c", np.full(4, 0.9, np.float32))]
    last = "x"
    for i in range(550):
        nodes += [
            make_const(f"w{i}", np.eye(4, dtype=np.float32)),
            make_const(f"b{i}", np.ones(4, np.float32)),
            make_node(f"w{i}/read", "Identity", [f"w{i}"], T=FLOAT),
            make_node(f"a{i}", "MatMul", [last, f"w{i}/read"], T=FLOAT),
            make_node(f"m{i}", "Mul", [f"a{i}", "c"], T=FLOAT),
            make_node(f"s{i}", "AddV2", [f"m{i}", f"b{i}"], T=FLOAT),
            make_node(f"i{i}", "Identity", [f"s{i}"], T=FLOAT),
            make_node(f"r{i}", "Relu", [f"i{i}"], T=FLOAT),
            make_node(f"j{i}", "StopGradient", [f"r{i}"], T=FLOAT),
        ]
        last = f"j{i}"
    graph = Graph(MappingProxyType({n.name: n for n in nodes}), ("x",), (last,))
    start = time.process_time()
    result = normalize(graph)
    seconds = time.process_time() - start
    assert len(nodes) == 4952
    assert ops(result).count("MatMul") == ops(result).count("BiasAdd") == 550
    assert "Mul" not in ops(result)
    assert seconds < 10.0  # 1.2 s where it was measured
