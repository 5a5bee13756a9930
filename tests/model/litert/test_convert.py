from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.schema_py_generated import TensorType
from graph_writing import normal, placeholder
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.matching import equal_but_for_factors
from autoquant.model.open import open_model
from autoquant.model.survey import survey_graph

RNG = np.random.default_rng(1)


def weight(*shape: int) -> Any:
    return tf.constant(normal(RNG, *shape), name="kernel")


def transposed(x: Any) -> Any:
    shape = tf.stack([tf.shape(x)[0], 12, 12, 3])
    return tf.nn.conv2d_transpose(x, weight(3, 3, 3, 4), shape, 2, name="layer")


def depthwise(x: Any, channels: int, times: int, *, stride: int = 1) -> Any:
    value = weight(3, 3, channels, times)
    return tf.compat.v1.nn.depthwise_conv2d_native(x, value, (1, stride, stride, 1), "SAME", name="layer")


def conv3d(x: Any) -> Any:
    return tf.nn.conv3d(tf.reshape(x, (-1, 6, 6, 2, 2)), weight(3, 3, 3, 2, 5), (1, 1, 1, 1, 1), "SAME", name="layer")


LAYERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "convolution": ("CONV_2D", lambda x: tf.nn.conv2d(x, weight(3, 3, 4, 5), 2, "SAME", name="layer")),
    "dilated": ("CONV_2D", lambda x: tf.nn.conv2d(x, weight(3, 3, 4, 5), 1, "VALID", dilations=2, name="layer")),
    "groups": ("CONV_2D", lambda x: tf.nn.conv2d(x, weight(3, 3, 2, 6), 1, "SAME", name="layer")),
    "one channel": ("CONV_2D", lambda x: tf.nn.conv2d(x[..., :1], weight(3, 3, 1, 6), 1, "SAME", name="layer")),
    "conv1d": ("CONV_2D", lambda x: tf.nn.conv1d(x[:, 0], weight(3, 4, 5), 1, "SAME", name="layer/conv")),
    "with relu": ("CONV_2D", lambda x: tf.nn.relu(tf.nn.conv2d(x, weight(1, 1, 4, 5), 1, "SAME", name="layer"))),
    "times a vector": ("CONV_2D", lambda x: tf.nn.conv2d(x, weight(3, 3, 4, 5), 1, "SAME", name="layer") * weight(5)),
    "rescaled": ("CONV_2D", lambda x: tf.nn.conv2d(x * weight(4), weight(3, 3, 4, 5), 1, "SAME", name="layer")),
    "depthwise": ("DEPTHWISE_CONV_2D", lambda x: depthwise(x, 4, 1, stride=2)),
    "depthwise, twice": ("DEPTHWISE_CONV_2D", lambda x: depthwise(x, 4, 2)),
    "depthwise of one": ("DEPTHWISE_CONV_2D", lambda x: depthwise(x[..., :1], 1, 3)),
    "transposed": ("TRANSPOSE_CONV", transposed),
    "3-D": ("CONV_3D", conv3d),
    "pooling": ("AVERAGE_POOL_2D", lambda x: tf.nn.avg_pool2d(x, 3, 1, "SAME", name="layer")),
    "matmul": ("FULLY_CONNECTED", lambda x: tf.linalg.matmul(tf.reshape(x, (-1, 144)), weight(144, 7), name="layer")),
    "matmul of the transpose": (
        "FULLY_CONNECTED",
        lambda x: tf.raw_ops.MatMul(a=tf.reshape(x, (-1, 144)), b=weight(7, 144), transpose_b=True, name="layer"),
    ),
    "batches": ("FULLY_CONNECTED", lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=weight(4, 7), name="layer")),
    "batches of matrices": ("BATCH_MATMUL", lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=weight(6, 4, 7), name="layer")),
    "two factors": ("BATCH_MATMUL", lambda x: tf.raw_ops.BatchMatMulV2(x=x, y=x + 1.0, adj_y=True, name="layer")),
}


