from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal, placeholder

from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.interpreter import plain_interpreter
from autoquant.model.litert.tidy import tidy
from autoquant.model.shapes import import_graph

RNG = np.random.default_rng(4)


def raw(graph: Graph) -> Any:
    """What the converter makes of a graph, as objects."""
    (name,), (output,) = graph.inputs, graph.outputs
    tf_graph = import_graph(graph)
    with tf.compat.v1.Session(graph=tf_graph) as session:
        tensors = [tf_graph.get_tensor_by_name(f"{one}:0") for one in (name, output)]
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, tensors[:1], tensors[1:])
        return flatbuffer.read(converter.convert())


def kinds(model: Any) -> list[str]:
    return [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators]


def ran(model: Any, x: Any) -> Any:
    """The first output, by the plain kernels."""
    interpreter = plain_interpreter(flatbuffer.write(model))
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def dense(t: Any, size: int) -> Any:
    return tf.identity(tf.linalg.matmul(t, tf.constant(normal(RNG, size, 3)), name="dense"), name="y")


FLATTENING: Mapping[str, Callable[[Any], Any]] = {
    "as Keras writes it": lambda x: dense(tf.reshape(x, tf.stack([tf.shape(x)[0], 32])), 32),
    "with an open rest": lambda x: dense(tf.reshape(x, tf.stack([tf.shape(x)[0], -1])), 32),
    "of the shape of another": lambda x: dense(tf.reshape(x, tf.stack([tf.shape(x * 2.0)[0], 32])), 32),
    "by concatenation": lambda x: dense(tf.reshape(x, tf.concat([tf.shape(x)[:1], [32]], 0)), 32),
}


@pytest.mark.parametrize("write", FLATTENING.values(), ids=FLATTENING.keys())
@pytest.mark.filterwarnings("ignore:.*from_session")
def test_flattening_becomes_one_reshape_and_values_stay_to_the_bit(
    write: Callable[[Any], Any], build: Callable[..., Graph]
) -> None:
    graph = build(lambda: write(placeholder(None, 4, 4, 2)))
    model = raw(graph)
    before = {batch: normal(RNG, batch, 4, 4, 2) for batch in (1, 7, 64)}
    want = {batch: ran(model, x) for batch, x in before.items()}
    assert "SHAPE" in kinds(model)
    tidy(model)
    assert [kind for kind in kinds(model) if kind != "MUL"] == ["RESHAPE", "FULLY_CONNECTED"]
    for batch, x in before.items():
        assert np.array_equal(ran(model, x), want[batch]), batch


def test_a_shape_with_two_open_sizes_stays(
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
    ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    def write() -> None:
        x = placeholder(None, None, 4)
        t = tf.reshape(x, tf.stack([tf.shape(x)[1], tf.shape(x)[0], 4]))
        t = tf.reshape(tf.sin(t), (-1, 4))
        tf.identity(tf.linalg.matmul(t, tf.constant(normal(RNG, 4, 3)), name="dense"), name="y")

    graph = build(write)
    lite = convert(graph)
    assert "SHAPE" in kinds(lite.model)
    for shape in ((2, 5, 4), (3, 3, 4)):
        x = normal(RNG, *shape)
        np.testing.assert_allclose(ran_lite(lite.content, {"x": x})["y"], run(graph, {"x": x})[0], rtol=1e-5, atol=1e-5)


def test_every_tensor_has_a_name_of_its_own_without_colon(lite: LiteGraph) -> None:
    model = flatbuffer.read(lite.content)
    x = normal(RNG, 2, 6, 6, 2)
    want = ran(model, x)
    for tensor, name in zip(model.subgraphs[0].tensors, [b"a", b"a", None, b"", b"a:0", b"b:1", b"a_1"], strict=False):
        tensor.name = name
    tidy(model)
    names = [flatbuffer.tensor_name(tensor) for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == len(names)
    assert names[:6] == ["a", "a_1", "tensor", "tensor_1", "a_2", "b_1"]
    assert not any(":" in name for name in names)
    assert np.array_equal(ran(model, x), want)


def test_nothing_unused_is_left_and_all_that_is_used_is(lite: LiteGraph) -> None:
    model = flatbuffer.read(lite.content)
    x = normal(RNG, 2, 6, 6, 2)
    want, size = ran(model, x), len(lite.content)
    flatbuffer.add_constant(model, model.subgraphs[0], "left over", np.zeros(10_000, np.float32))
    flatbuffer.add_buffer(model, np.zeros(10_000, np.uint8))
    assert len(flatbuffer.write(model)) > size + 50_000
    tidy(model)
    assert len(flatbuffer.write(model)) <= size
    assert np.array_equal(ran(model, x), want)
    assert len(model.buffers[0].data if model.buffers[0].data is not None else ()) == 0


def test_a_constant_that_layers_share_is_given_to_each(build: Callable[..., Graph]) -> None:
    def write() -> None:
        kernel, bias = tf.constant(normal(RNG, 4, 4)), tf.constant(normal(RNG, 4))
        t = tf.nn.bias_add(tf.linalg.matmul(placeholder(None, 4), kernel, name="first"), bias)
        tf.nn.bias_add(tf.linalg.matmul(tf.sin(t), kernel, name="second"), bias, name="y")

    lite = convert(build(write))
    operators = [lite.operators[index] for index in lite.layers.values()]
    constants = [int(index) for op in operators for index in op.inputs[1:]]
    assert len(constants) == 4 == len({lite.subgraph.tensors[index].buffer for index in constants})
    first, second = (flatbuffer.value_of(lite.model, lite.subgraph.tensors[op.inputs[1]]) for op in operators)
    assert first is not None
    assert second is not None
    assert np.array_equal(first, second)


def test_tidy_files_stay(lite: LiteGraph) -> None:
    model = flatbuffer.read(lite.content)
    tidy(model)
    assert flatbuffer.write(model) == lite.content
