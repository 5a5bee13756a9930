"""An INT8 .tflite, fake-quantized, beside the float one that it was made from, in one file.

    float   x ---------------------------> operator --------------------------------> activation -> y
    INT8    x -> QUANTIZE -> DEQUANTIZE -> operator(its integers * scale) -> SUB --> activation -> QUANTIZE -> ...
                                                    MEAN of the difference ---^

Scales, zero points, weights and biases are those in the file. Operators that see nothing quantized are shared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized, fake_quantize
from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.builder import ACTIVATIONS, LiteBuilder
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.model import known_constant
from autoquant.quantization.affine import Affine
from autoquant.targets.litert_kernels import affine_of


@dataclass(frozen=True)
class LitePair:
    """See `FloatInt8Pair`. `saved` is the INT8 model (ModelT), whose tensors have the indices of the float one."""

    saved: Any
    lite: LiteGraph
    layers: Mapping[str, Layer]

    def input_axis(self, layer: Layer) -> int:
        """See `FloatInt8Pair`."""
        return KINDS[self.lite.operator(layer.name)[0]].input_axis

    def weight_errors(self) -> Iterator[tuple[Layer, Array]]:
        """See `FloatInt8Pair`."""
        for name, layer in self.layers.items():
            kind, index, _ = self.lite.operator(name)
            quantized, weight = self.fake_quantized(index).constants, known_constant(self.lite, layer.weight)
            yield layer, quantized[KINDS[kind].weight or 0].astype(np.float64) - weight

    def open(self) -> LiteRTRunner:
        """See `FloatInt8Pair`."""
        builder, names = LiteBuilder(self.lite), {self.lite.layers[name]: name for name in self.layers}
        means: dict[str, int] = {}
        now: dict[int, int] = {}  # a tensor of the float model -> what it is in the quantized one
        for index, op in enumerate(self.lite.operators):
            quantized, results = builder.copied(index, now), [int(tensor) for tensor in op.outputs]
            fake_quantize(builder, quantized, self.fake_quantized(index), at=index)
            rounded = {result: affine for result in results if (affine := self.affine(result)) is not None}
            if index in names:
                corrected = _correct(builder, index, quantized)
                means[names[index]], now[results[0]] = corrected.error, corrected.result
            elif rounded or quantized.inputs != [int(tensor) for tensor in op.inputs]:
                quantized.outputs = [builder.like(result) for result in results]
                builder.place(quantized, at=index)
                now |= dict(zip(results, quantized.outputs, strict=True))
            for result, affine in rounded.items():
                now[result] = builder.quantize_dequantize(
                    now[result], affine.scale, affine.offset, bits=affine.bits, at=index + 1
                )
        return LiteRTRunner(builder.write(means), self.lite.inputs, list(means), LiteRTEngine().threads, cut=False)

    def tensor(self, index: int, place: int) -> Any:
        """What the INT8 model has (TensorT) where an operator of the float model reads an input."""
        (result, *_) = self.lite.operators[index].outputs
        return self._tensors[self._makers[int(result)].inputs[place]]

    def affine(self, tensor: int) -> Affine | None:
        """Scale and offset of a tensor in the INT8 model; None where it is float there."""
        return affine_of(self._tensors[tensor])

    @property
    def _tensors(self) -> Any:
        return self.saved.subgraphs[0].tensors

    @cached_property
    def _makers(self) -> Mapping[int, Any]:
        return {int(tensor): op for op in self.saved.subgraphs[0].operators for tensor in op.outputs}

    def fake_quantized(self, index: int) -> FakeQuantized:
        """An operator of the float model as the INT8 model has it."""
        op = self.lite.operators[index]
        places = [number for number, tensor in enumerate(op.inputs if len(op.outputs) else ()) if tensor >= 0]
        there = {number: self.tensor(index, number) for number in places}
        constants = {n: value for n, one in there.items() if (value := _real_constant(self.saved, one)) is not None}
        data = {n: affine for n, one in there.items() if n not in constants and (affine := affine_of(one)) is not None}
        return FakeQuantized("", index, data, constants)


class Corrected(NamedTuple):
    """Tensors: the mean error of a layer, and its result without that."""

    error: int
    result: int


def _correct(builder: LiteBuilder, index: int, quantized: Any) -> Corrected:
    """Add the quantized form of a layer, and take its mean error off its result before the activation."""
    own = builder.operator(index)
    (result,) = own.outputs
    activation = ACTIVATIONS.get(own.builtinOptions.fusedActivationFunction)
    plain, there = result if activation is None else builder.like(result), builder.like(result)
    for op, output in ((own, plain), (quantized, there)):
        op.outputs, op.builtinOptions = [output], copy(op.builtinOptions)
        op.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
    builder.place(quantized, at=index)
    behind = index + 1
    if activation is not None:
        builder.add(activation, [plain], result, at=behind)
    *others, channels = map(int, builder.tensor(result).shape)
    axes, mean = (
        builder.constant(np.arange(len(others), dtype=np.int32)),
        builder.like(result, [1] * len(others) + [channels]),
    )
    difference = builder.add(schema.BuiltinOperator.SUB, [there, plain], builder.like(result), at=behind)
    error = builder.add(schema.BuiltinOperator.MEAN, [difference, axes], mean, at=behind)
    corrected = builder.add(schema.BuiltinOperator.SUB, [there, error], builder.like(result), at=behind)
    if activation is not None:
        corrected = builder.add(activation, [corrected], builder.like(result), at=behind)
    return Corrected(error, corrected)


def _real_constant(model: Any, tensor: Any) -> Array | None:
    """The real numbers, float32, that a constant of integers stands for; None of another tensor (TensorT)."""
    value, quantization = flatbuffer.value_of(model, tensor), tensor.quantization
    if value is None or quantization is None or quantization.scale is None or not len(quantization.scale):
        return None
    scales = np.asarray(quantization.scale, np.float64)
    zeros = np.resize(np.asarray(quantization.zeroPoint, np.float64), scales.shape)
    shape = flatbuffer.scale_shape(tensor, value.ndim)
    return np.asarray((value - zeros.reshape(shape)) * scales.reshape(shape), np.float32)
