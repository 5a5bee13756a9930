"""An INT8 .tflite beside the float one that it was made from, in one with float kernels.

    float   x ---------------------------> operator --------------------------------> activation -> y
    INT8    x -> QUANTIZE -> DEQUANTIZE -> operator(its integers * scale) -> SUB --> activation -> QUANTIZE -> ...
                                                    MEAN of the difference ---^

Scales, zero points, weights and biases are those in the file. Operators that see nothing quantized are shared.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.litert.operators import AddedOperators, hold_int8
from autoquant.model.model import Program
from autoquant.tuning.repairs.twins import shift_of

ACTIVATIONS: Mapping[int, int] = MappingProxyType(
    {
        schema.ActivationFunctionType.RELU: schema.BuiltinOperator.RELU,
        schema.ActivationFunctionType.RELU_N1_TO_1: schema.BuiltinOperator.RELU_N1_TO_1,
        schema.ActivationFunctionType.RELU6: schema.BuiltinOperator.RELU6,
        schema.ActivationFunctionType.TANH: schema.BuiltinOperator.TANH,
    }
)
"""An activation within another operator -> the operator that does the same."""


@dataclass(frozen=True)
class LiteTwins:
    """See `Twins`. `saved` is the INT8 model (ModelT)."""

    saved: Any
    lite: LiteGraph
    layers: Mapping[str, Layer]

    @classmethod
    def of(cls, path: Path, reference: Program, layers: Collection[Layer]) -> LiteTwins:
        """Read a saved .tflite."""
        assert isinstance(reference, LiteGraph)
        known = MappingProxyType({layer.name: layer for layer in layers})
        return cls(flatbuffer.read(path.read_bytes()), reference, known)

    def shifts(self, means: Mapping[str, Array]) -> Mapping[str, Array]:
        """See `Twins`."""
        graph = self.saved.subgraphs[0]
        makers = {int(tensor): op for op in graph.operators for tensor in op.outputs}
        found = {}
        for name, mean in means.items():
            layer, (kind, index, _) = self.layers[name], self.lite.operator(name)
            known = KINDS[kind]
            op = makers[int(self.lite.subgraph.operators[index].outputs[0])]
            quantized = _real(self.saved, graph.tensors[op.inputs[known.weight]])
            weight = self.lite.constant(layer.weight or "")
            assert quantized is not None and weight is not None, name
            error = quantized.astype(np.float64) - weight
            found[name] = shift_of(layer, error, mean, input_axis=known.input_axis)
        return found

    def open(self) -> LiteRTRunner:
        """See `Twins`."""
        joining = _Joining(self.lite, self.saved, {self.lite.layers[name]: name for name in self.layers})
        means = joining.join()
        names = list(means)
        return LiteRTRunner(joining.content(means), self.lite.inputs, names, LiteRTEngine().threads, cut=False)


class _Joining:
    """A copy of the float model to which the quantized operators are added; `layers` are names by operator."""

    def __init__(self, lite: LiteGraph, saved: Any, layers: Mapping[int, str]) -> None:
        self._inputs = lite.inputs
        self._layers = layers
        self._model = flatbuffer.read(lite.content)
        self._graph = self._model.subgraphs[0]
        self._new = AddedOperators(self._model)
        self._saved = saved
        self._there = saved.subgraphs[0].tensors
        self._makers = {int(tensor): op for op in saved.subgraphs[0].operators for tensor in op.outputs}
        self._operators: list[Any] = []
        self._now: dict[int, int] = {}  # a tensor of the float model -> what it is in the quantized one
        self._pairs: dict[tuple[int, float, int], int] = {}

    def join(self) -> Mapping[str, int]:
        """The tensors of the mean errors by layer."""
        means: dict[str, int] = {}
        for index, op in enumerate(self._graph.operators):
            results = [int(tensor) for tensor in op.outputs]
            same = self._makers[results[0]] if results else None
            inputs = [] if same is None else [self._input(same, n, int(t)) for n, t in enumerate(op.inputs)]
            twin = copy(op)
            twin.inputs, twin.outputs = inputs, list(results)
            quantized = [result for result in results if self._there[result].type == schema.TensorType.INT8]
            changed = same is not None and (inputs != [int(tensor) for tensor in op.inputs] or bool(quantized))
            if index in self._layers:
                means[self._layers[index]] = self._corrected(op, twin)
            else:
                self._operators.append(op)
                if changed:
                    twin.outputs = [self._like(result) for result in results]
                    self._operators.append(twin)
            if changed:
                self._now |= dict(zip(results, twin.outputs, strict=True))
            for result in quantized:
                self._now[result] = self._pair(self._now[result], self._there[result])
        return means

    def content(self, means: Mapping[str, int]) -> bytes:
        """The bytes of the file that gives these tensors."""
        self._graph.operators, self._graph.outputs = self._operators, list(means.values())
        flatbuffer.add_signature(self._model, self._inputs, list(means))
        return flatbuffer.write(self._model)

    def _corrected(self, op: Any, twin: Any) -> int:
        """Add a layer and its twin, whose mean error is taken off; gives the tensor of that."""
        (result,) = (int(tensor) for tensor in op.outputs)
        activation = op.builtinOptions.fusedActivationFunction
        plain = self._add_plain(op, self._like(result) if activation in ACTIVATIONS else result)
        there = self._add_plain(twin, self._like(result))
        if activation in ACTIVATIONS:
            self._add(ACTIVATIONS[activation], [plain], result)
        difference = self._add(schema.BuiltinOperator.SUB, [there, plain], self._like(result))
        rank = len(flatbuffer.shape_of(self._graph.tensors[result]))
        axes = self._constant(np.arange(rank - 1, dtype=np.int32))
        mean = self._like(result)
        shape = [1] * (rank - 1) + [int(self._graph.tensors[result].shape[-1])]
        self._graph.tensors[mean].shape, self._graph.tensors[mean].shapeSignature = shape, None
        self._add(schema.BuiltinOperator.MEAN, [difference, axes], mean)
        corrected = self._add(schema.BuiltinOperator.SUB, [there, mean], self._like(result))
        if activation in ACTIVATIONS:
            corrected = self._add(ACTIVATIONS[activation], [corrected], self._like(result))
        twin.outputs = [corrected]
        return mean

    def _add_plain(self, op: Any, output: int) -> int:
        """Add an operator without its activation; gives its result."""
        alone = copy(op)
        alone.outputs, alone.builtinOptions = [output], copy(op.builtinOptions)
        alone.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        self._operators.append(alone)
        return output

    def _input(self, same: Any, number: int, tensor: int) -> int:
        """What an input, a tensor of the float model, is to an operator of the quantized one (OperatorT)."""
        if tensor < 0:
            return tensor
        there = self._there[same.inputs[number]]
        if _scales(there) is not None and (value := _real(self._saved, there)) is not None:
            return self._constant(value)
        now = self._now.get(tensor, tensor)
        return self._pair(now, there) if there.type == schema.TensorType.INT8 else now

    def _pair(self, tensor: int, there: Any) -> int:
        """The tensor rounded to the steps of one of INT8, in real units."""
        scale, zero = float(there.quantization.scale[0]), int(there.quantization.zeroPoint[0])
        key = tensor, scale, zero
        if key not in self._pairs:
            steps = self._like(tensor)
            hold_int8(self._graph.tensors[steps], scale=scale, zero=zero)
            self._add(schema.BuiltinOperator.QUANTIZE, [tensor], steps)
            real = self._add(schema.BuiltinOperator.DEQUANTIZE, [steps], self._like(tensor))
            self._pairs[key] = real
            self._pairs[real, scale, zero] = real  # what is rounded stays as it is
        return self._pairs[key]

    def _add(self, code: int, inputs: list[int], output: int) -> int:
        self._operators.append(self._new.made(code, inputs, output))
        return output

    def _like(self, tensor: int) -> int:
        """A new tensor of the same shape, of no constant."""
        made = copy(self._graph.tensors[tensor])
        made.name, made.buffer, made.quantization = self._name(), 0, None
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def _constant(self, value: Array) -> int:
        return flatbuffer.add_constant(self._model, self._graph, self._name(), value)

    def _name(self) -> str:
        return f"twin {len(self._graph.tensors)}"


def _scales(tensor: Any) -> Array | None:
    found = None if tensor.quantization is None else tensor.quantization.scale
    return None if found is None or not len(found) else np.asarray(found, np.float64)


def _real(model: Any, tensor: Any) -> Array | None:
    """The real numbers, float32, that a constant of integers stands for; None where the tensor is not a constant."""
    scales, value = _scales(tensor), flatbuffer.value_of(model, tensor)
    if value is None or scales is None:
        return value
    zeros = np.resize(np.asarray(tensor.quantization.zeroPoint, np.float64), scales.shape)
    axis = tensor.quantization.quantizedDimension
    shape = [-1 if number == axis and len(scales) > 1 else 1 for number in range(value.ndim)]
    return np.asarray((value - zeros.reshape(shape)) * scales.reshape(shape), np.float32)
