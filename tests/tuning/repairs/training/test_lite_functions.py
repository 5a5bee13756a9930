"""Operators of a .tflite in TensorFlow against LiteRT's own kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoquant.evaluation.engines.litert import LiteRTEngine
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import HOLDS_SUBGRAPHS, RECURRENT
from autoquant.tuning.repairs.training.lite_functions import FUNCTIONS, results_of

RNG = np.random.default_rng(0)


def weight(*shape: int) -> Any:
    return RNG.normal(size=shape).astype(np.float32)


def convolutions(tf: Any, x: Any) -> Any:
    t = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, weight(3, 3, 4, 6), (1, 2, 1, 1), "SAME"), weight(6)))
    t = tf.nn.depthwise_conv2d(t, weight(3, 3, 6, 2), (1, 1, 1, 1), "VALID")
    t = tf.nn.relu6(tf.nn.conv2d(t, weight(3, 3, 4, 6), 1, "SAME"))  # three groups
    t = tf.nn.conv2d(t, weight(2, 2, 6, 6), 1, "SAME", dilations=2)
    shape = tf.stack([tf.shape(t)[0], 4, 12, 3])
    return tf.nn.conv2d_transpose(t, weight(3, 3, 3, 6), shape, 2, "SAME")


def pooling(tf: Any, x: Any) -> Any:
    t = tf.nn.max_pool2d(x, 3, 1, "SAME") - tf.nn.avg_pool2d(x, (2, 3), 1, "SAME")
    t = tf.nn.space_to_depth(tf.nn.depth_to_space(t, 2), 4)
    edges = [[0, 0], [1, 0], [0, 2], [0, 0]]
    t = tf.pad(tf.pad(tf.pad(t, edges, "REFLECT"), edges, "SYMMETRIC"), edges)
    return tf.pad(tf.nn.max_pool2d(t, 2, 1, "VALID"), edges, constant_values=2.0)


def volumes(tf: Any, x: Any) -> Any:
    return tf.nn.conv3d(tf.reshape(x, (-1, 4, 4, 4, 4)), weight(2, 2, 2, 4, 3), (1, 1, 2, 1, 1), "SAME")


def products(tf: Any, x: Any) -> Any:
    t = tf.reshape(x, (-1, 8, 32))
    t = tf.nn.bias_add(tf.matmul(t, weight(32, 6)), weight(6))
    one = tf.matmul(t, t, transpose_b=True)
    t = tf.matmul(one, t)
    return tf.linalg.matmul(tf.reshape(t, (-1, 48)), weight(48, 5))


def activations(tf: Any, x: Any) -> Any:
    # Behind a pooling, as the converter joins activations with other operators.
    parts = [
        tf.nn.elu(x),
        tf.nn.leaky_relu(x, 0.2),
        x * tf.nn.relu6(x + 3.0) / 6.0,
        tf.sigmoid(x),
        tf.tanh(x),
        tf.nn.relu(x),
        tf.nn.relu6(x),
        tf.maximum(tf.minimum(x, 1.0), -1.0),
        tf.maximum(tf.minimum(x, 1.0), 0.0),
        tf.nn.softmax(x * 2.0),
        tf.nn.log_softmax(x),
        tf.math.l2_normalize(x, axis=-1),
    ]
    return tf.concat(parts, axis=-1)


def arithmetic(tf: Any, x: Any) -> Any:
    y = tf.abs(x) + 0.5
    parts = [
        tf.exp(-y),
        tf.math.log(y),
        tf.sqrt(y),
        tf.math.rsqrt(y),
        tf.square(x),
        tf.sin(x),
        tf.cos(x),
        tf.math.floor(x),
        tf.math.ceil(x),
        tf.round(x),
        tf.sign(x),
        tf.negative(x),
        tf.pow(y, 1.5),
        tf.math.squared_difference(x, y),
        tf.math.floordiv(x, y),
        tf.math.floormod(x, y),
        x / y,
        tf.cumsum(x, axis=2, exclusive=True, reverse=True),
    ]
    return tf.concat(parts, axis=-1)


def choices(tf: Any, x: Any) -> Any:
    y = tf.reverse(x, axis=[1])
    less, more = tf.less(x, y), tf.greater(x, 0.0)
    both = tf.logical_or(tf.logical_and(less, more), tf.logical_not(tf.reduce_any(less, axis=2, keepdims=True)))
    same = tf.logical_or(tf.equal(x, y), tf.not_equal(tf.greater_equal(x, y), more))
    t = tf.where(both, x, tf.zeros_like(x)) + tf.cast(same, tf.float32)
    return tf.where(tf.reduce_any(less, axis=-1, keepdims=True), t, y)


def reductions(tf: Any, x: Any) -> Any:
    parts = [
        getattr(tf, name)(x, axis=[1, 2])
        for name in ("reduce_mean", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod")
    ]
    every = tf.cast(tf.reduce_all(x > -1.5, axis=[1, 2]), tf.float32)
    return tf.concat([*parts, every], axis=-1)


def shapes(tf: Any, x: Any) -> Any:
    first, second = tf.split(x, 2, axis=-1)
    one, two, three = tf.split(x, [1, 2, 1], axis=3)
    t = tf.concat([first + second, one * three, two], axis=-1)
    t = tf.transpose(t, (0, 3, 1, 2))
    t = tf.expand_dims(t[:, 1:4, ::2, -3:], 1)
    t = tf.stack(tf.unstack(tf.squeeze(t, 1), axis=1), axis=2)
    t = tf.tile(tf.slice(t, [0, 1, 0, 0], [-1, 2, 2, 3]), [1, 2, 1, 1])
    return tf.reshape(t, tf.stack([tf.shape(x)[0], -1]))


def lookups(tf: Any, x: Any) -> Any:
    rows = tf.argmax(x, axis=-1, output_type=tf.int32)
    least = tf.argmin(x, axis=-1, output_type=tf.int32)
    found = tf.gather(weight(4, 3), rows) + tf.one_hot(least, 3, on_value=2.0, off_value=-1.0)
    best, places = tf.math.top_k(tf.reshape(x, (-1, 256)), 5)
    picked = tf.gather(tf.reshape(x, (-1, 256)), [3, 1], axis=1)
    nd = tf.gather_nd(x, tf.stack([tf.range(tf.shape(x)[0]), tf.zeros_like(x[:, 0, 0, 0], tf.int32)], axis=1))
    rest = tf.concat([best, tf.cast(places, tf.float32), picked, tf.reshape(nd, (-1, 32))], axis=-1)
    return tf.concat([tf.reshape(found, (-1, 192)), rest], axis=-1)


def sizes(tf: Any, x: Any) -> Any:
    t = tf.compat.v1.image.resize_bilinear(x, (5, 11), align_corners=True)
    t += tf.raw_ops.ResizeBilinear(images=x, size=(5, 11), half_pixel_centers=True)
    t += tf.raw_ops.ResizeNearestNeighbor(images=x, size=(5, 11), half_pixel_centers=True)
    t = tf.batch_to_space(tf.space_to_batch(t, [2, 2], [[0, 1], [0, 1]]), [2, 2], [[0, 1], [0, 1]])
    many = tf.broadcast_to(tf.reduce_mean(t, axis=[1], keepdims=True), tf.shape(t))
    return t + many + tf.fill(tf.shape(t), 0.5) * tf.cast(tf.rank(t), tf.float32)


NETWORKS: dict[str, Callable[[Any, Any], Any]] = {
    one.__name__: one
    for one in (
        activations,
        arithmetic,
        choices,
        convolutions,
        lookups,
        pooling,
        products,
        reductions,
        shapes,
        sizes,
        volumes,
    )
}
BATCH = RNG.normal(size=(3, 8, 8, 4)).astype(np.float32)


def lite_of(make: Callable[[Any, Any], Any]) -> LiteGraph:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 4), name="x")
        tf.identity(make(tf, x), name="y")
    return convert(Graph.from_graph_def(graph.as_graph_def(), inputs=("x",), outputs=("y",)))


def outputs_of(lite: LiteGraph, x: Any) -> Any:
    """Its first output, by its operators in TensorFlow."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        placeholder = tf.compat.v1.placeholder(tf.float32, (None, *x.shape[1:]))
        values: dict[int, Any] = {-1: None, int(lite.subgraph.inputs[0]): placeholder}
        for index, op in enumerate(lite.operators):
            inputs = [values[t] if t in values else lite.value_of(t) for t in map(int, op.inputs)]
            values |= zip(map(int, op.outputs), results_of(lite, index, inputs), strict=True)
        return session.run(values[int(lite.subgraph.outputs[0])], {placeholder: x})


