"""Files of LiteRT with half precision are opened in float32: their values stay, their layers are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from graph_writing import normal, placeholder
from lite_networks import SavedLite

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.survey import survey_lite
from autoquant.model.open import open_model
from autoquant.model.shapes import import_graph

RNG = np.random.default_rng(6)
Types = schema.TensorType


def looped() -> None:
    """A convolution, a loop with a weight of its own, a MatMul; the weight of the last one is large."""
    tf.compat.v1.enable_control_flow_v2()
    t = tf.nn.relu(tf.nn.conv2d(placeholder(None, 8, 8, 4), tf.constant(normal(RNG, 3, 3, 4, 6)), 2, "SAME") + 1.0)
    kernel = tf.constant(normal(RNG, 6, 6) / 3)
    t = tf.while_loop(
        lambda count, _: count < 2,
        lambda count, t: (count + 1, tf.nn.relu(tf.linalg.matmul(t, kernel))),
        [0, tf.reshape(t, (-1, 6))],
        shape_invariants=[tf.TensorShape([]), tf.TensorShape([None, 6])],
    )[1]
    tf.linalg.matmul(tf.reshape(t, (-1, 96)), tf.constant(normal(RNG, 96, 32)), name="y")


def with_float16_weights(graph: Graph) -> bytes:
    """The graph converted as TensorFlow documents it for weights of float16."""
    tf_graph = import_graph(graph)
    with tf.compat.v1.Session(graph=tf_graph) as session:
        tensors = [tf_graph.get_tensor_by_name(name) for name in ("x:0", "y:0")]
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, tensors[:1], tensors[1:])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
        return bytes(converter.convert())


@pytest.fixture(scope="module")
def halved(build: Callable[..., Graph]) -> bytes:
    return with_float16_weights(build(looped))


def opened(content: bytes, folder: Path) -> LiteGraph:
    (folder / "half.tflite").write_bytes(content)
    lite = open_model(folder / "half.tflite").program
    assert isinstance(lite, LiteGraph)
    return lite


def types(lite: LiteGraph) -> set[str]:
    return {flatbuffer.type_name(tensor) for graph in lite.model.subgraphs for tensor in graph.tensors}


@pytest.mark.filterwarnings("ignore:.*from_session")
def test_weights_of_float16_become_constants_of_layers(halved: bytes, tmp_path: Path) -> None:
    before, lite = SavedLite(halved), opened(halved, tmp_path)
    assert before.kinds.count("DEQUANTIZE*") == 3
    assert types(lite) == {"FLOAT32", "INT32", "BOOL"}
    operators = [flatbuffer.op_name(lite.model, op) for graph in lite.model.subgraphs for op in graph.operators]
    assert "DEQUANTIZE" not in operators
    assert [(layer.op, layer.weight_shape) for layer in survey_lite(lite).layers] == [
        ("Conv2D", (6, 3, 3, 4)),
        ("MatMul", (32, 96)),
    ]
    x = normal(RNG, 5, 8, 8, 4)
    (wanted,), (found,) = before.run(x).values(), SavedLite(lite.content).run(x).values()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def ends_of_half(model: Any, kind: int) -> None:
    """Let the input and the output be of half precision, with a CAST behind one and before the other."""
    graph = model.subgraphs[0]
    code = flatbuffer.operator_index(model, schema.BuiltinOperator.CAST)
    for ends, places, at in ((graph.inputs, "inputs", 0), (graph.outputs, "outputs", None)):
        inner, outer = int(ends[0]), flatbuffer.add_constant(model, graph, places, np.zeros(0, np.float32))
        graph.tensors[outer].shape = graph.tensors[inner].shape
        graph.tensors[outer].shapeSignature = graph.tensors[inner].shapeSignature
        graph.tensors[outer].type, graph.tensors[outer].buffer = kind, 0
        op = schema.OperatorT()
        op.opcodeIndex = code
        op.inputs, op.outputs = ([outer], [inner]) if at == 0 else ([inner], [outer])
        graph.operators.insert(len(graph.operators) if at is None else at, op)
        ends[0] = outer
        for entry in getattr(model.signatureDefs[0], places):
            entry.tensorIndex = outer


@pytest.mark.parametrize("kind", [Types.FLOAT16, Types.BFLOAT16], ids=["float16", "bfloat16"])
def test_inputs_and_outputs_become_float32(kind: int, lite: LiteGraph, tmp_path: Path) -> None:
    model = flatbuffer.read(lite.content)
    ends_of_half(model, kind)
    found = opened(flatbuffer.write(model), tmp_path)
    assert (found.inputs, found.outputs) == (lite.inputs, lite.outputs)
    assert [flatbuffer.op_name(found.model, op) for op in found.operators] == [
        flatbuffer.op_name(lite.model, op) for op in lite.operators
    ]
    assert "FLOAT16" not in types(found)
    x = normal(RNG, 3, 6, 6, 2)
    (wanted,), (same,) = SavedLite(lite.content).run(x).values(), SavedLite(found.content).run(x).values()
    np.testing.assert_array_equal(same, wanted)


def test_a_constant_of_bfloat16_keeps_its_value(lite: LiteGraph, tmp_path: Path) -> None:
    """The weight of the MatMul in bfloat16, cut off, behind a CAST."""
    model = flatbuffer.read(lite.content)
    graph = model.subgraphs[0]
    dense = next(op for op in graph.operators if flatbuffer.op_name(model, op) == "FULLY_CONNECTED")
    old = graph.tensors[dense.inputs[1]]
    bits = np.asarray(model.buffers[old.buffer].data, np.uint8).view(np.uint32)
    new = flatbuffer.add_constant(model, graph, "weight", np.zeros(0, np.float32))
    graph.tensors[new].type, graph.tensors[new].shape = Types.BFLOAT16, old.shape
    graph.tensors[new].buffer = flatbuffer.add_buffer(model, (bits >> 16).astype(np.uint16).view(np.uint8))
    cast = schema.OperatorT()
    cast.opcodeIndex = flatbuffer.operator_index(model, schema.BuiltinOperator.CAST)
    cast.inputs, cast.outputs = [new], [int(dense.inputs[1])]
    old.buffer = 0
    graph.operators.insert(0, cast)
    content = flatbuffer.write(model)
    found = opened(content, tmp_path)
    layer = next(layer for layer in survey_lite(found).layers if layer.op == "MatMul")
    value = found.constant(layer.weight or "")
    assert value is not None
    np.testing.assert_array_equal(value.reshape(-1), (bits & 0xFFFF0000).astype(np.uint32).view(np.float32))
    x = normal(RNG, 3, 6, 6, 2)
    (wanted,), (same,) = SavedLite(content).run(x).values(), SavedLite(found.content).run(x).values()
    np.testing.assert_allclose(same, wanted, rtol=1e-5, atol=1e-5)


def test_what_takes_the_bytes_of_half_precision_is_refused(lite: LiteGraph, tmp_path: Path) -> None:
    model = flatbuffer.read(lite.content)
    ends_of_half(model, Types.FLOAT16)
    bits = schema.OperatorCodeT()
    bits.builtinCode, bits.deprecatedBuiltinCode = schema.BuiltinOperator.BITCAST, 127  # "a greater one"
    model.operatorCodes.append(bits)
    model.subgraphs[0].operators[-1].opcodeIndex = len(model.operatorCodes) - 1
    with pytest.raises(ModelError, match="takes the bytes of half precision in BITCAST"):
        opened(flatbuffer.write(model), tmp_path)
