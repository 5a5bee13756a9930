from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.normalize import normalize
from autoquant.model.operators import OPERATORS, is_tensor
from autoquant.model.survey import survey_graph


def placeholder(*shape: int | None, name: str = "x", dtype: str = "float32") -> Any:
    import tensorflow as tf

    return tf.compat.v1.placeholder(dtype, shape, name=name)


def ones(*shape: int) -> NDArray[Any]:
    return np.ones(shape, np.float32)


def depthwise(x: Any, weight: NDArray[Any], stride: int = 1, padding: str = "SAME", dilation: int = 1) -> Any:
    import tensorflow as tf

    return tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=tf.constant(weight),
        strides=[1, stride, stride, 1],
        padding=padding,
        dilations=[1, dilation, dilation, 1],
        name="layer",
    )


def conv(
    weight: NDArray[Any], stride: int = 1, padding: Any = "SAME", dilation: int = 1, data_format: str = "NHWC"
) -> Callable[..., Any]:
    import tensorflow as tf

    return lambda x: tf.nn.conv2d(x, tf.constant(weight), stride, padding, data_format, dilation, name="layer")


def conv3d(
    weight: NDArray[Any], stride: int = 1, padding: str = "SAME", data_format: str = "NDHWC"
) -> Callable[..., Any]:
    import tensorflow as tf

    strides = [1, 1, *[stride] * 3] if data_format == "NCDHW" else [1, *[stride] * 3, 1]
    return lambda x: tf.nn.conv3d(x, tf.constant(weight), strides, padding, data_format, name="layer")


def deconv(weight: NDArray[Any], size: tuple[int, int], stride: int = 1, padding: str = "SAME") -> Callable[..., Any]:
    import tensorflow as tf

    def write(x: Any) -> Any:
        shape = tf.stack([tf.shape(x)[0], *size, weight.shape[2]])
        return tf.nn.conv2d_transpose(x, tf.constant(weight), shape, stride, padding, name="layer")

    return write


def avg_pool(size: Any, stride: Any, padding: str, data_format: str = "NHWC") -> Callable[..., Any]:
    import tensorflow as tf

    return lambda x: tf.nn.avg_pool2d(x, size, stride, padding, data_format, name="layer")


def matmul(weight: NDArray[Any]) -> Callable[..., Any]:
    import tensorflow as tf

    return lambda x: tf.matmul(x, tf.constant(weight), name="layer")


def batch_matmul(second: Callable[..., Any]) -> Callable[..., Any]:
    """`second` makes the second factor from the first."""
    import tensorflow as tf

    return lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=second(x), name="layer")


def last_two_swapped(x: Any) -> Any:
    import tensorflow as tf

    return tf.transpose(x, [0, 1, 3, 2])


