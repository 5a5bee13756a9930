from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.normalize import normalize


def ops(graph: Graph) -> list[str]:
    return sorted(node.op for node in graph.nodes.values() if node.op != "Const")


def normal(rng: np.random.Generator, *shape: int) -> NDArray[Any]:
    return rng.normal(size=shape).astype(np.float32)


def close(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


# Operator -> the shapes of its weight and of its data.
SHAPES = {
    "BatchMatMulV2": ((4, 6), (2, 3, 4)),
    "Conv2D": ((3, 3, 2, 5), (2, 6, 6, 2)),
    "Conv2DBackpropInput": ((2, 2, 5, 3), (2, 3, 3, 3)),
    "Conv3D": ((2, 2, 2, 2, 5), (2, 3, 4, 4, 2)),
    "DepthwiseConv2dNative": ((3, 3, 2, 3), (2, 6, 6, 2)),
    "MatMul": ((4, 6), (2, 4)),
}
CHANNELS = {"BatchMatMulV2": 6, "Conv2D": 5, "Conv2DBackpropInput": 5, "Conv3D": 5, "DepthwiseConv2dNative": 6}
CHANNELS |= {"MatMul": 6}


def write_linear(op: str, weight: NDArray[Any]) -> Any:
    """The placeholder 'x' and the operator over it."""
    import tensorflow as tf

    x = tf.compat.v1.placeholder(tf.float32, [None, *SHAPES[op][1][1:]], name="x")
    w = tf.constant(weight)
    if op == "MatMul":
        return tf.matmul(x, w, name="op")
    if op == "BatchMatMulV2":
        return tf.raw_ops.BatchMatMulV2(x=x, y=w, name="op")
    if op == "Conv2D":
        return tf.nn.conv2d(x, w, 1, "SAME", name="op")
    if op == "Conv3D":
        return tf.nn.conv3d(x, w, [1] * 5, "SAME", name="op")
    if op == "Conv2DBackpropInput":
        shape = tf.stack([tf.shape(x)[0], 6, 6, weight.shape[2]])
        return tf.raw_ops.Conv2DBackpropInput(
            input_sizes=shape, filter=w, out_backprop=x, strides=[1, 2, 2, 1], padding="SAME", name="op"
        )
    return tf.raw_ops.DepthwiseConv2dNative(input=x, filter=w, strides=[1, 1, 1, 1], padding="SAME", name="op")


def sample(rng: np.random.Generator, op: str) -> NDArray[Any]:
    return normal(rng, *SHAPES[op][1])


def but_shapes(graph: Graph) -> list[str]:
    """Operators without those that compute a shape."""
    return [op for op in ops(graph) if op not in {"Shape", "StridedSlice", "Pack"}]


def write_small_operators(
    t: Any, gamma: NDArray[Any], beta: NDArray[Any], mean: NDArray[Any], variance: NDArray[Any]
) -> Any:
    """As Keras 3 writes a batch norm."""
    import tensorflow as tf

    scale = tf.math.rsqrt(tf.constant(variance) + 1e-3) * gamma
    return tf.add(t * scale, tf.constant(beta) - tf.constant(mean) * scale, name="bn")


@pytest.mark.parametrize(
    ("op", "norm"),
    [
        *((op, "small") for op in SHAPES),
        # A fused batch norm reads four dimensions, the newest five too, so it never follows a product of matrices.
        *((op, f"FusedBatchNorm{v}") for op in ("Conv2D", "DepthwiseConv2dNative") for v in ("", "V2", "V3")),
        *((op, "FusedBatchNormV3") for op in ("Conv3D", "Conv2DBackpropInput")),
    ],
)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("output", ["y", "bn"])
def test_batch_norm_is_folded_into_the_operator_before(
    build: Callable[..., Graph], run: Callable[..., list[Any]], op: str, with_bias: bool, norm: str, output: str
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(1)
    weight, channels = normal(rng, *SHAPES[op][0]), CHANNELS[op]
    bias, gamma, beta, mean = (normal(rng, channels) for _ in range(4))
    variance = rng.uniform(0.1, 4, channels).astype(np.float32)

    def write() -> None:
        t = write_linear(op, weight)
        t = tf.nn.bias_add(t, tf.constant(bias), name="bias") if with_bias else t
        if norm == "small":
            t = write_small_operators(t, gamma, beta, mean, variance)
        else:
            raw = getattr(tf.raw_ops, norm)
            arguments: dict[str, Any] = {"scale": gamma, "offset": beta, "mean": mean, "variance": variance}
            arguments |= {"data_format": "NDHWC"} if op == "Conv3D" else {}
            t = raw(x=t, epsilon=1e-3, is_training=False, name="bn", **arguments).y
        tf.nn.relu(t, name="y")

    plain = build(lambda: write_linear(op, weight), outputs=("op",))
    graph = normalize(build(write, outputs=(output,)))
    assert but_shapes(graph) == sorted(["Placeholder", op, "BiasAdd"] + (["Relu"] if output == "y" else []))
    assert graph.nodes["bn"].op == "BiasAdd"
    x = sample(rng, op)
    product = run(plain, {"x": x})[0].astype(np.float64) + (bias if with_bias else 0.0)
    expected = (product - mean) / np.sqrt(variance.astype(np.float64) + 1e-3) * gamma + beta
    close(run(graph, {"x": x})[0], np.maximum(expected, 0) if output == "y" else expected)


ARITHMETIC = {
    "t * c": lambda t, c: t * c,
    "c * t": lambda t, c: c * t,
    "t / c": lambda t, c: t / c,
    "t + c": lambda t, c: t + c,
    "c + t": lambda t, c: c + t,
    "t - c": lambda t, c: t - c,
    "c - t": lambda t, c: c - t,
}


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(list(SHAPES)),
    steps=st.lists(
        st.tuples(st.sampled_from(list(ARITHMETIC)), st.sampled_from(["vector", "ones", "scalar"])),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 2**16),
)
def test_per_channel_arithmetic_becomes_weight_and_bias(
    build: Callable[..., Graph], run: Callable[..., list[Any]], op: str, steps: list[tuple[str, str]], seed: int
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    weight, channels = normal(rng, *SHAPES[op][0]), CHANNELS[op]
    ones = (1,) * (len(SHAPES[op][1]) - 1)
    shapes = {"vector": (channels,), "ones": (*ones, channels), "scalar": ()}
    constants = [rng.uniform(0.5, 2, shapes[kind]).astype(np.float32) for _, kind in steps]

    def write() -> None:
        t = write_linear(op, weight)
        for (name, _), c in zip(steps, constants, strict=True):
            t = ARITHMETIC[name](t, tf.constant(c))
        tf.identity(t, name="y")

    graph = normalize(build(write))
    assert but_shapes(graph) == sorted(["Placeholder", op, "BiasAdd", "Identity"])
    x = sample(rng, op)
    expected = run(build(lambda: write_linear(op, weight), outputs=("op",)), {"x": x})[0].astype(np.float64)
    size = np.abs(expected)
    for (name, _), c in zip(steps, constants, strict=True):
        expected = ARITHMETIC[name](expected, c.astype(np.float64))
        size = size * c if "*" in name else size / c if "/" in name else size + c  # what cancels out counts too
    assert np.linalg.norm(run(graph, {"x": x})[0] - expected) <= 1e-5 * np.linalg.norm(size)


@pytest.mark.parametrize("name", ["t * c", "t + c", "c - t"])
def test_an_output_that_is_folded_keeps_its_name(
    build: Callable[..., Graph], run: Callable[..., list[Any]], name: str
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(5)
    weight, c = normal(rng, 4, 6), normal(rng, 6)
    names = []

    def write() -> None:
        names.append(ARITHMETIC[name](write_linear("MatMul", weight), tf.constant(c)).op.name)

    build(write, outputs=("op",))
    graph = normalize(build(write, outputs=(names[0],)))
    assert graph.nodes[names[0]].op == "BiasAdd"
    assert graph.outputs == (names[0],)
    x = normal(rng, 3, 4)
    close(run(graph, {"x": x})[0], ARITHMETIC[name](x.astype(np.float64) @ weight, c))


@pytest.mark.parametrize("constants", [(6, 1), (2, 6), (1, 1, 6)])
def test_a_constant_that_is_not_per_channel_does_not_fold(
    build: Callable[..., Graph], constants: tuple[int, ...]
) -> None:
    import tensorflow as tf

    def write() -> None:
        t = write_linear("MatMul", np.ones((4, 6), np.float32))
        tf.multiply(t[:6] if constants[0] == 6 else t, np.ones(constants, np.float32), name="y")

    assert "Mul" in ops(normalize(build(write)))


def test_a_single_channel_that_is_broadcast_to_many_does_not_fold(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    graph = build(lambda: tf.multiply(write_linear("MatMul", np.ones((4, 1), np.float32)), np.ones(8, "f4"), name="y"))
    assert "Mul" in ops(normalize(graph))


def test_a_transposed_weight_is_scaled_along_its_own_axis(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(7)
    weight, factor = normal(rng, 6, 4), normal(rng, 6)

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        tf.multiply(tf.matmul(x, weight, transpose_b=True), factor, name="y")

    graph = normalize(build(write))
    assert graph.nodes["y"].op == "BiasAdd"
    x = normal(rng, 3, 4)
    close(run(graph, {"x": x})[0], (x.astype(np.float64) @ weight.T) * factor)


@pytest.mark.parametrize("keep", ["op", "bias"])
def test_tensors_with_other_readers_or_outputs_do_not_fold(build: Callable[..., Graph], keep: str) -> None:
    import tensorflow as tf

    def write(second_reader: bool = False) -> None:
        t = tf.nn.bias_add(write_linear("MatMul", np.ones((4, 6), np.float32)), tf.zeros(6), name="bias")
        tf.multiply(t, np.full(6, 2, np.float32), name="y")
        if second_reader:
            tf.nn.relu(tf.compat.v1.get_default_graph().get_tensor_by_name(f"{keep}:0"), name="z")

    assert "Mul" in ops(normalize(build(write, outputs=("y", keep))))
    assert "Mul" in ops(normalize(build(lambda: write(second_reader=True), outputs=("y", "z"))))


@pytest.mark.parametrize("factor", [np.inf, np.nan, 0.0, 1e30])
def test_a_fold_that_would_not_be_finite_is_not_made(build: Callable[..., Graph], factor: float) -> None:
    import tensorflow as tf

    weight = np.full((4, 6), 1e20, np.float32)
    divide = factor == 0.0

    def write() -> None:
        t = write_linear("MatMul", weight)
        c = np.full(6, factor, np.float32)
        (tf.divide if divide else tf.multiply)(t, c, name="y")

    assert ("RealDiv" if divide else "Mul") in ops(normalize(build(write)))


def test_layers_that_share_a_weight_get_private_copies(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(2)
    weight, first, second = normal(rng, 4, 4), normal(rng, 4), normal(rng, 4)

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        shared = tf.constant(weight, name="w")
        hidden = tf.nn.relu(tf.matmul(x, shared) * first)
        tf.multiply(tf.matmul(hidden, shared), second, name="y")

    graph = normalize(build(write))
    weights = {node.input[1] for node in graph.nodes.values() if node.op == "MatMul"}
    assert len(weights) == 2
    x = normal(rng, 3, 4)
    expected = np.maximum(x.astype(np.float64) @ weight * first, 0) @ weight * second
    close(run(graph, {"x": x})[0], expected)


def test_a_batch_norm_in_training_mode_is_refused(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        t = write_linear("Conv2D", np.ones(SHAPES["Conv2D"][0], np.float32))
        one = np.ones(5, np.float32)
        tf.raw_ops.FusedBatchNormV3(x=t, scale=one, offset=one, mean=one, variance=one, is_training=True, name="y")

    with pytest.raises(ModelError, match=r"y: .*training mode; export the model in inference mode"):
        normalize(build(write))


def test_a_batch_norm_whose_statistics_are_read_or_that_follows_no_layer_stays(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    one = {key: np.ones(5, np.float32) for key in ("scale", "offset", "mean", "variance")}

    def write() -> None:
        t = write_linear("Conv2D", np.ones(SHAPES["Conv2D"][0], np.float32))
        read = tf.raw_ops.FusedBatchNormV3(x=t, is_training=False, **one)
        follows = tf.raw_ops.FusedBatchNormV3(x=tf.nn.relu(read.y), is_training=False, name="bn", **one)
        tf.add(follows.y, read.batch_mean, name="y")

    assert ops(normalize(build(write))).count("FusedBatchNormV3") == 2
