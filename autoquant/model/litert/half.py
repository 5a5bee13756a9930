"""Files of LiteRT with tensors of half precision (float16, bfloat16), in float32: weights are constants of layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import schema

FLOAT32 = schema.TensorType.FLOAT32
HALF: Mapping[int, Callable[[Array], Array]] = MappingProxyType(
    {
        schema.TensorType.BFLOAT16: lambda data: (data.view(np.uint16).astype(np.uint32) << 16).view(np.float32),
        schema.TensorType.FLOAT16: lambda data: data.view(np.float16).astype(np.float32),
    }
)
"""Type of half precision -> its values, from the bytes of a buffer, in float32."""


def to_float32(model: Any, *, where: str) -> None:
    """Let the tensors of half precision of a file's objects be float32, in place, inputs and outputs too.

    Constants keep their values; what made float32 of them, DEQUANTIZE or CAST, goes. Raises ModelError where an
    operator takes the bytes of half precision.
    """
    if not any(tensor.type in HALF for graph in model.subgraphs for tensor in graph.tensors):
        return
    for graph in model.subgraphs:
        _check_bits(model, graph, where)
    for graph in model.subgraphs:
        _retype(model, graph)
        _drop_conversions(model, graph)


def _check_bits(model: Any, graph: Any, where: str) -> None:
    for op in graph.operators:
        if flatbuffer.op_name(model, op) == "BITCAST":
            for tensor in (graph.tensors[index] for index in (*op.inputs, *op.outputs)):
                if tensor.type in HALF:
                    what = f"takes the bytes of half precision in BITCAST ('{flatbuffer.tensor_name(tensor)}')"
                    raise ModelError(where, what, hint="give the model in float32")


def _retype(model: Any, graph: Any) -> None:
    made: dict[tuple[int, int], int] = {}
    for tensor in graph.tensors:
        if tensor.type not in HALF:
            continue
        data = model.buffers[tensor.buffer].data
        if data is not None and len(data):
            key = tensor.buffer, tensor.type
            if key not in made:
                values = HALF[tensor.type](np.asarray(data, np.uint8))
                made[key] = flatbuffer.add_buffer(model, values.view(np.uint8))
            tensor.buffer = made[key]
        tensor.type = FLOAT32


def _drop_conversions(model: Any, graph: Any) -> None:
    """Let what reads float32 made of float32 read its data; a CAST stays where an input or constant is an output."""
    made = {int(index) for op in graph.operators for index in op.outputs}
    instead: dict[int, int] = {}
    left = []
    for op in graph.operators:
        op.inputs = [instead.get(int(index), int(index)) for index in op.inputs]
        types = {graph.tensors[index].type for index in (*op.inputs, *op.outputs) if index >= 0}
        if flatbuffer.op_name(model, op) not in ("CAST", "DEQUANTIZE") or types != {FLOAT32}:
            left.append(op)
        elif int(op.outputs[0]) in graph.outputs and (op.inputs[0] not in made or op.inputs[0] in graph.outputs):
            op.opcodeIndex = flatbuffer.operator_index(model, schema.BuiltinOperator.CAST)
            op.builtinOptions, op.builtinOptionsType = None, schema.BuiltinOptions.NONE
            left.append(op)
        else:
            instead[int(op.outputs[0])] = op.inputs[0]
            _redirect_output(model, graph, int(op.outputs[0]), op.inputs[0])
    graph.operators = left


def _redirect_output(model: Any, graph: Any, old: int, new: int) -> None:
    """Let a graph, and its signature, give another tensor in place of one."""
    graph.outputs = [new if index == old else int(index) for index in graph.outputs]
    for signature in model.signatureDefs or ():
        if model.subgraphs[signature.subgraphIndex] is graph:
            for entry in signature.outputs:
                entry.tensorIndex = new if entry.tensorIndex == old else entry.tensorIndex
