from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal, placeholder
from litert_quantizer import algorithm_manager, qtyping

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer, Survey
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.litert.multiply_adds import multiply_adds
from autoquant.model.litert.survey import survey_lite
from autoquant.model.survey import survey_graph

RNG = np.random.default_rng(2)
QUANTIZER = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}
"""Kinds that LiteRT Quantizer calls otherwise."""


def shape_of(lite: LiteGraph, constant: str | None) -> tuple[int, ...]:
    value = lite.constant(constant or "")
    assert value is not None
    return value.shape


def weight(*shape: int) -> Any:
    return tf.constant(normal(RNG, *shape))


def depthwise(x: Any, channels: int) -> Any:
    return tf.compat.v1.nn.depthwise_conv2d_native(x, weight(3, 3, channels, 2), (1, 2, 2, 1), "SAME", name="layer")


def transposed(x: Any) -> Any:
    shape = tf.stack([tf.shape(x)[0], 12, 12, 3])
    return tf.nn.conv2d_transpose(x, weight(3, 3, 3, 4), shape, 2, name="layer")


# Layout of the weight, the axis of its output channels, what one sample gives, and multiply-adds for it, by hand.
LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], int, tuple[int, ...], int]] = {
    "convolution": (
        lambda x: tf.nn.conv2d(x, weight(3, 2, 4, 5), 2, "SAME", name="layer"),
        (5, 3, 2, 4),
        0,
        (1, 3, 3, 5),
        3 * 3 * 5 * 3 * 2 * 4,
    ),
    "groups": (
        lambda x: tf.nn.conv2d(x, weight(3, 3, 2, 6), 1, "SAME", name="layer"),
        (6, 3, 3, 2),
        0,
        (1, 6, 6, 6),
        36 * 6 * 9 * 2,
    ),
    "depthwise": (lambda x: depthwise(x, 4), (1, 3, 3, 8), 3, (1, 3, 3, 8), 9 * 8 * 9),
    "transposed": (transposed, (3, 3, 3, 4), 0, (1, 12, 12, 3), 36 * 4 * 3 * 3 * 3),
    "matmul": (
        lambda x: tf.linalg.matmul(tf.reshape(x, (-1, 144)), weight(144, 7), name="layer"),
        (7, 144),
        0,
        (1, 7),
        144 * 7,
    ),
    "batches": (
        lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=weight(4, 7), name="layer"),
        (7, 4),
        0,
        (1, 6, 6, 7),
        36 * 4 * 7,
    ),
    "batches of matrices": (
        lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=weight(6, 4, 7), name="layer"),
        (6, 4, 7),
        2,
        (1, 6, 6, 7),
        36 * 4 * 7,
    ),
}


def only(found: Survey) -> Layer:
    (layer,) = found.layers
    return layer


@pytest.fixture
def surveyed(build: Callable[..., Graph]) -> Callable[[Callable[[Any], Any]], tuple[LiteGraph, Survey]]:
    """The .tflite of a graph that a function writes on an input of 6 x 6 and 4 channels, and its survey."""

    def made(write: Callable[[Any], Any], *shape: int | None) -> tuple[LiteGraph, Survey]:
        lite = convert(build(lambda: tf.identity(write(placeholder(*shape or (None, 6, 6, 4))), name="y")))
        return lite, survey_lite(lite)

    return made


@pytest.mark.parametrize(("write", "shape", "axis", "result", "macs"), LAYERS.values(), ids=LAYERS.keys())
def test_layers_with_a_weight(
    write: Callable[..., Any],
    shape: tuple[int, ...],
    axis: int,
    result: tuple[int, ...],
    macs: int,
    surveyed: Callable[..., tuple[LiteGraph, Survey]],
) -> None:
    lite, found = surveyed(write)
    layer = only(found)
    assert (layer.name, layer.weight_shape, layer.channel_axes) == ("layer", shape, (axis,))
    assert (layer.output_shape, layer.macs, layer.channels) == (result, macs, shape[axis])
    assert shape_of(lite, layer.weight) == shape
    assert layer.bias is None or shape_of(lite, layer.bias) == (shape[axis],)
    assert layer.activations[0] in lite.tensors
    assert lite.constant(layer.activations[0]) is None
    assert (found.tensors, found.rejected) == ((), ())


