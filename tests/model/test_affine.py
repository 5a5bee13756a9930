from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import attr_value_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Graph, make_const, make_node
from autoquant.model.normalize import normalize
from autoquant.model.shapes import make_placeholder

FLOAT = attr_value_pb2.AttrValue(type=1)


def ops(graph):
    return sorted(node.op for node in graph.nodes.values() if node.op != "Const")


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def close(actual, expected) -> None:
    assert np.linalg.norm(actual - expected) <= 1e-5 * np.linalg.norm(expected)


CONV = {"Conv2D": (3, 3, 2, 5), "DepthwiseConv2dNative": (3, 3, 2, 3), "MatMul": (4, 6)}


def channels_of(op: str) -> int:
    shape = CONV[op]
    return shape[2] * shape[3] if op == "DepthwiseConv2dNative" else shape[-1]


def write_linear(op: str, weight):
    """The placeholder 'x' and the operator over it."""
    import tensorflow as tf

    if op == "MatMul":
        x = tf.compat.v1.placeholder(tf.float32, [None, weight.shape[0]], name="x")
        return tf.matmul(x, tf.constant(weight), name="op")
    x = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, weight.shape[2]], name="x")
    if op == "Conv2D":
        return tf.nn.conv2d(x, tf.constant(weight), 1, "SAME", name="op")
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=tf.constant(weight), strides=[1, 1, 1, 1], padding="SAME", name="op"
    )


def sample(rng, op: str):
    return normal(rng, 2, 4) if op == "MatMul" else normal(rng, 2, 6, 6, 2)


def write_small_operators(t, gamma, beta, mean, variance):
    """As Keras 3 writes a batch norm."""
    import tensorflow as tf

    scale = tf.math.rsqrt(tf.constant(variance) + 1e-3) * gamma
    return tf.add(t * scale, tf.constant(beta) - tf.constant(mean) * scale, name="bn")


@pytest.mark.parametrize(
    ("op", "norm"),
    [
        *((op, "small") for op in CONV),
        # A fused batch norm reads four dimensions, so it never follows a MatMul.
        *((op, f"FusedBatchNorm{v}") for op in ("Conv2D", "DepthwiseConv2dNative") for v in ("", "V2", "V3")),
    ],
)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("output", ["y", "bn"])
def test_batch_norm_is_folded_into_the_operator_before(build, run, op, with_bias, norm, output) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(1)
    weight, channels = normal(rng, *CONV[op]), channels_of(op)
    bias, gamma, beta, mean = (normal(rng, channels) for _ in range(4))
    variance = rng.uniform(0.1, 4, channels).astype(np.float32)

    def write():
        t = write_linear(op, weight)
        t = tf.nn.bias_add(t, tf.constant(bias), name="bias") if with_bias else t
        if norm == "small":
            t = write_small_operators(t, gamma, beta, mean, variance)
        else:
            raw = getattr(tf.raw_ops, norm)
            arguments = {"scale": gamma, "offset": beta, "mean": mean, "variance": variance}
            t = raw(x=t, epsilon=1e-3, is_training=False, name="bn", **arguments).y
        tf.nn.relu(t, name="y")

    plain = build(lambda: write_linear(op, weight), outputs=("op",))
    graph = normalize(build(write, outputs=(output,)))
    assert ops(graph) == sorted(["Placeholder", op, "BiasAdd"] + (["Relu"] if output == "y" else []))
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
    op=st.sampled_from(list(CONV)),
    steps=st.lists(
        st.tuples(st.sampled_from(list(ARITHMETIC)), st.sampled_from(["vector", "ones", "scalar"])),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 2**16),
)
def test_per_channel_arithmetic_becomes_weight_and_bias(build, run, op, steps, seed) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    weight, channels = normal(rng, *CONV[op]), channels_of(op)
    ones = (1,) * ((2 if op == "MatMul" else 4) - 1)
    shapes = {"vector": (channels,), "ones": (*ones, channels), "scalar": ()}
    constants = [rng.uniform(0.5, 2, shapes[kind]).astype(np.float32) for _, kind in steps]

    def write():
        t = write_linear(op, weight)
        for (name, _), c in zip(steps, constants, strict=True):
            t = ARITHMETIC[name](t, tf.constant(c))
        tf.identity(t, name="y")

    graph = normalize(build(write))
    assert ops(graph) == sorted(["Placeholder", op, "BiasAdd", "Identity"])
    x = sample(rng, op)
    expected = run(build(lambda: write_linear(op, weight), outputs=("op",)), {"x": x})[0].astype(np.float64)
    size = np.abs(expected)
    for (name, _), c in zip(steps, constants, strict=True):
        expected = ARITHMETIC[name](expected, c.astype(np.float64))
        size = size * c if "*" in name else size / c if "/" in name else size + c  # what cancels out counts too
    assert np.linalg.norm(run(graph, {"x": x})[0] - expected) <= 1e-5 * np.linalg.norm(size)


