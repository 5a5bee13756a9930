"""Quantization-aware training in a float .tflite: FAKE_QUANT, and QUANTIZE with DEQUANTIZE behind it, around floats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.tidy import drop_unused_tensors

NOTE = (
    "quantization-aware training: FAKE_QUANT or Q/DQ operators were removed from {} activations, and weights keep the "
    "values that theirs give; FP32 is that network"
)


def remove_fake_quants(model: Any) -> int:
    """Remove them from the objects of a file; returns how many rounded activations.

    A weight that they round becomes a constant of rounded values. What operators compute in integers stays.
    """
    return sum(_remove(model, number) for number in range(len(model.subgraphs)))


def _remove(model: Any, number: int) -> int:
    graph, instead, activations = model.subgraphs[number], dict[int, int](), 0
    makers = {int(index): op for op in graph.operators for index in op.outputs}
    for op in list(graph.operators):
        found = _rounded(model, graph, op, makers)
        if found is None:
            continue
        source, grid = found
        source = instead.get(source, source)  # operators come in order, so what is before is known
        value = flatbuffer.value_of(model, graph.tensors[source])
        if value is None:
            activations += 1
        elif grid is None:  # a constant in front of a FAKE_QUANT, which no converter leaves
            continue
        else:
            name = flatbuffer.tensor_name(graph.tensors[source])
            source = flatbuffer.add_constant(model, graph, name, _on_grid(value, grid))
        instead[int(op.outputs[0])] = source
    if instead:
        _redirect(model, number, instead)
    return activations


def _rounded(model: Any, graph: Any, op: Any, makers: Mapping[int, Any]) -> tuple[int, Any | None] | None:
    """The float tensor that an operator rounds, and the tensor of a pair that has the grid; None where it does not."""
    kind = flatbuffer.op_name(model, op)
    if kind == "FAKE_QUANT":
        return int(op.inputs[0]), None
    maker = makers.get(int(op.inputs[0])) if kind == "DEQUANTIZE" else None
    if maker is None or flatbuffer.op_name(model, maker) != "QUANTIZE":
        return None
    source = int(maker.inputs[0])
    floats = (graph.tensors[source], graph.tensors[op.outputs[0]])
    if any(flatbuffer.type_name(tensor) != "FLOAT32" for tensor in floats):
        return None
    return source, graph.tensors[op.inputs[0]]


def _on_grid(value: Array, tensor: Any) -> Array:
    """Floats rounded to the grid of a quantized tensor, ties away from 0, as QUANTIZE rounds."""
    quantization = tensor.quantization
    shape = flatbuffer.scale_shape(tensor, value.ndim)
    scale = np.asarray(quantization.scale, np.float32).reshape(shape)
    zero = np.asarray(quantization.zeroPoint, np.float32).reshape(shape)
    steps = value / scale
    limits = np.iinfo(flatbuffer.DTYPES[tensor.type])
    whole = np.clip(np.trunc(steps + np.copysign(np.float32(0.5), steps)) + zero, limits.min, limits.max)
    return np.asarray((whole - zero) * scale, np.float32)


def _redirect(model: Any, number: int, instead: Mapping[int, int]) -> None:
    """Let all read what is before the operators that round, which go."""
    graph = model.subgraphs[number]
    graph.operators = [op for op in graph.operators if not any(int(index) in instead for index in op.outputs)]
    for op in graph.operators:
        op.inputs = [instead.get(int(index), int(index)) for index in op.inputs]
    graph.outputs = [instead.get(int(index), int(index)) for index in graph.outputs]
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == number:
            for entry in signature.outputs:
                entry.tensorIndex = instead.get(entry.tensorIndex, entry.tensorIndex)
    flatbuffer.drop_unread(graph, lambda op: flatbuffer.op_name(model, op) == "QUANTIZE")
    drop_unused_tensors(model, graph)
