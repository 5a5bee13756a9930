"""Operators that look like layers but are none, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.model.graph import Graph
from autoquant.model.layer import Survey
from autoquant.model.normalize import normalize
from autoquant.model.open import open_model
from autoquant.model.survey import survey_graph

KERNEL = np.ones((3, 3, 2, 3), np.float32)
DEPTHWISE = np.ones((3, 3, 2, 1), np.float32)
CUBE = np.ones((3, 3, 3, 2, 3), np.float32)


def ones(*shape: int) -> NDArray[Any]:
    return np.ones(shape, np.float32)


def flat(x: Any) -> Any:
    import tensorflow as tf

    return tf.reshape(x, [4, 128])


def windowed(
    op: str, weight: NDArray[Any], *, strides: int = 1, dilations: Any = 1, data_format: str = "NHWC", **inputs: Any
) -> Any:
    """A convolution with strides and dilations of its own for every spatial axis."""
    import tensorflow as tf

    rank = len(weight.shape) - 2
    lists = {}
    for key, sizes in (("strides", strides), ("dilations", dilations)):
        spatial = [sizes] * rank if isinstance(sizes, int) else list(sizes)
        lists[key] = [1, 1, *spatial] if data_format.startswith("NC") else [1, *spatial, 1]
    return getattr(tf.raw_ops, op)(
        filter=tf.constant(weight), padding="SAME", data_format=data_format, name="r", **lists, **inputs
    )


def deconv(x: Any, dilations: Any) -> Any:
    return windowed(
        "Conv2DBackpropInput", ones(3, 3, 3, 2), dilations=dilations, input_sizes=[4, 8, 8, 3], out_backprop=x
    )


def in_a_function(x: Any) -> Any:
    import tensorflow as tf

    body = tf.function(lambda t: tf.matmul(t, ones(128, 3))).get_concrete_function(tf.TensorSpec([4, 128]))
    return tf.raw_ops.PartitionedCall(args=[flat(x)], Tout=[tf.float32], f=body, name="r")[0]


def rejected() -> dict[str, tuple[Callable[..., Any], str]]:
    """What, how the operator `r` is written over x (4, 8, 8, 2), why it is not a layer."""
    import tensorflow as tf

    raw, nn = tf.raw_ops, tf.nn
    nan = np.where(ones(128, 3).cumsum(axis=0) == 5, np.nan, 1).astype(np.float32)
    half = np.float16(1) * KERNEL.astype(np.float16)
    fed = "is not constant: it depends on the input 'x'"
    depthwise = "DepthwiseConv2dNative"
    return {
        "weight from the data": (
            lambda x: tf.matmul(flat(x), tf.transpose(flat(x), name="t"), name="r"),
            f"its weight 't' {fed}",
        ),
        "constant times data": (lambda x: tf.matmul(ones(3, 4), flat(x), name="r"), f"its weight 'Reshape' {fed}"),
        "filter from the data": (
            lambda x: nn.conv2d(x, tf.transpose(x, [1, 2, 3, 0])[:3, :3], 1, "SAME", name="r"),
            f"its weight 'strided_slice' {fed}",
        ),
        "random weight": (
            lambda x: tf.matmul(flat(x), tf.random.uniform([128, 3], name="u"), name="r"),
            "its weight 'u/RandomUniform' is not constant",
        ),
        "transpose_a": (
            lambda x: tf.matmul(flat(x), ones(4, 3), transpose_a=True, name="r"),
            "it transposes a factor (transpose_a)",
        ),
        "transpose_b": (
            lambda x: tf.matmul(flat(x), ones(3, 128), transpose_b=True, name="r"),
            "it transposes a factor (transpose_b)",
        ),
        "adj_x": (
            lambda x: raw.BatchMatMulV2(x=x, y=ones(8, 3), adj_x=True, name="r"),
            "it transposes a factor (adj_x)",
        ),
        "adj_y": (lambda x: raw.BatchMatMul(x=x, y=x, adj_y=True, name="r"), "it transposes a factor (adj_y)"),
        "half": (lambda x: nn.conv2d(tf.cast(x, tf.float16), half, 1, "SAME", name="r"), "computes in half, not in"),
        "double": (lambda x: nn.avg_pool2d(tf.cast(x, tf.float64), 2, 2, "SAME", name="r"), "computes in double, not"),
        "NaN": (lambda x: tf.matmul(flat(x), tf.constant(nan, name="w"), name="r"), "its weight 'w' holds NaN or inf"),
        "infinity": (
            lambda x: raw.BatchMatMulV2(x=x, y=tf.constant(ones(2, 2) * np.inf, name="w"), name="r"),
            "its weight 'w' holds NaN or infinity",
        ),
        "depthwise, strided and dilated": (
            lambda x: windowed(depthwise, DEPTHWISE, strides=2, dilations=(1, 2), input=x),
            "it has both a stride and a dilation above 1",
        ),
        "Conv3D, dilated in depth": (
            lambda x: windowed("Conv3D", CUBE, dilations=(2, 1, 1), data_format="NDHWC", input=x[:, None]),
            "its dilation in depth is 2, not 1",
        ),
        "Conv3D, dilated in depth, channels first": (
            lambda x: windowed(
                "Conv3D", CUBE, dilations=(3, 1, 1), data_format="NCDHW", input=ones(4, 2, 5, 5, 5) * x[0, 0, 0, 0]
            ),
            "its dilation in depth is 3, not 1",
        ),
        "deconvolution, dilated": (lambda x: deconv(x, (1, 2)), "its dilation is 2, not 1"),
        "Conv3DBackpropInputV2": (
            lambda x: nn.conv3d_transpose(x[:, None], ones(1, 2, 2, 3, 2), [4, 1, 16, 16, 3], 2, name="r"),
            "AMCT does not quantize it",
        ),
        "BatchMatMulV3": (
            lambda x: raw.BatchMatMulV3(x=x, y=ones(2, 3), Tout=tf.float32, name="r"),
            "AMCT does not quantize it",
        ),
        "Einsum": (
            lambda x: raw.Einsum(inputs=[x, ones(2, 3)], equation="abcd,de->abce", name="r"),
            "AMCT does not quantize it",
        ),
        "AvgPool3D": (lambda x: nn.avg_pool3d(x[:, None], 1, 1, "SAME", name="r"), "AMCT does not quantize it"),
        "function": (in_a_function, "operators inside its body stay in float"),
    }


REJECTED = [
    "weight from the data",
    "constant times data",
    "filter from the data",
    "random weight",
    "transpose_a",
    "transpose_b",
    "adj_x",
    "adj_y",
    "half",
    "double",
    "NaN",
    "infinity",
    "depthwise, strided and dilated",
    "Conv3D, dilated in depth",
    "Conv3D, dilated in depth, channels first",
    "deconvolution, dilated",
    "Conv3DBackpropInputV2",
    "BatchMatMulV3",
    "Einsum",
    "AvgPool3D",
    "function",
]
"""The keys of `rejected`, which needs TensorFlow."""


def surveyed(build: Callable[..., Any], write: Callable[..., Any]) -> Survey:
    """What is found in a graph with the layer `good`, and what `write` makes of x (4, 8, 8, 2)."""
    import tensorflow as tf

    def both() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (4, 8, 8, 2), name="x")
        tf.nn.conv2d(x, ones(1, 1, 2, 3), 1, "SAME", name="good")
        tf.identity(write(x), name="y")

    return survey_graph(build(both, outputs=("good", "y")))


@pytest.mark.parametrize("what", REJECTED)
def test_the_reason_is_told(build: Callable[..., Graph], what: str) -> None:
    assert set(REJECTED) == set(rejected())
    write, reason = rejected()[what]
    found = surveyed(build, write)
    assert [layer.name for layer in found.layers] == ["good"]
    assert [one.name for one in found.rejected] == ["r"]
    assert found.rejected[0].reason.startswith(reason)


@pytest.mark.parametrize(
    "write",
    [
        lambda x: windowed("DepthwiseConv2dNative", DEPTHWISE, strides=2, input=x),
        lambda x: windowed("DepthwiseConv2dNative", DEPTHWISE, dilations=2, input=x),
        lambda x: windowed("Conv2D", KERNEL, strides=2, dilations=2, input=x),
        lambda x: windowed("Conv3D", CUBE, dilations=(1, 2, 3), data_format="NDHWC", input=x[:, None]),
        lambda x: deconv(x, 1),
    ],
    ids=["strided depthwise", "dilated depthwise", "strided and dilated Conv2D", "Conv3D within a plane", "deconv"],
)
def test_operators_at_the_edge_of_a_restriction_are_layers(
    build: Callable[..., Graph], write: Callable[..., Any]
) -> None:
    found = surveyed(build, write)
    assert [layer.name for layer in found.layers] == ["good", "r"]
    assert found.rejected == ()


def test_a_fed_weight_names_the_input_it_depends_on(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 2), name="x")
        fed = tf.compat.v1.placeholder(tf.float32, (2, 3), name="weights")
        t = tf.matmul(tf.matmul(x, ones(2, 2), name="good"), tf.nn.relu(fed, name="w"), name="r")
        tf.identity(t, name="y")

    found = survey_graph(build(write, inputs=("x", "weights")))
    assert [one.reason for one in found.rejected] == [
        "its weight 'w' is not constant: it depends on the input 'weights'"
    ]


def by_conv1d(x: Any, data_format: str = "NWC") -> Any:
    import tensorflow as tf

    return tf.nn.conv1d(x, ones(3, 2, 2), 1, "SAME", data_format)


def with_a_bias_within(x: Any) -> Any:
    import tensorflow as tf

    t = tf.nn.conv2d(tf.expand_dims(x, 1), ones(1, 3, 2, 2), 1, "SAME")
    return tf.squeeze(tf.nn.bias_add(t, ones(2)), [1])


CONV1D = {
    "alone": by_conv1d,
    "channels first": lambda x: by_conv1d(x, "NCW"),
    "bias behind": lambda x: by_conv1d(x) + ones(2),
    "bias within": with_a_bias_within,
}


@pytest.mark.parametrize("what", CONV1D)
def test_conv1d_is_not_quantized(build: Callable[..., Graph], what: str) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 2, 2), name="x")
        t = tf.reshape(CONV1D[what](x), [-1, 4])
        tf.matmul(t, ones(4, 2), name="y")

    found = survey_graph(normalize(build(write)))
    assert [layer.name for layer in found.layers] == ["y"]
    assert [(one.op, one.reason) for one in found.rejected] == [
        ("Conv2D", "it is a Conv1D (ExpandDims, Conv2D, Squeeze): AMCT does not quantize those")
    ]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2
def test_the_conv1d_of_keras_is_not_quantized(tmp_path: Path) -> None:
    import keras

    layers = [
        keras.layers.Conv1D(3, 3),
        keras.layers.ReLU(),
        keras.layers.Conv1D(2, 3, padding="causal", dilation_rate=2),
    ]
    model = keras.Sequential([keras.layers.Input((8, 2)), *layers, keras.layers.Flatten(), keras.layers.Dense(2)])
    model.save(tmp_path / "net.keras")
    found = survey_graph(open_model(tmp_path / "net.keras").graph)
    assert [layer.op for layer in found.layers] == ["MatMul"]
    assert [bool(re.match("it is a Conv1D", one.reason)) for one in found.rejected] == [True, True]


@pytest.mark.parametrize(("expanded", "squeezed"), [(-1, [1, 2]), (1, [1, 2]), (-1, [-1])])
def test_a_convolution_of_images_without_a_channel_is_no_conv1d(
    build: Callable[..., Graph], expanded: int, squeezed: list[int]
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 1, 1), name="x")
        t = tf.nn.conv2d(tf.expand_dims(x, expanded), ones(1, 1, 1, 1), 1, "SAME", name="r")
        tf.identity(tf.squeeze(t, squeezed), name="y")

    assert [layer.name for layer in survey_graph(build(write)).layers] == ["r"]