def test_a_pooling_has_no_weight_and_counts_its_additions(
    surveyed: Callable[..., tuple[LiteGraph, Survey]],
) -> None:
    layer = only(surveyed(lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID", name="layer"))[1])
    assert layer.op == "AvgPool"
    assert layer.weight is None
    assert layer.channel_axes == ()
    assert layer.parameters == 0
    assert layer.macs == 3 * 3 * 4 * 2 * 2
    assert not layer.can.per_channel


def test_a_product_of_two_activations_reads_both(
    surveyed: Callable[..., tuple[LiteGraph, Survey]],
) -> None:
    layer = only(surveyed(lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=x + 1.0, adj_y=True, name="layer"))[1])
    assert (layer.op, layer.weight, len(layer.activations)) == ("BatchMatMulV2", None, 2)
    assert layer.macs == 6 * 6 * 6 * 4


def test_cost_and_names_are_those_of_the_tensorflow_graph(small: Graph, lite: LiteGraph) -> None:
    want = {one.name: (one.op, one.macs, one.output_shape) for one in survey_graph(small).layers}
    found = {one.name: (one.op, one.macs, one.output_shape) for one in survey_lite(lite).layers}
    assert found == want
    assert found["conv"] == ("Conv2D", 36 * 4 * 9 * 2, (1, 6, 6, 4))


def test_sizes_that_are_open_come_from_the_data(
    surveyed: Callable[..., tuple[LiteGraph, Survey]],
) -> None:
    lite, found = surveyed(lambda x: tf.nn.conv2d(x, weight(3, 3, 4, 5), 1, "SAME", name="layer"), None, None, None, 4)
    assert (only(found).output_shape, only(found).macs) == ((None, None, None, 5), None)
    for given in ((8, 5, 7, 4), (5, 7, 4)):
        layer = only(survey_lite(lite, {"x": given}))
        assert (layer.output_shape, layer.macs) == ((1, 5, 7, 5), 5 * 7 * 5 * 9 * 4)
    with pytest.raises(ModelError, match=r"x: shape \(8, 5, 7, 3\) is given but the file says"):
        survey_lite(lite, {"x": (8, 5, 7, 3)})
    with pytest.raises(ModelError, match="z: a shape is given but this is not an input; inputs: x"):
        survey_lite(lite, {"z": (8, 5, 7, 3)})


def test_a_fixed_batch_counts_for_one_sample(
    surveyed: Callable[..., tuple[LiteGraph, Survey]],
) -> None:
    write = LAYERS["convolution"][0]
    assert only(surveyed(write, 5, 6, 6, 4)[1]).macs == LAYERS["convolution"][4]


def test_operators_that_cannot_be_int8_and_why(build: Callable[..., Graph]) -> None:
    def write() -> None:
        x = placeholder(None, 4, 4, 4, 2)
        t = tf.nn.conv3d(x, weight(3, 3, 3, 2, 2), (1, 1, 1, 1, 1), "SAME", name="volume")
        t = tf.reshape(t, (-1, 4, 4, 8))
        broken = normal(RNG, 1, 1, 8, 8)
        broken[0, 0, 0, 0] = np.nan
        t = tf.nn.conv2d(t, tf.constant(broken), 1, "SAME", name="broken")
        kernel = tf.reshape(tf.reduce_sum(t, axis=0), (1, 4, 4, 8)) * 2.0
        t = tf.nn.conv2d(t, tf.transpose(kernel, (1, 2, 3, 0)), 1, "VALID", name="worked_out")
        tf.linalg.matmul(tf.reshape(t, (-1, 1)), weight(1, 3), name="y")

    found = survey_lite(convert(build(write)))
    assert [layer.name for layer in found.layers] == ["y"]
    reasons = {one.name: (one.op, one.reason) for one in found.rejected}
    assert reasons["volume"] == ("Conv3D", "LiteRT has no INT8 kernel for it")
    assert "NaN" in reasons["broken"][1]
    assert "is not constant" in reasons["worked_out"][1]
    assert {one.name: one.macs for one in found.rejected} == {
        "volume": 4 * 4 * 4 * 2 * 3 * 3 * 3 * 2,
        "broken": 4 * 4 * 8 * 8,
        "worked_out": 4 * 4 * 8,
    }


def test_a_model_without_layers_is_refused(build: Callable[..., Graph]) -> None:
    with pytest.raises(ModelError, match="has no layer that can be INT8 in LiteRT: it has no AVERAGE_POOL_2D, "):
        survey_lite(convert(build(lambda: tf.sin(placeholder(None, 3), name="y"))))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_kinds_can_what_the_quantizer_can(kind: str) -> None:
    operator = qtyping.TFLOperationName(QUANTIZER.get(kind, kind))
    keys = {"minmax": "min_max_uniform_quantize", "mse": "MSE", "octav": "OCTAV"}
    able = [name for name, key in keys.items() if algorithm_manager.is_op_registered(key, operator)]
    wanted = able if KINDS[kind].weight is not None else ["minmax"]
    assert list(KINDS[kind].weight_algorithms) == wanted
    assert KINDS[kind].abilities(balanceable=False).weight_bits == (8,)


def test_names_are_operators_of_the_file(lite: LiteGraph) -> None:
    kinds = [flatbuffer.op_name(lite.model, lite.operators[index]) for index in lite.layers.values()]
    assert kinds == ["CONV_2D", "AVERAGE_POOL_2D", "FULLY_CONNECTED"]
    assert lite.operator("dense") == ("FULLY_CONNECTED", 3, "y")


def test_the_multiply_adds_of_a_loop_are_those_of_its_iterations(build: Callable[..., Graph]) -> None:
    def write() -> None:
        rows = placeholder(None, 8)
        matrix = weight(8, 8)
        _, rows = tf.while_loop(lambda i, _: i < 5, lambda i, y: (i + 1, tf.tanh(y @ matrix)), (tf.constant(0), rows))
        tf.linalg.matmul(rows, weight(8, 3), name="y")

    (loop,) = survey_lite(convert(build(write))).rejected
    assert (loop.op, loop.macs) == ("WHILE", 5 * 8 * 8)


def test_the_multiply_adds_of_an_operator_that_is_a_whole_recurrent_layer(lite: LiteGraph) -> None:
    """Seven steps of weights for 3 inputs and 4 states; biases are vectors."""
    schema = flatbuffer.schema
    model = flatbuffer.read(lite.content)
    op = schema.OperatorT()
    code = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    op.opcodeIndex = flatbuffer.operator_index(model, code)
    shapes = [(1, 7, 3), *[(4, 3)] * 4, *[(4, 4)] * 4, *[(4,)] * 4, (1, 7, 4)]
    op.inputs, op.outputs = [*range(9), -1, -1, *range(9, 13)], [13]
    assert multiply_adds(model, op, shapes) == 7 * 4 * (4 * 3 + 4 * 4)