@pytest.mark.parametrize("name", ["t * c", "t + c", "c - t"])
def test_an_output_that_is_folded_keeps_its_name(build, run, name: str) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(5)
    weight, c = normal(rng, 4, 6), normal(rng, 6)
    names = []

    def write():
        names.append(ARITHMETIC[name](write_linear("MatMul", weight), tf.constant(c)).op.name)

    build(write, outputs=("op",))
    graph = normalize(build(write, outputs=(names[0],)))
    assert graph.nodes[names[0]].op == "BiasAdd"
    assert graph.outputs == (names[0],)
    x = normal(rng, 3, 4)
    close(run(graph, {"x": x})[0], ARITHMETIC[name](x.astype(np.float64) @ weight, c))


def channels_first(constants, *, op: str = "Mul", batch_norm: bool = False):
    """From x -> Conv2D (NCHW, 2 -> 3 channels) -> op with a constant; TensorFlow on a CPU may not run it."""
    text = {"data_format": b"NCHW", "padding": b"SAME"}
    strides = attr_value_pb2.AttrValue()
    strides.list.i.extend([1, 1, 1, 1])
    weight = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    nodes = [
        make_placeholder("x", 1, (None, 2, 3, 3)),
        make_const("w", weight),
        make_node("conv", "Conv2D", ["x", "w"], T=FLOAT, strides=strides, **text),
        *(make_const(f"c{i}", value) for i, value in enumerate(constants)),
    ]
    if batch_norm:
        inputs = ["conv", *(f"c{i}" for i in range(4))]
        attrs = {"T": FLOAT, "U": FLOAT, "data_format": b"NCHW", "epsilon": 0.0, "is_training": False}
        nodes.append(make_node("y", "FusedBatchNormV3", inputs, **attrs))
    else:
        nodes.append(make_node("y", op, ["conv", "c0"], T=FLOAT))
    return Graph(MappingProxyType({n.name: n for n in nodes}), ("x",), ("y",)), weight


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1, 1)])
def test_channels_first_constants_fold_along_their_axis(shape) -> None:
    factor = np.array([2.0, 3.0, 4.0], np.float32)
    graph, weight = channels_first([factor.reshape(shape)])
    folded = normalize(graph)
    np.testing.assert_array_equal(folded.constant("w"), weight * factor)
    assert folded.nodes["y"].op == "BiasAdd"
    assert folded.nodes["y"].attr["data_format"].s == b"NCHW"


def test_a_channels_first_vector_lies_along_the_width_and_does_not_fold() -> None:
    graph, _ = channels_first([np.array([2.0, 3.0, 4.0], np.float32)])
    assert normalize(graph).nodes["y"].op == "Mul"


def test_a_channels_first_batch_norm_folds() -> None:
    gamma, beta, mean, variance = np.array([[2, 3, 4], [1, 1, 1], [1, 2, 3], [4, 4, 4]], np.float32)
    graph, weight = channels_first([gamma, beta, mean, variance], batch_norm=True)
    folded = normalize(graph)
    np.testing.assert_allclose(folded.constant("w"), weight * gamma / 2)
    np.testing.assert_allclose(folded.constant(folded.nodes["y"].input[1]), 1 - mean * gamma / 2)


