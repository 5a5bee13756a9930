"""Models of half precision are opened in float32: what they compute is what plain TensorFlow computes in half."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import without_warnings_of_keras

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.half import in_float32
from autoquant.model.nodes import BFLOAT16, HALF, attr_of
from autoquant.model.open import open_model, prepare_graph
from autoquant.model.shapes import input_specs
from autoquant.model.survey import survey_graph

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
Build = Callable[..., Graph]
Run = Callable[..., list[Any]]
STEP = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The relative step of a type."""


def weight(kind: str, *shape: int) -> Any:
    import tensorflow as tf

    fan_in = np.prod(shape[:-1])
    return tf.constant(np.random.default_rng(len(shape)).normal(0, fan_in**-0.5, shape), kind)


def batch_normalized(x: Any, kind: str) -> Any:
    import tensorflow as tf

    t = tf.nn.conv2d(x, weight(kind, 3, 3, 4, 8), 1, "SAME", name="conv")
    moments = {"scale": [1.5] * 8, "offset": [0.25] * 8, "mean": [0.5] * 8, "variance": [2.0] * 8}
    t = tf.raw_ops.FusedBatchNormV3(x=t, is_training=False, **moments)[0]
    return tf.nn.relu(t)


def cast_to_and_fro(x: Any, kind: str) -> Any:
    import tensorflow as tf

    t = tf.cast(tf.nn.softplus(tf.cast(x, "float32")), kind)
    return tf.nn.depthwise_conv2d(t, weight(kind, 3, 3, 4, 2), (1, 1, 1, 1), "SAME")


def masked(x: Any, kind: str) -> Any:
    """Attention among the rows; every other key is hidden by the least number of the type, the last by infinity."""
    import tensorflow as tf

    rows = tf.reshape(x, (-1, 8, 32))
    scores = tf.matmul(rows, tf.transpose(rows @ weight(kind, 32, 32), (0, 2, 1)))
    least = float(tf.as_dtype(kind).min)
    hidden = [least if key % 2 else 0.0 for key in range(7)]
    return tf.matmul(tf.nn.softmax(scores + tf.constant([*hidden, -np.inf], kind)), rows)


def looped(x: Any, kind: str) -> Any:
    """A While around an If; what goes around has half precision."""
    import tensorflow as tf

    def step(count: Any, t: Any) -> Any:
        doubled = tf.cond(count < 2, lambda: t @ weight(kind, 32, 32), lambda: t + tf.constant(0.5, kind))
        return count + 1, tf.cast(tf.nn.relu(tf.cast(doubled, "float32")), kind)

    flat = tf.reshape(x, (-1, 32))
    t = tf.while_loop(lambda count, _: count < 4, step, [0, flat], shape_invariants=[flat.shape[:0], flat.shape])[1]
    return t @ weight(kind, 32, 3)


def identities(x: Any, kind: str) -> Any:
    import tensorflow as tf

    first, second = tf.identity_n([x, tf.stack([x, x])[0]])
    return tf.nn.conv2d(first * second, weight(kind, 1, 1, 4, 3), 1, "SAME")


GRAPHS: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "batch norm": (batch_normalized, ["Conv2D"]),
    "casts": (cast_to_and_fro, ["DepthwiseConv2dNative"]),
    "masks": (masked, ["BatchMatMulV2"] * 3),
    "loop": (looped, ["MatMul"]),
    "lists of types": (identities, ["Conv2D"]),
}
"""What is written over x (batch, 8, 8, 4), and the layers it has."""


def of_half(build: Build, write: Callable[..., Any], kind: str) -> Graph:
    import tensorflow as tf

    def written() -> None:
        x = tf.compat.v1.placeholder(kind, (None, 8, 8, 4), name="x")
        tf.compat.v1.enable_control_flow_v2()
        tf.identity(write(x, kind), name="y")

    return build(written)


@pytest.mark.parametrize("kind", STEP)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_gives_the_same_in_float32(name: str, kind: str, build: Build, run: Run) -> None:
    write, layers = GRAPHS[name]
    graph = of_half(build, write, kind)
    opened = prepare_graph(graph)
    assert [layer.op for layer in survey_graph(opened).layers] == layers
    assert [(spec.name, spec.dtype.name) for spec in input_specs(opened)] == [("x", "float32")]
    assert not {node.op for node in opened.nodes.values()} & {"Cast", "FusedBatchNormV3"}
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 4)).astype(kind if kind == "float16" else np.float32)
    (wanted,), (found,) = run(graph, {"x": x}), run(opened, {"x": x})
    assert found.dtype == np.float32
    error = np.abs(found - wanted.astype(np.float32)).max()
    assert 0 < error <= 8 * STEP[kind] * np.abs(found).max()