@pytest.mark.parametrize("name", NETWORKS)
def test_the_results_are_those_of_litert(tensorflow: Any, name: str) -> None:
    lite = lite_of(NETWORKS[name])
    unknown = {lite.kind(index) for index in range(len(lite.operators))} - FUNCTIONS.keys()
    assert not unknown
    (wanted,) = LiteRTEngine().open_graph(lite)({"x": BATCH}).values()
    found = outputs_of(lite, BATCH)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def against_zero(tf: Any, x: Any) -> Any:
    return tf.minimum(x, weight(1, 1, 4))


def compared(tf: Any, x: Any) -> Any:
    return tf.cast(tf.less(tf.round(x), tf.round(x[:, ::-1])), tf.float32)


def summed(tf: Any, x: Any) -> Any:
    return tf.reduce_sum(x, axis=1)


def flat(tf: Any, x: Any) -> Any:
    return tf.abs(tf.reshape(x, (-1, 1, 64, 4)))


def chosen(tf: Any, x: Any) -> Any:
    return tf.where(x > 0.0, x, x * 2.0)


def looked_up(tf: Any, x: Any) -> Any:
    return tf.gather(weight(4, 3), tf.argmax(tf.reshape(x, (-1, 4)), axis=-1, output_type=tf.int32))


OTHERS: dict[str, tuple[str, Callable[[Any, Any], Any], Any]] = {
    "EMBEDDING_LOOKUP": ("GATHER", looked_up, None),
    "EXPAND_DIMS": ("SUM", summed, None),
    "GELU": ("ABS", flat, schema.GeluOptionsT()),
    "GELU, approximate": ("ABS", flat, schema.GeluOptionsT()),
    "LESS_EQUAL": ("LESS", compared, None),
    "MAXIMUM": ("MINIMUM", against_zero, None),
    "PRELU": ("MINIMUM", against_zero, None),
    "RELU_0_TO_1": ("ABS", flat, None),
    "SELECT": ("SELECT_V2", chosen, None),
    "SQUEEZE": ("ABS", flat, schema.SqueezeOptionsT()),
}
"""Operators that the converter does not make: put in the place of one of the same inputs, with these options."""
OTHERS["GELU, approximate"][2].approximate = True
OTHERS["SQUEEZE"][2].squeezeDims = [1]


