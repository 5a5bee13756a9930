"""Files made by the builder, run by LiteRT; the file that they are made of stays as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.schema_py_generated import BuiltinOperator
from graph_writing import placeholder

from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph

WEIGHT = np.array([[1.0, -2.0], [0.5, 4.0], [2.0, 0.25]], np.float32)
X = np.array([[0.3, -1.7, 0.55], [2.0, 0.1, -0.4]], np.float32)

Run = Callable[[bytes], Mapping[str, Any]]


@pytest.fixture
def lite(build: Callable[..., Graph]) -> LiteGraph:
    """X (batch, 3) -> `dense` -> relu `y`, which LiteRT joins: one operator."""
    return convert(
        build(lambda: tf.nn.relu(tf.linalg.matmul(placeholder(None, 3), tf.constant(WEIGHT), name="dense"), name="y"))
    )


@pytest.fixture
def run(ran_lite: Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]]) -> Run:
    return lambda content: ran_lite(content, {"x": X})


def kinds(content: bytes) -> list[str]:
    model = flatbuffer.read(content)
    return [flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators]


def test_nothing_changed_is_the_same_file(lite: LiteGraph) -> None:
    assert LiteBuilder(lite).write() == flatbuffer.write(lite.model)


def test_a_constant_is_replaced_in_the_new_file_alone(lite: LiteGraph, run: Run) -> None:
    before, builder = flatbuffer.write(lite.model), LiteBuilder(lite)
    builder.replace_constant(int(lite.operators[0].inputs[1]), 2.0 * WEIGHT.T)
    np.testing.assert_allclose(run(builder.write())["y"], np.maximum(X @ WEIGHT * 2.0, 0.0), rtol=1e-6)
    assert flatbuffer.write(lite.model) == before


def test_an_operator_is_copied_beside_itself_and_both_results_are_outputs(lite: LiteGraph, run: Run) -> None:
    builder = LiteBuilder(lite)
    copy = builder.copied(0)
    copy.inputs[1] = builder.constant_like(copy.inputs[1], -WEIGHT.T)
    copy.outputs = [builder.like(copy.outputs[0])]
    builder.place(copy, at=0)
    found = run(builder.write({"copy": copy.outputs[0], "y": int(lite.subgraph.outputs[0])}))
    np.testing.assert_allclose(found["y"], np.maximum(X @ WEIGHT, 0.0), rtol=1e-6)
    np.testing.assert_allclose(found["copy"], np.maximum(-X @ WEIGHT, 0.0), rtol=1e-6)


def test_data_are_rounded_to_int8_once_for_all_that_read_them_so(lite: LiteGraph, run: Run) -> None:
    scale, zero = 0.25, 3
    builder, x = LiteBuilder(lite), int(lite.subgraph.inputs[0])
    rounded = builder.quantize_dequantize(x, scale, zero, at=0)
    assert builder.quantize_dequantize(x, scale, zero, at=1) == rounded
    assert builder.quantize_dequantize(rounded, scale, zero, at=1) == rounded
    assert builder.quantize_dequantize(x, scale, 0, at=1) != rounded
    builder.operator(0).inputs[0] = rounded
    content = builder.write()
    assert kinds(content) == ["QUANTIZE", "DEQUANTIZE", "FULLY_CONNECTED", "QUANTIZE", "DEQUANTIZE"]
    inner = (np.clip(np.rint(X / scale) + zero, -128, 127) - zero) * scale
    np.testing.assert_allclose(run(content)["y"], np.maximum(inner @ WEIGHT, 0.0), rtol=1e-6)


def test_data_are_rounded_to_int16(lite: LiteGraph, run: Run) -> None:
    builder, x = LiteBuilder(lite), int(lite.subgraph.inputs[0])
    builder.operator(0).inputs[0] = builder.quantize_dequantize(x, 2.0**-12, 0, at=0, bits=16)
    inner = np.clip(np.rint(X * 2.0**12), -32768, 32767) * 2.0**-12
    np.testing.assert_allclose(run(builder.write())["y"], np.maximum(inner @ WEIGHT, 0.0), rtol=1e-5)


def test_a_tensor_rounded_later_is_rounded_again_for_earlier_readers(lite: LiteGraph) -> None:
    builder, x = LiteBuilder(lite), int(lite.subgraph.inputs[0])
    later = builder.quantize_dequantize(x, 0.25, 0, at=1)
    assert builder.quantize_dequantize(x, 0.25, 0, at=0) != later
    assert kinds(builder.write()) == ["QUANTIZE", "DEQUANTIZE", "FULLY_CONNECTED", "QUANTIZE", "DEQUANTIZE"]


def test_operators_run_in_the_order_in_which_they_are_placed(lite: LiteGraph, run: Run) -> None:
    builder, x = LiteBuilder(lite), int(lite.subgraph.inputs[0])
    factors = builder.constant(np.array([2.0, 1.0, 0.5], np.float32))
    product = builder.add(BuiltinOperator.MUL, [x, factors], builder.like(x), at=0)
    builder.operator(0).inputs[0] = builder.add(BuiltinOperator.SUB, [product, factors], builder.like(x), at=0)
    factor = np.array([2.0, 1.0, 0.5])
    np.testing.assert_allclose(run(builder.write())["y"], np.maximum((X * factor - factor) @ WEIGHT, 0.0), rtol=1e-5)


def test_constants_that_nothing_reads_any_more_are_left_out(lite: LiteGraph) -> None:
    builder = LiteBuilder(lite)
    op = builder.operator(0)
    op.inputs[1] = builder.constant_like(op.inputs[1], WEIGHT.T)
    model = flatbuffer.read(builder.write())
    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in model.buffers]
    assert sizes.count(WEIGHT.nbytes) == 1