def test_constants_keep_their_values_even_those_that_saturate(build: Build) -> None:
    import tensorflow as tf

    def write(x: Any, kind: str) -> Any:
        values = tf.constant([[-65504.0, -np.inf, 6e-8, 0.1]], kind, name="mask")
        return tf.sin(x) + values + tf.fill((1, 4), tf.constant(np.nan, kind))

    graph = of_half(build, write, "float16")
    found = in_float32(graph).constant("mask")
    assert found is not None
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array([[-65504, -np.inf, 6e-8, 0.1]], np.float16).astype(np.float32))


def test_a_graph_in_float32_stays(build: Build) -> None:
    graph = of_half(build, masked, "float32")
    assert in_float32(graph) is graph


@pytest.mark.parametrize("inside", [False, True], ids=["graph", "function"])
def test_what_takes_the_bytes_of_half_precision_is_refused(inside: bool, build: Build) -> None:
    import tensorflow as tf

    def bits(t: Any) -> Any:
        return tf.cast(tf.bitcast(t, tf.uint16), tf.float16)

    def write(x: Any, kind: str) -> Any:
        t = tf.while_loop(lambda t: tf.reduce_sum(t) < 9, lambda t: [bits(t)], [x]) if inside else bits(x)
        return tf.nn.conv2d(tf.reshape(t, tf.shape(x), name="inner"), weight(kind, 1, 1, 4, 3), 1, "SAME")

    graph = of_half(build, write, "float16")
    with pytest.raises(ModelError, match=r"Bitcast takes the bytes of half precision.*; export the model in float32"):
        prepare_graph(graph)
    if not inside:
        assert input_specs(prepare_graph(graph, inputs=["inner"]))[0].dtype == np.float32


@cache
def mixed(policy: str) -> Any:
    """A network of Keras in mixed precision, whose batch norms are no identities; its softmax is in half too."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        x = image = keras.Input((8, 8, 4), name="image")
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False, name="conv")(x)))
        x = layers.BatchNormalization()(layers.DepthwiseConv2D(3, name="depthwise")(x))
        x = layers.AveragePooling2D(2, name="pool")(layers.Dropout(0.2)(layers.Activation("swish")(x)))
        x = layers.LayerNormalization()(layers.Dense(5, name="dense")(layers.Flatten()(x)))
        model = keras.Model(image, layers.Softmax()(x))
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    with without_warnings_of_keras():
        model(np.random.default_rng(1).normal(1, 2, (64, 8, 8, 4)).astype(np.float32), training=True)
    return model


@pytest.mark.parametrize(
    ("policy", "suffix"),
    [("mixed_float16", ".keras"), ("mixed_float16", ".h5"), ("mixed_float16", ""), ("mixed_bfloat16", ".keras")],
)
def test_mixed_precision_of_keras(policy: str, suffix: str, tmp_path: Path, run: Run) -> None:
    model, path = mixed(policy), tmp_path / f"mixed{suffix}"
    with without_warnings_of_keras():
        model.save(path) if suffix else model.export(path, verbose=False)
    opened = open_model(path)
    graph = opened.graph
    layers = [layer.op for layer in survey_graph(graph).layers]
    assert layers == ["Conv2D", "DepthwiseConv2dNative", "AvgPool", "MatMul"]
    assert [spec.dtype for spec in opened.inputs] == [np.float32]
    types = {attr_of(node, key).type for node in graph.nodes.values() for key in ("T", "SrcT", "DstT", "dtype")}
    assert not types & {HALF, BFLOAT16}
    assert [node.name for node in graph.nodes.values() if node.op == "Rsqrt" and "batch_norm" in node.name] == []
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 4)).astype(np.float32)
    with without_warnings_of_keras():
        wanted = np.asarray(model(x)).astype(np.float32)
    (found,) = run(graph, {graph.inputs[0]: x})
    np.testing.assert_allclose(found, wanted, atol=8 * STEP[policy.removeprefix("mixed_")])
