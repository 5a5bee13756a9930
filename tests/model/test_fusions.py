"""Operators and batch norms folded into operators; the numbers are those of AMCT's fusions in affine.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_writing import NORMS, SMALL, normal, ops, placeholder

from autoquant.model.graph import Graph
from autoquant.model.normalize import normalize
from autoquant.model.open import open_model

pytestmark = [
    # Keras converts its variables by a protocol of NumPy 1, which NumPy 2 announces the end of.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def layers_before_a_norm() -> dict[str, tuple[Any, ...]]:
    import keras

    layers = keras.layers
    return {
        "Conv2D": ((6, 6, 3), lambda bias: layers.Conv2D(4, 3, use_bias=bias)),
        "Conv3D": ((4, 5, 5, 2), lambda bias: layers.Conv3D(4, 2, use_bias=bias)),
        "Conv2DBackpropInput": ((5, 5, 3), lambda bias: layers.Conv2DTranspose(4, 3, strides=2, use_bias=bias)),
        "DepthwiseConv2dNative": ((6, 6, 3), lambda bias: layers.DepthwiseConv2D(3, use_bias=bias)),
        "MatMul": ((5,), lambda bias: layers.Dense(4, use_bias=bias)),
        "MatMul of a sequence": ((7, 5), lambda bias: layers.Dense(4, use_bias=bias)),
    }


BEFORE = ["Conv2D", "Conv3D", "Conv2DBackpropInput", "DepthwiseConv2dNative", "MatMul", "MatMul of a sequence"]
KERAS = [(op, True, True, bias) for op in BEFORE for bias in (False, True)]
KERAS += [(op, *form, True) for op in ("Conv2D", "Conv3D") for form in [(False, True), (True, False), (False, False)]]


@pytest.mark.parametrize(("op", "center", "scale", "bias"), KERAS)
def test_8_a_batch_norm_of_keras_is_folded_entirely(
    tmp_path: Path, run: Callable[..., list[Any]], op: str, center: bool, scale: bool, bias: bool
) -> None:
    import keras

    shape, layer = layers_before_a_norm()[op]
    norm = keras.layers.BatchNormalization(center=center, scale=scale, epsilon=0.01)
    model = keras.Sequential([keras.Input(shape, name="x"), layer(bias), norm, keras.layers.ReLU()])
    rng = np.random.default_rng(11)
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    model.save(tmp_path / "m.keras")
    graph = open_model(tmp_path / "m.keras").graph
    assert not SMALL & set(ops(graph))
    assert (ops(graph).count(op.split()[0]), ops(graph).count("BiasAdd")) == (1, 1)
    x = normal(rng, 3, *shape)
    np.testing.assert_allclose(
        run(graph, {graph.inputs[0]: x})[0], np.asarray(model(x, training=False)), rtol=1e-5, atol=1e-5
    )


def written_by_hand() -> dict[str, Callable[..., Any]]:
    """What -> a batch norm with gamma g, beta b, mean m and variance v, as TensorFlow 1 code had it."""
    import tensorflow as tf

    return {
        "textbook": lambda t, g, b, m, v: (t - m) / tf.sqrt(tf.constant(v) + 1e-3) * g + b,
        "rsqrt": lambda t, g, b, m, v: g * ((t - m) * tf.math.rsqrt(tf.constant(v) + 1e-3)) + b,
        "folded": lambda t, g, b, m, v: tf.compat.v1.nn.batch_normalization(t, *map(tf.constant, (m, v, b, g)), 1e-3),
        "global": lambda t, g, b, m, v: tf.nn.batch_norm_with_global_normalization(
            t, *map(tf.constant, (m, v, b, g)), 1e-3, True
        ),
    }


@pytest.mark.parametrize("form", ["textbook", "rsqrt", "folded", "global"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_8_a_batch_norm_of_small_operators_written_by_hand_is_folded_entirely(
    build: Callable[..., Graph], check: Callable[..., set[str]], form: str, with_bias: bool
) -> None:
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(12)
        t = tf.nn.conv2d(placeholder(None, 6, 6, 2), normal(rng, 3, 3, 2, 5), 1, "SAME")
        t = tf.nn.bias_add(t, normal(rng, 5)) if with_bias else t
        t = written_by_hand()[form](t, *(normal(rng, 5) for _ in range(3)), rng.uniform(0.1, 4, 5).astype(np.float32))
        tf.nn.relu(tf.identity(t), name="y")

    before = build(write)
    after = normalize(before)
    assert sorted(ops(after)) == ["BiasAdd", "Conv2D", "Placeholder", "Relu"]
    assert "y" in check(before, after, x=normal(np.random.default_rng(13), 2, 6, 6, 2))


AFTER = {
    "Mul": lambda t, c: t * c,
    "RealDiv": lambda t, c: t / c,
    "AddV2": lambda t, c: t + c,
    "Sub": lambda t, c: t - c,
    "turned Sub": lambda t, c: c - t,
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize(
    ("name", "size"), [("BiasAdd", (5,)), *((name, size) for name in AFTER for size in [(5,), (), (1, 1, 1, 5)])]
)
def test_9_what_follows_a_batch_norm_without_a_layer_goes_into_it(
    build: Callable[..., Graph],
    check: Callable[..., set[str]],
    batch_norm: Callable[..., Any],
    kind: str,
    name: str,
    size: tuple[int, ...],
) -> None:
    import tensorflow as tf

    constant = np.random.default_rng(14).uniform(0.5, 2, size).astype(np.float32)
    function = tf.nn.bias_add if name == "BiasAdd" else AFTER[name]

    def write() -> None:
        t = tf.nn.relu(placeholder(None, 3, 3, 5))
        t = function(batch_norm(np.random.default_rng(15), t, 5, kind).y, tf.constant(constant))
        tf.nn.relu(tf.multiply(t, 3.0, name="last"), name="y")

    before = build(write)
    after = normalize(before)
    assert ops(after) == ["Placeholder", "Relu", kind, "Relu"]
    assert (after.nodes["last"].op, "bn" in after.nodes) == (kind, False)
    assert {"last", "y"} <= check(before, after, x=normal(np.random.default_rng(16), 2, 3, 3, 5))


def test_9_constants_that_others_read_are_copied(build: Callable[..., Graph], check: Callable[..., set[str]]) -> None:
    import tensorflow as tf

    def write() -> None:
        one, two = tf.ones(5, name="one"), tf.fill([5], 2.0, name="two")
        arguments = {"scale": one, "mean": two, "variance": two, "is_training": False}
        first = tf.raw_ops.FusedBatchNormV3(x=tf.nn.relu(placeholder(None, 3, 3, 5)), offset=one, **arguments).y * 4.0
        second = tf.raw_ops.FusedBatchNormV3(x=tf.nn.relu(first), offset=two, name="second", **arguments).y
        tf.nn.relu(second, name="y")

    before = build(write)
    after = normalize(before)
    assert "Mul" not in ops(after)
    assert check(before, after, x=normal(np.random.default_rng(17), 2, 3, 3, 5)) >= {"second", "y"}


def test_readers_of_the_shape_alone_do_not_hinder_a_fusion(
    build: Callable[..., Graph], check: Callable[..., set[str]], batch_norm: Callable[..., Any]
) -> None:
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(19)
        op = tf.nn.conv2d(placeholder(None, 5, 5, 4), normal(rng, 1, 1, 4, 4), 1, "SAME", name="op")
        bias = tf.nn.bias_add(op, normal(rng, 4), name="bias")
        t = batch_norm(rng, bias, 4).y
        tf.add_n([tf.reduce_sum(tf.cast(tf.shape(made), tf.float32)) for made in (op, bias)], name="total")
        tf.nn.relu(t, name="y")

    before = build(write, outputs=("y", "total"))
    after = normalize(before)
    assert not set(ops(after)) & set(NORMS)
    consumer = after.single_consumer("op")
    assert consumer is not None
    assert consumer.name == "bn"
    assert check(before, after, x=normal(np.random.default_rng(20), 2, 5, 5, 4)) >= {"bn", "y", "total"}


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize("ones", [0, 1, 2, 3])
def test_a_product_of_any_rank_takes_a_constant_that_has_no_more_axes(
    build: Callable[..., Graph], check: Callable[..., set[str]], rank: int, ones: int
) -> None:
    import tensorflow as tf

    def write() -> None:
        rng = np.random.default_rng(21)
        t = tf.raw_ops.BatchMatMulV2(x=placeholder(None, *[3] * (rank - 2), 4), y=normal(rng, 4, 6))
        tf.nn.relu(tf.multiply(t, normal(rng, *[1] * ones, 6), name="bn"), name="y")

    before = build(write)
    after = normalize(before)
    assert ("Mul" in ops(after)) == (ones >= rank)
    assert "y" in check(before, after, x=normal(np.random.default_rng(22), 2, *[3] * (rank - 2), 4))