@pytest.mark.parametrize("constants", [(6, 1), (2, 6), (1, 1, 6)])
def test_a_constant_that_is_not_per_channel_does_not_fold(build, constants) -> None:
    import tensorflow as tf

    def write():
        t = write_linear("MatMul", np.ones((4, 6), np.float32))
        tf.multiply(t[:6] if constants[0] == 6 else t, np.ones(constants, np.float32), name="y")

    assert "Mul" in ops(normalize(build(write)))


def test_a_single_channel_that_is_broadcast_to_many_does_not_fold(build) -> None:
    import tensorflow as tf

    graph = build(lambda: tf.multiply(write_linear("MatMul", np.ones((4, 1), np.float32)), np.ones(8, "f4"), name="y"))
    assert "Mul" in ops(normalize(graph))


def test_a_transposed_weight_is_scaled_along_its_own_axis(build, run) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(7)
    weight, factor = normal(rng, 6, 4), normal(rng, 6)

    def write():
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        tf.multiply(tf.matmul(x, weight, transpose_b=True), factor, name="y")

    graph = normalize(build(write))
    assert graph.nodes["y"].op == "BiasAdd"
    x = normal(rng, 3, 4)
    close(run(graph, {"x": x})[0], (x.astype(np.float64) @ weight.T) * factor)


@pytest.mark.parametrize("keep", ["op", "bias"])
def test_what_others_read_or_is_an_output_does_not_fold(build, keep: str) -> None:
    import tensorflow as tf

    def write(second_reader: bool = False):
        t = tf.nn.bias_add(write_linear("MatMul", np.ones((4, 6), np.float32)), tf.zeros(6), name="bias")
        tf.multiply(t, np.full(6, 2, np.float32), name="y")
        if second_reader:
            tf.nn.relu(tf.compat.v1.get_default_graph().get_tensor_by_name(f"{keep}:0"), name="z")

    assert "Mul" in ops(normalize(build(write, outputs=("y", keep))))
    assert "Mul" in ops(normalize(build(lambda: write(second_reader=True), outputs=("y", "z"))))


@pytest.mark.parametrize("factor", [np.inf, np.nan, 0.0, 1e30])
def test_a_fold_that_would_not_be_finite_is_not_made(build, factor: float) -> None:
    import tensorflow as tf

    weight = np.full((4, 6), 1e20, np.float32)
    divide = factor == 0.0

    def write():
        t = write_linear("MatMul", weight)
        c = np.full(6, factor, np.float32)
        (tf.divide if divide else tf.multiply)(t, c, name="y")

    assert ("RealDiv" if divide else "Mul") in ops(normalize(build(write)))


def test_layers_that_share_a_weight_get_private_copies(build, run) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(2)
    weight, first, second = normal(rng, 4, 4), normal(rng, 4), normal(rng, 4)

    def write():
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


def test_a_batch_norm_in_training_mode_is_refused(build) -> None:
    import tensorflow as tf

    def write():
        t = write_linear("Conv2D", np.ones(CONV["Conv2D"], np.float32))
        one = np.ones(5, np.float32)
        tf.raw_ops.FusedBatchNormV3(x=t, scale=one, offset=one, mean=one, variance=one, is_training=True, name="y")

    with pytest.raises(ModelError, match=r"y: .*training mode; export the model in inference mode"):
        normalize(build(write))


def test_a_batch_norm_whose_statistics_are_read_or_that_follows_no_layer_stays(build) -> None:
    import tensorflow as tf

    one = {key: np.ones(5, np.float32) for key in ("scale", "offset", "mean", "variance")}

    def write():
        t = write_linear("Conv2D", np.ones(CONV["Conv2D"], np.float32))
        read = tf.raw_ops.FusedBatchNormV3(x=t, is_training=False, **one)
        follows = tf.raw_ops.FusedBatchNormV3(x=tf.nn.relu(read.y), is_training=False, name="bn", **one)
        tf.add(follows.y, read.batch_mean, name="y")

    assert ops(normalize(build(write))).count("FusedBatchNormV3") == 2