@pytest.mark.parametrize(("kind", "write"), LAYERS.values(), ids=LAYERS.keys())
def test_every_kind_of_layer_is_found_and_computes_the_same(
    kind: str,
    write: Callable[[Any], Any],
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    graph = build(lambda: tf.identity(write(placeholder(None, 6, 6, 4)), name="y"))
    lite = convert(graph)
    name = "layer" if "layer" in graph.nodes else "layer/conv"
    assert flatbuffer.op_name(lite.model, lite.operators[lite.layers[name]]) == kind
    assert (len(lite.layers), dict(lite.missing)) == (1, {})
    for batch in (1, 3):
        x = np.random.default_rng(batch).normal(size=(batch, 6, 6, 4)).astype(np.float32)
        (want,) = run(graph, {"x": x})
        np.testing.assert_allclose(ran_lite(lite.content, {"x": x})["y"], want, rtol=1e-4, atol=1e-4)


def test_a_layer_is_found_by_the_name_of_its_weight_where_its_result_is_called_after_the_output(
    build: Callable[..., Graph],
) -> None:
    def write() -> None:
        t = tf.linalg.matmul(placeholder(None, 4), weight(4, 7), name="layer")
        tf.nn.bias_add(t, weight(7), name="y")

    assert dict(convert(build(write)).layers) == {"layer": 0}


def test_layers_of_equal_weights_are_told_apart(
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    kernel = normal(RNG, 4, 4)

    def write() -> None:
        t = tf.nn.relu(tf.linalg.matmul(placeholder(None, 4), tf.constant(kernel), name="first"))
        t = tf.sin(t)
        t = tf.nn.relu(tf.linalg.matmul(t, tf.constant(kernel), name="second"))
        tf.identity(tf.cos(t), name="y")

    graph = build(write)
    lite = convert(graph)
    assert 0 == lite.layers["first"] < lite.layers["second"]
    # Each has a weight of its own, which may become INT8 or not.
    weights = {int(lite.operators[index].inputs[1]) for index in lite.layers.values()}
    assert len(weights) == len({lite.subgraph.tensors[index].buffer for index in weights}) == 2
    x = normal(RNG, 3, 4)
    np.testing.assert_allclose(ran_lite(lite.content, {"x": x})["y"], run(graph, {"x": x})[0], rtol=1e-4, atol=1e-5)


def test_an_operator_that_is_no_layer_of_the_graph_is_called_after_its_node(build: Callable[..., Graph]) -> None:
    def write() -> None:
        tf.identity(tf.einsum("bi,ij->bj", placeholder(None, 4), weight(4, 7), name="sum"), name="y")

    graph = build(write)
    assert not {"MatMul", "BatchMatMulV2"} & {node.op for node in graph.nodes.values()}
    (layer,) = convert(graph).layers
    assert layer == "sum/Einsum"


def test_operators_that_the_converter_removed_are_told(build: Callable[..., Graph]) -> None:
    def write() -> None:
        t = tf.nn.avg_pool2d(placeholder(None, 4, 4, 2), 1, 1, "VALID", name="pool")
        tf.identity(tf.nn.conv2d(t, weight(1, 1, 2, 2), 1, "VALID", name="conv"), name="y")

    lite = convert(build(write))
    assert lite.layers.keys() | lite.missing.keys() == {"conv", "pool"}
    assert "conv" in lite.layers


def test_a_weight_that_only_looks_alike_is_not_taken_for_the_layers() -> None:
    a = normal(RNG, 5, 8)
    assert equal_but_for_factors(a * np.array([[2], [-3], [1], [0.1], [7]], np.float32), a, 0)
    assert not equal_but_for_factors(a * np.array([1, 2, 1, 1, 1, 1, 1, 1], np.float32), a, 0)
    assert not equal_but_for_factors(a[::-1], a, 0)
    assert not equal_but_for_factors(a.T, a, 0)
    assert not equal_but_for_factors(np.where(a == a[0, 0], a + 0.001, a), a, 0)


@given(st.integers(0, 2**32 - 1), st.integers(0, 2), st.floats(-10, 10).filter(lambda f: abs(f) > 1e-3))
def test_factors_for_each_channel_are_allowed_on_any_axis(seed: int, axis: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(3, 4, 5)).astype(np.float32)
    shape = [1, 1, 1]
    shape[axis] = a.shape[axis]
    factors = (factor * rng.uniform(0.5, 2, shape)).astype(np.float32)
    assert equal_but_for_factors(a * factors, a, axis)
    assert not equal_but_for_factors(a * factors, a, (axis + 1) % 3)


def test_inputs_and_outputs_keep_the_order_of_the_graph(
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    def write() -> None:
        a = tf.compat.v1.placeholder(tf.float32, (None, 3), name="a")
        b = tf.compat.v1.placeholder(tf.int32, (None, 2), name="b")
        tf.add(tf.linalg.matmul(a, weight(3, 2)), 1.0, name="first")
        tf.add(tf.cast(b, tf.float32), a[:, :2], name="second")

    graph = build(write, inputs=("b", "a"), outputs=("second", "first"))
    lite = convert(graph)
    tensors = [lite.subgraph.tensors[index] for index in lite.subgraph.inputs]
    assert [tensor.type for tensor in tensors] == [
        TensorType.INT32,
        TensorType.FLOAT32,
    ]
    feeds = {"a": normal(RNG, 5, 3), "b": np.arange(10, dtype=np.int32).reshape(5, 2)}
    found = ran_lite(lite.content, feeds)
    for name, want in zip(graph.outputs, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-5)


OUTPUTS = [("y",), ("z", "y"), ("y", "x"), ("s:2", "s"), ("c", "y")]


@pytest.mark.parametrize("outputs", OUTPUTS, ids="-".join)
def test_inputs_that_nothing_needs_and_outputs_of_every_kind(
    outputs: tuple[str, ...],
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    kernel = normal(RNG, 4, 3)

    def write() -> None:
        tf.compat.v1.placeholder(tf.float32, (None, 2), name="unused")
        y = tf.linalg.matmul(placeholder(None, 4), tf.constant(kernel), name="y")
        tf.identity(y, name="z")
        tf.split(y, 3, axis=1, name="s")
        tf.constant(3.0, name="c")

    graph = build(write, inputs=("x", "unused"), outputs=outputs)
    lite = convert(graph)
    feeds = {"x": normal(RNG, 5, 4), "unused": normal(RNG, 5, 2)}
    found = ran_lite(lite.content, feeds)
    for name, want in zip(graph.outputs, run(graph, feeds), strict=True):
        np.testing.assert_allclose(found[name], want, rtol=1e-5, atol=1e-5)


def test_an_input_of_unknown_rank_gets_what_its_layers_need(
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, None, name="x")
        tf.identity(tf.nn.conv2d(x * 2.0 - 1.0, weight(3, 3, 2, 4), 1, "SAME", name="layer"), name="y")

    graph = build(write)
    lite = convert(graph)
    assert flatbuffer.shape_of(lite.subgraph.tensors[lite.subgraph.inputs[0]]) == (None, None, None, 2)
    for shape in ((1, 5, 7, 2), (3, 8, 4, 2)):
        x = normal(RNG, *shape)
        np.testing.assert_allclose(ran_lite(lite.content, {"x": x})["y"], run(graph, {"x": x})[0], rtol=1e-4, atol=1e-4)


def test_an_input_whose_rank_no_layer_tells_is_refused(build: Callable[..., Graph]) -> None:
    def write() -> None:
        tf.raw_ops.BatchMatMulV2(x=tf.compat.v1.placeholder(tf.float32, None, name="x"), y=weight(4, 3), name="y")

    with pytest.raises(ModelError, match=r"^x: is an input whose rank the model does not say.*--target tensorflow$"):
        convert(build(write))


def test_a_fixed_batch_stays(build: Callable[..., Graph]) -> None:
    graph = build(lambda: tf.identity(tf.linalg.matmul(placeholder(2, 4), weight(4, 3), name="layer"), name="y"))
    lite = convert(graph)
    assert flatbuffer.shape_of(lite.subgraph.tensors[lite.subgraph.inputs[0]]) == (2, 4)


def test_a_refusal_names_operator_and_node_and_says_nothing_else(
    build: Callable[..., Graph], capfd: pytest.CaptureFixture[str]
) -> None:
    graph = build(lambda: tf.raw_ops.MatrixInverse(input=placeholder(None, 4, 4), name="y"))
    with pytest.raises(ModelError, match=r"^'y' \(MatrixInverse\): the converter refuses it: .* --target tensorflow$"):
        convert(graph)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras and NumPy 2
def test_layers_of_keras_models_are_found(tmp_path: Path) -> None:
    import keras

    layers = keras.layers
    inputs = keras.Input((8, 8, 3))
    t = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    t = layers.ReLU()(layers.BatchNormalization()(t))
    t = layers.SeparableConv2D(6, 3, activation="relu")(t)
    t = layers.Conv2DTranspose(4, 3, strides=2)(t)
    t = layers.Flatten()(layers.AveragePooling2D(2)(t))
    t = layers.Dense(5, activation="softmax")(layers.Dense(8, activation="relu6")(t))
    keras.Model(inputs, t).save(tmp_path / "net.keras")
    graph = open_model(tmp_path / "net.keras").graph
    lite = convert(graph)
    assert lite.layers.keys() == {layer.name for layer in survey_graph(graph).layers}
    assert len(lite.layers) == 7
    assert not lite.missing


@pytest.mark.parametrize(
    "name",
    ["bed/mid.pb", "cifar10/resnet8.pb", "kws/kws_ref_model.keras", "vww/vww_96.pb", "super_resolution/FSRCNN_x3.pb"],
)
def test_real_models(
    name: str,
    real_data: Path,
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    graph = open_model(real_data / name).graph
    lite: LiteGraph = convert(graph)
    assert {layer.name for layer in survey_graph(graph).layers} == lite.layers.keys()
    assert not lite.missing
    stated = flatbuffer.shape_of(lite.subgraph.tensors[lite.subgraph.inputs[0]])
    assert stated[0] is None
    for batch in (1, 7):
        x = normal(RNG, batch, *(size or 20 + batch for size in stated[1:]))
        for output, want in zip(graph.outputs, run(graph, {graph.inputs[0]: x}), strict=True):
            found = ran_lite(lite.content, {graph.inputs[0]: x})[output]
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-4)


def test_a_graph_is_not_changed(small: Graph) -> None:
    before = small.to_graph_def().SerializeToString(deterministic=True)
    assert convert(small).content == convert(small).content
    assert small.to_graph_def().SerializeToString(deterministic=True) == before