@pytest.mark.parametrize("name", OTHERS)
def test_operators_of_other_files(tensorflow: Any, name: str) -> None:
    (place, make, options), kind = OTHERS[name], name.partition(",")[0]
    lite = lite_of(make)
    model = flatbuffer.read(lite.content)
    (op,) = (op for op in model.subgraphs[0].operators if flatbuffer.op_name(model, op) == place)
    code = model.operatorCodes[op.opcodeIndex]
    code.builtinCode = getattr(schema.BuiltinOperator, kind)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    op.inputs = op.inputs[::-1] if kind == "EMBEDDING_LOOKUP" else op.inputs
    op.builtinOptions = options
    op.builtinOptionsType = 0 if options is None else getattr(schema.BuiltinOptions, type(options).__name__[:-1])
    other = LiteGraph(flatbuffer.write(model), lite.inputs, lite.outputs, {})
    (wanted,) = LiteRTEngine().open_graph(other)({"x": BATCH}).values()
    np.testing.assert_allclose(outputs_of(other, BATCH), wanted, rtol=1e-4, atol=1e-5)


def test_what_litert_quantizer_makes_int8_can_be_trained() -> None:
    """But for what runs other parts of a file, or is a whole layer of states."""
    from litert_quantizer import qtyping

    library = {name.value for name in qtyping.TFLOperationName} - {"*", "INPUT", "OUTPUT", "CUSTOM_OP"}
    library = {"TRANSPOSE_CONV" if name == "CONV_2D_TRANSPOSE" else name for name in library}
    assert library - FUNCTIONS.keys() - HOLDS_SUBGRAPHS - RECURRENT == {"DYNAMIC_UPDATE_SLICE"}