# what, input shape, how the layer is made, output shape for one sample, multiply-adds by hand
MACS = [
    ("same", (None, 8, 8, 3), lambda: conv(ones(3, 3, 3, 5)), (1, 8, 8, 5), 8 * 8 * 5 * 27),
    ("same, stride 2", (None, 9, 8, 3), lambda: conv(ones(3, 3, 3, 5), 2), (1, 5, 4, 5), 5 * 4 * 5 * 27),
    ("valid", (None, 8, 8, 3), lambda: conv(ones(3, 5, 3, 4), 1, "VALID"), (1, 6, 4, 4), 6 * 4 * 4 * 45),
    ("valid, stride 2", (None, 8, 8, 3), lambda: conv(ones(3, 3, 3, 4), 2, "VALID"), (1, 3, 3, 4), 9 * 4 * 27),
    ("dilated", (None, 9, 9, 2), lambda: conv(ones(3, 3, 2, 4), 1, "VALID", 2), (1, 5, 5, 4), 25 * 4 * 18),
    (
        "explicit",
        (None, 6, 6, 1),
        lambda: conv(ones(3, 3, 1, 2), 1, [[0, 0], [2, 0], [0, 0], [0, 0]]),
        (1, 6, 4, 2),
        432,
    ),
    ("grouped", (None, 4, 4, 6), lambda: conv(ones(1, 1, 2, 9)), (1, 4, 4, 9), 16 * 9 * 2),
    ("channels first", (None, 3, 4, 5), lambda: conv(ones(1, 1, 3, 7), 1, "SAME", 1, "NCHW"), (1, 7, 4, 5), 20 * 7 * 3),
    ("depthwise", (None, 6, 6, 4), lambda: lambda x: depthwise(x, ones(3, 3, 4, 2)), (1, 6, 6, 8), 36 * 8 * 9),
    ("depthwise, stride", (None, 7, 7, 4), lambda: lambda x: depthwise(x, ones(3, 3, 4, 1), 2), (1, 4, 4, 4), 576),
    ("conv3d", (None, 5, 4, 6, 2), lambda: conv3d(ones(3, 1, 3, 2, 7)), (1, 5, 4, 6, 7), 120 * 7 * 18),
    ("conv3d, valid", (None, 5, 5, 5, 2), lambda: conv3d(ones(3, 3, 3, 2, 4), 2, "VALID"), (1, 2, 2, 2, 4), 8 * 4 * 54),
    # Each of the 4 x 5 x 3 values is multiplied with each of the 2 x 3 x 7 weights of its channel.
    ("deconv", (None, 4, 5, 3), lambda: deconv(ones(2, 3, 7, 3), (8, 10), 2), (1, 8, 10, 7), 60 * 42),
    ("deconv, valid", (None, 4, 5, 3), lambda: deconv(ones(2, 3, 7, 3), (5, 7), 1, "VALID"), (1, 5, 7, 7), 60 * 42),
    ("avg pool", (None, 7, 6, 4), lambda: avg_pool((2, 3), (2, 3), "VALID"), (1, 3, 2, 4), 24 * 6),
    ("avg pool, same", (None, 7, 6, 4), lambda: avg_pool(2, 1, "SAME"), (1, 7, 6, 4), 168 * 4),
    ("avg pool, channels first", (2, 4, 7, 6), lambda: avg_pool(3, 3, "VALID", "NCHW"), (2, 4, 2, 2), 16 * 9),
    ("matmul", (None, 10), lambda: matmul(ones(10, 7)), (1, 7), 70),
    ("batch matmul, weight", (None, 5, 10), lambda: batch_matmul(lambda x: ones(10, 7)), (1, 5, 7), 5 * 70),
    ("batch matmul, two", (None, 2, 5, 3), lambda: batch_matmul(last_two_swapped), (1, 2, 5, 5), 2 * 25 * 3),
    ("batch matmul, constant", (4, 2, 5, 3), lambda: batch_matmul(lambda x: ones(2, 3, 6)), (4, 2, 5, 6), 2 * 30 * 3),
    ("a fixed batch", (16, 10), lambda: matmul(ones(10, 7)), (16, 7), 70),
    ("an unknown height", (None, None, 8, 3), lambda: conv(ones(3, 3, 3, 5)), (1, None, 8, 5), None),
    ("an unknown rank", None, lambda: conv(ones(3, 3, 3, 5)), (None, None, None, 5), None),
    ("an unknown length", (None, None, 4), lambda: batch_matmul(lambda x: ones(4, 3)), (1, None, 3), None),
]


@pytest.mark.parametrize(("shape", "make", "output_shape", "macs"), [m[1:] for m in MACS], ids=[m[0] for m in MACS])
def test_multiply_adds_for_one_sample(
    build: Callable[..., Graph],
    shape: tuple[Any, ...] | None,
    make: Callable[..., Any],
    output_shape: tuple[Any, ...],
    macs: int | None,
) -> None:
    import tensorflow as tf

    graph = build(lambda: make()(tf.compat.v1.placeholder(tf.float32, shape, name="x")), outputs=("layer",))
    (layer,) = survey_graph(graph).layers
    assert (layer.output_shape, layer.macs) == (output_shape, macs)


