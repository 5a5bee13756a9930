"""Another .tflite made of one that is there: operators changed, copied and added, constants replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph

OPTIONS: Mapping[int, tuple[int, Callable[[], Any]]] = MappingProxyType(
    {
        schema.BuiltinOperator.ADD: (schema.BuiltinOptions.AddOptions, schema.AddOptionsT),
        schema.BuiltinOperator.MEAN: (
            schema.BuiltinOptions.ReducerOptions,
            partial(schema.ReducerOptionsT, keepDims=True),
        ),
        schema.BuiltinOperator.MUL: (schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
        schema.BuiltinOperator.SUB: (schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
    }
)
"""Operator -> the kind of its options, and how to make them, for those that must have any."""
ACTIVATIONS: Mapping[int, int] = MappingProxyType(
    {
        schema.ActivationFunctionType.RELU: schema.BuiltinOperator.RELU,
        schema.ActivationFunctionType.RELU_N1_TO_1: schema.BuiltinOperator.RELU_N1_TO_1,
        schema.ActivationFunctionType.RELU6: schema.BuiltinOperator.RELU6,
        schema.ActivationFunctionType.TANH: schema.BuiltinOperator.TANH,
    }
)
"""An activation within another operator -> the operator that does the same."""


class LiteBuilder:
    """A copy of a .tflite, which shares with it all that is not changed; tensors and operators keep their indices.

    What is added runs at a place in the file: before operator number `at`, behind what was added there earlier. Tensors
    (TensorT) and operators (OperatorT) are those of the schema.
    """

    def __init__(self, lite: LiteGraph) -> None:
        self.lite = lite
        self._model: Any = copy(lite.model)
        self._graph: Any = copy(lite.subgraph)
        self._model.subgraphs = [self._graph, *lite.model.subgraphs[1:]]
        self._model.operatorCodes = list(lite.model.operatorCodes)
        self._model.buffers = list(lite.model.buffers)
        self._graph.tensors = list(lite.subgraph.tensors)
        self._operators: list[Any] = list(lite.operators)
        self._added: dict[int, list[Any]] = {}
        self._codes: dict[int, int] = {}
        self._rounded: dict[tuple[int, float, int, int], tuple[int, int]] = {}

    def tensor(self, index: int) -> Any:
        """A tensor, not to be changed."""
        return self._graph.tensors[index]

    def operator(self, index: int) -> Any:
        """An operator of the file, whose inputs and outputs may be changed."""
        op = self._operators[index] = self.copied(index)
        return op

    def copied(self, index: int, instead: Mapping[int, int] = MappingProxyType({})) -> Any:
        """A copy of an operator that reads other tensors instead of some; it is in no file yet."""
        op = copy(self._operators[index])
        op.inputs = [instead.get(int(tensor), int(tensor)) for tensor in op.inputs]
        op.outputs = [int(tensor) for tensor in op.outputs]
        return op

    def place(self, op: Any, *, at: int) -> None:
        """Add an operator as it is."""
        self._added.setdefault(at, []).append(op)

    def add(self, code: int, inputs: Sequence[int], output: int, *, at: int) -> int:
        """Add a builtin operator; returns its output."""
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = self._code(code), list(inputs), [output]
        if code in OPTIONS:
            op.builtinOptionsType, options = OPTIONS[code]
            op.builtinOptions = options()
        self.place(op, at=at)
        return output

    def like(self, tensor: int, shape: Sequence[int] | None = None) -> int:
        """Add a tensor of the same type, of the same shape or another one, no constant."""
        index = self._append(self._graph.tensors[tensor], 0)
        if shape is not None:
            self._graph.tensors[index].shape, self._graph.tensors[index].shapeSignature = list(shape), None
        return index

    def constant(self, value: Array) -> int:
        """Add a constant."""
        return flatbuffer.add_constant(self._model, self._graph, self._free_name(), value)

    def constant_like(self, tensor: int, value: Array) -> int:
        """Add a constant of float32 of the same shape, with as many values."""
        return self._append(self._graph.tensors[tensor], flatbuffer.add_buffer(self._model, _float32_bytes(value)))

    def replace_constant(self, tensor: int, value: Array) -> None:
        """Give a constant of float32, whose buffer no other tensor has, other values."""
        number = self._graph.tensors[tensor].buffer
        self._model.buffers[number] = buffer = copy(self._model.buffers[number])
        buffer.data = _float32_bytes(value)

    def quantize_dequantize(self, tensor: int, scale: float, zero: int, *, at: int, bits: int = 8) -> int:
        """Add what rounds a tensor to INT8 and back, (clip(round(x / scale) + zero, -128, 127) - zero) * scale.

        With 16 bits to INT16.
        Returns the result; what was rounded so before that place already is not rounded again.
        """
        key = tensor, scale, zero, bits
        found, place = self._rounded.get(key, (tensor, at + 1))
        if place <= at:
            return found
        steps, real = self.like(tensor), self.like(tensor)
        hold_integers(self._graph.tensors[steps], scale=scale, zero=zero, bits=bits)
        self.add(schema.BuiltinOperator.QUANTIZE, [tensor], steps, at=at)
        self.add(schema.BuiltinOperator.DEQUANTIZE, [steps], real, at=at)
        self._rounded[key] = self._rounded[real, scale, zero, bits] = real, at
        return real

    def padded(self, tensor: int, zeros: Array) -> int:
        """Add what puts zeros around a tensor, so many before and behind along each axis, (axes, 2), int32."""
        shape = np.asarray(self._graph.tensors[tensor].shape) + zeros.sum(axis=1)
        result, counts = self.like(tensor, shape.tolist()), self.constant(zeros)
        return self.add(schema.BuiltinOperator.PAD, [tensor, counts], result, at=len(self._operators))

    def without_activation(self, index: int) -> int:
        """Take the activation out of an operator of the file, for one of its own; returns the tensor before that."""
        op = self._operators[index]
        (result,) = map(int, op.outputs)
        activation = ACTIVATIONS.get(getattr(op.builtinOptions, "fusedActivationFunction", -1))
        if activation is None:
            return result
        own, plain = self.operator(index), self.like(result)
        own.outputs, own.builtinOptions = [plain], copy(op.builtinOptions)
        own.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        self.add(activation, [plain], result, at=index + 1)
        return plain

    def write(self, outputs: Mapping[str, int] | None = None) -> bytes:
        """The bytes of the file, with these tensors as its outputs, by name, or with its own.

        Constants that nothing reads are left out.
        """
        originals = range(len(self._operators) + 1)
        self._graph.operators = [op for i in originals for op in (*self._added.get(i, ()), *self._operators[i : i + 1])]
        if outputs is not None:
            self._graph.outputs = list(outputs.values())
            flatbuffer.add_signature(self._model, self.lite.inputs, list(outputs))
        self._drop_unread_constants()
        return flatbuffer.write(self._model)

    def _append(self, tensor: Any, buffer: int) -> int:
        added = copy(tensor)
        added.name, added.buffer, added.quantization = self._free_name().encode(), buffer, None
        self._graph.tensors.append(added)
        return len(self._graph.tensors) - 1

    def _free_name(self) -> str:
        return f"added {len(self._graph.tensors)}"

    def _code(self, code: int) -> int:
        if code not in self._codes:
            self._codes[code] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(flatbuffer.operator_code(code))
        return self._codes[code]

    def _drop_unread_constants(self) -> None:
        read = {tensor for op in self._graph.operators for tensor in op.inputs} | {*map(int, self._graph.outputs)}
        for number, tensor in enumerate(self._graph.tensors):
            if number not in read and tensor.buffer:
                self._graph.tensors[number] = unread = copy(tensor)
                unread.buffer = 0
        used = {tensor.buffer for graph in self._model.subgraphs for tensor in graph.tensors}
        used |= {entry.buffer for entry in self._model.metadata or ()}
        for number in range(len(self._model.buffers)):
            if number not in used:
                self._model.buffers[number] = schema.BufferT()


def hold_integers(tensor: Any, *, scale: float, zero: int, bits: int = 8) -> None:
    """Let a tensor (TensorT) hold INT8 or INT16: real = (q - zero) * scale."""
    tensor.type = schema.TensorType.INT8 if bits == 8 else schema.TensorType.INT16
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]


def _float32_bytes(value: Array) -> Array:
    return np.ascontiguousarray(value, np.float32).reshape(-1).view(np.uint8)