def test_a_layer_says_what_it_reads_and_what_it_has(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.nn.relu(placeholder(None, 4, 4, 2), name="before")
        t = tf.nn.conv2d(x, tf.constant(ones(1, 1, 2, 5), name="w"), 1, "SAME", name="c")
        t = tf.nn.bias_add(t, ones(5), name="b")
        t = depthwise(t, ones(3, 3, 5, 2))
        tf.nn.relu(t, name="y")

    first, second = survey_graph(build(write)).layers
    shape = (1, 4, 4, 5)
    assert first == Layer("c", "Conv2D", ("before",), -1, "w", (1, 1, 2, 5), (3,), "b", shape, 160)
    assert first.node == "c"
    assert first.records == ("c",)
    assert first.channels == 5
    assert first.parameters == 15
    assert second.bias is None
    assert second.channel_axes == (2, 3)
    assert second.channels == 10
    assert second.parameters == 90


# what, input shape, how it is made, axis of its input's channels, shape and channel axes of the weight, how many
# parameters it has with its bias of five
KINDS = [
    ("Conv2D", (None, 4, 4, 2), lambda: conv(ones(1, 1, 2, 5)), -1, (1, 1, 2, 5), (3,), 15),
    ("Conv2D NCHW", (None, 2, 4, 4), lambda: conv(ones(1, 1, 2, 5), data_format="NCHW"), 1, (1, 1, 2, 5), (3,), 15),
    (
        "DepthwiseConv2dNative",
        (4, 4, 4, 5),
        lambda: lambda x: depthwise(x, ones(3, 1, 5, 1)),
        -1,
        (3, 1, 5, 1),
        (2, 3),
        20,
    ),
    ("Conv3D", (None, 4, 4, 4, 2), lambda: conv3d(ones(1, 1, 3, 2, 5)), -1, (1, 1, 3, 2, 5), (4,), 35),
    (
        "Conv3D NCDHW",
        (4, 1, 4, 4, 4),
        lambda: conv3d(ones(1, 1, 1, 1, 5), data_format="NCDHW"),
        1,
        (1, 1, 1, 1, 5),
        (4,),
        10,
    ),
    ("Conv2DBackpropInput", (None, 4, 4, 2), lambda: deconv(ones(1, 1, 5, 2), (4, 4)), -1, (1, 1, 5, 2), (2,), 15),
    ("MatMul", (None, 2), lambda: matmul(ones(2, 5)), -1, (2, 5), (1,), 15),
    ("BatchMatMulV2, weight", (None, 3, 2), lambda: batch_matmul(lambda x: ones(2, 5)), -1, (2, 5), (1,), 15),
]
# what, input shape, how it is made, how many activations it reads
WITHOUT = [
    ("AvgPool", (None, 4, 4, 5), lambda: avg_pool(2, 2, "SAME"), 1),
    ("BatchMatMulV2, two", (None, 2, 5, 3), lambda: batch_matmul(last_two_swapped), 2),
    ("BatchMatMulV2, matrices", (1, 2, 5, 3), lambda: batch_matmul(lambda x: ones(2, 3, 5)), 2),
]


def only_layer(
    build: Callable[..., Any], shape: tuple[Any, ...], make: Callable[..., Any], data_format: str = "NHWC"
) -> Layer:
    """The layer behind a node `before`, with a BiasAdd `y` behind it."""
    import tensorflow as tf

    def write() -> None:
        t = make()(tf.nn.relu(placeholder(*shape), name="before"))
        tf.nn.bias_add(t, ones(5), data_format, name="y")

    (layer,) = survey_graph(build(write)).layers
    return layer


@pytest.mark.parametrize(("kind", "shape", "make", "axis", "weight", "axes", "parameters"), KINDS)
def test_layers_with_a_weight(
    build: Callable[..., Graph],
    kind: str,
    shape: tuple[Any, ...],
    make: Callable[..., Any],
    axis: int,
    weight: tuple[int, ...],
    axes: tuple[int, ...],
    parameters: int,
) -> None:
    layer = only_layer(build, shape, make, "NCHW" if axis == 1 else "NHWC")
    assert (layer.name, layer.op, layer.node) == ("layer", re.split(r"[ ,]", kind)[0], "layer")
    assert (layer.activations, layer.data_axis, layer.records) == (("before",), axis, ("layer",))
    assert (layer.weight_shape, layer.channel_axes) == (weight, axes)
    assert (layer.bias, layer.channels, layer.parameters) == ("y", 5, parameters)
    assert layer.weight is not None
    assert not layer.symmetric_only and not layer.tensor_only


@pytest.mark.parametrize(("kind", "shape", "make", "reads"), WITHOUT)
def test_layers_without_a_weight(
    build: Callable[..., Graph], kind: str, shape: tuple[Any, ...], make: Callable[..., Any], reads: int
) -> None:
    layer = only_layer(build, shape, make)
    assert (layer.name, layer.op, layer.node) == ("layer", kind.split(",")[0], "layer")
    assert (len(layer.activations), layer.activations[0], layer.data_axis) == (reads, "before", -1)
    assert layer.records == ("layer", "layer:1")[:reads]
    assert layer.weight is None
    assert layer.weight_shape == ()
    assert layer.channel_axes == ()
    assert layer.bias is None
    assert (layer.parameters, layer.symmetric_only, layer.tensor_only) == (0, reads == 2, False)
    assert (layer.groups, layer.can.balanceable) == (1, False)


@pytest.mark.parametrize(
    ("shape", "make", "groups"),
    [
        ((None, 4, 4, 6), lambda: conv(ones(1, 1, 2, 9)), 3),
        ((None, 6, 4, 4), lambda: conv(ones(1, 1, 3, 4), data_format="NCHW"), 2),
        ((None, 4, 4, 6), lambda: conv(ones(1, 1, 6, 9)), 1),
        ((None, 4, 4, 6), lambda: lambda x: depthwise(x, ones(1, 1, 6, 2)), 1),
        ((None, 4, 5, 3), lambda: deconv(ones(2, 3, 7, 3), (8, 10), 2), 1),
        ((None, 4, 4, None), lambda: conv(ones(1, 1, 2, 9)), 1),
        ((None, 5, 10), lambda: batch_matmul(lambda x: ones(10, 7)), 1),
    ],
    ids=["three", "channels first", "one", "depthwise", "deconv", "unknown", "batch matmul"],
)
def test_groups_of_input_channels(
    build: Callable[..., Graph], shape: tuple[Any, ...], make: Callable[..., Any], groups: int
) -> None:
    (layer,) = survey_graph(build(lambda: make()(placeholder(*shape)), outputs=("layer",))).layers
    assert (layer.groups, layer.can.balanceable) == (groups, groups == 1)


def test_a_bias_may_be_that_of_another_layer_too(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        bias = tf.constant(ones(3), name="bias")
        t = tf.nn.bias_add(tf.matmul(placeholder(None, 3), ones(3, 3)), bias, name="first")
        tf.nn.bias_add(tf.matmul(t, ones(3, 3)), bias, name="y")

    assert [layer.bias for layer in survey_graph(build(write)).layers] == ["first", "y"]


@pytest.mark.parametrize(
    "write",
    [
        lambda tf, t: tf.nn.bias_add(t, tf.reduce_mean(t, [0, 1, 2])),
        lambda tf, t: tf.nn.bias_add(t, ones(5)) * t,
        lambda tf, t: tf.nn.bias_add(t, ones(4), "NCHW"),
    ],
    ids=["not constant", "not alone", "along another axis"],
)
def test_additions_that_are_no_bias(build: Callable[..., Graph], write: Callable[..., Any]) -> None:
    import tensorflow as tf

    graph = build(lambda: tf.identity(write(tf, conv(ones(1, 1, 2, 5))(placeholder(None, 4, 4, 2))), name="y"))
    assert survey_graph(graph).layers[0].bias is None


def test_inputs_of_additions_and_max_pools_are_apart(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = placeholder(None, 4, 4, 2)
        t = conv(ones(1, 1, 2, 2))(x)
        t = tf.raw_ops.Add(x=t, y=x, name="old")
        t = tf.raw_ops.AddV2(x=np.float32(1), y=t, name="shift")
        t = tf.nn.max_pool2d(t, 2, 2, "SAME", name="pool")
        t = tf.nn.max_pool2d(tf.transpose(t, [0, 3, 1, 2], name="first"), 2, 2, "SAME", "NCHW", name="nchw")
        size = tf.raw_ops.AddV2(x=tf.shape(t)[0], y=1, name="size")
        double = tf.raw_ops.AddV2(x=tf.cast(t, tf.float64), y=tf.cast(t, tf.float64), name="double")
        tf.identity(tf.cast(size, tf.float64) * double, name="y")

    found = survey_graph(build(write))
    assert [layer.name for layer in found.layers] == ["layer"]
    assert found.rejected == ()
    assert [(t.name, t.op, t.activations, t.data_axis) for t in found.tensors] == [
        ("old:0", "Add", ("layer",), -1),
        ("old:1", "Add", ("x",), -1),
        ("shift:1", "AddV2", ("old",), -1),
        ("pool:0", "MaxPool", ("shift",), -1),
        ("nchw:0", "MaxPool", ("first",), 1),
    ]
    for one in found.tensors:
        assert one.tensor_only and not one.symmetric_only
        assert (one.node, one.records) == (one.name[:-2], (one.name,))
        assert (one.weight, one.bias, one.parameters, one.macs) == (None, None, 0, 0)
    assert list(found.by_name) == ["layer", "old:0", "old:1", "shift:1", "pool:0", "nchw:0"]
    assert [is_tensor(name) for name in found.by_name] == [False] + [True] * 5


@pytest.mark.parametrize("given", [(6, 7, 3), (1, 6, 7, 3), (50, 6, 7, 3)], ids=["sample", "one", "batch"])
@pytest.mark.parametrize("shape", [(None, None, None, 3), (None, 6, None, None)])
def test_open_shapes_can_be_given(
    build: Callable[..., Graph], given: tuple[int, ...], shape: tuple[int | None, ...]
) -> None:
    graph = build(lambda: conv(ones(3, 3, 3, 2))(placeholder(*shape)), outputs=("layer",))
    assert survey_graph(graph, input_shapes={"x": given}).layers[0].macs == 6 * 7 * 2 * 27


def test_a_shape_of_unknown_rank_can_be_given_with_its_batch(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    graph = build(lambda: conv(ones(3, 3, 3, 2))(tf.compat.v1.placeholder(tf.float32, name="x")), outputs=("layer",))
    assert survey_graph(graph, input_shapes={"x": (8, 6, 7, 3)}).layers[0].macs == 6 * 7 * 2 * 27


@pytest.mark.parametrize(
    ("given", "message"),
    [({"x": (5, 5, 4)}, r"\(5, 5, 4\) is given but the file says"), ({"z": (1,)}, "not an input; inputs: x")],
)
def test_a_shape_that_contradicts_the_file_is_refused(
    build: Callable[..., Graph], given: dict[str, tuple[int, ...]], message: str
) -> None:
    graph = build(lambda: conv(ones(3, 3, 3, 2))(placeholder(None, 5, 5, 3)), outputs=("layer",))
    with pytest.raises(ModelError, match=message):
        survey_graph(graph, input_shapes=given)


def test_a_dense_layer_over_a_sequence_counts_every_step(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        x = placeholder(None, 12, 10)
        t = tf.matmul(tf.reshape(x, [-1, 10]), ones(10, 7), name="m")
        tf.reshape(t, [-1, 12, 7], name="y")

    assert survey_graph(build(write)).layers[0].macs == 12 * 10 * 7


def test_a_graph_without_a_layer_is_refused_with_the_reasons(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    graph = build(lambda: tf.nn.avg_pool3d(placeholder(None, 4, 4, 4, 2), 2, 2, "SAME", name="y"))
    with pytest.raises(ModelError, match=r"no layer that can be quantized: 'y' \(AvgPool3D\): AMCT does not"):
        survey_graph(graph)
    plain = build(lambda: tf.nn.max_pool2d(placeholder(None, 4, 4, 2), 2, 2, "SAME", name="y"))
    with pytest.raises(ModelError, match=r"it has no AvgPool, BatchMatMul, BatchMatMulV2, Conv2D, .*, MatMul; is this"):
        survey_graph(plain)


def test_layers_are_in_the_order_of_the_data(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    def write() -> None:
        t = placeholder(None, 4)
        for i in range(4):
            t = tf.nn.relu(tf.matmul(t, ones(4, 4), name=f"m{i}") * ones(4))
        tf.identity(t, name="y")

    found = survey_graph(normalize(build(write)))
    assert [layer.name for layer in found.layers] == ["m0", "m1", "m2", "m3"]
    assert all(layer.bias is not None for layer in found.layers)
    assert found.rejected == ()


def test_the_table_of_operators_is_that_of_amct() -> None:
    """What has a weight, and which of those its documentation lets have a scale for every channel: no Conv3D."""
    weights = {"MatMul", "BatchMatMul", "BatchMatMulV2", "Conv2D", "DepthwiseConv2dNative", "Conv3D"}
    assert {op for op, one in OPERATORS.items() if one.weight is not None} == weights | {"Conv2DBackpropInput"}
    assert {op for op, one in OPERATORS.items() if one.tensor_only} == {"MaxPool", "Add", "AddV2"}
    assert set(OPERATORS) == weights | {"Conv2DBackpropInput", "AvgPool", "MaxPool", "Add", "AddV2"}
    per_channel = {"Conv2D", "DepthwiseConv2dNative", "Conv2DBackpropInput"}
    assert {op for op, one in OPERATORS.items() if one.per_channel} == per_channel
