"""Operators that LiteRT has integer kernels for, and LiteRT Quantizer leaves in float: made integers behind it.

    library   integers -> DEQUANTIZE -> operator -> QUANTIZE -> integers
    here      integers -------------> operator -------------> integers

A conversion stays where a neighbour has other bits, another scale than the kernel wants, or is float.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.model.litert import flatbuffer
from autoquant.model.litert.builder import hold_integers
from autoquant.model.litert.flatbuffer import schema
from autoquant.quantization.affine import Affine


@dataclass(frozen=True, slots=True)
class Kernel:
    """The bits of activations that LiteRT has kernels for; with `keeps_scale` results have the scale of the input."""

    bits: tuple[int, ...]
    keeps_scale: bool


BOTH, NARROW = (8, 16), (8,)
NEG = "NEG"
"""Its own kernel knows no offset and turns -128 into -128, so that it becomes a MUL by -1."""
KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        "ABS": Kernel(BOTH, keeps_scale=False),
        "BATCH_TO_SPACE_ND": Kernel(BOTH, keeps_scale=True),
        "DEPTH_TO_SPACE": Kernel(NARROW, keeps_scale=True),
        "ELU": Kernel(NARROW, keeps_scale=False),
        "EXP": Kernel(BOTH, keeps_scale=False),
        "LEAKY_RELU": Kernel(BOTH, keeps_scale=False),
        "LOG": Kernel(BOTH, keeps_scale=False),
        "MINIMUM": Kernel(BOTH, keeps_scale=True),
        NEG: Kernel(BOTH, keeps_scale=False),
        "REDUCE_MAX": Kernel(BOTH, keeps_scale=True),
        "RELU6": Kernel(BOTH, keeps_scale=False),
        "REVERSE_V2": Kernel(BOTH, keeps_scale=True),
        "SPACE_TO_BATCH_ND": Kernel(BOTH, keeps_scale=True),
        "SPLIT_V": Kernel(BOTH, keeps_scale=True),
        "TILE": Kernel(BOTH, keeps_scale=True),
    }
)
"""Operator -> its kernels, each tried with inputs and results of unlike scales (LiteRT 2.3)."""


@dataclass(frozen=True, slots=True)
class KernelOperator:
    """An operator (OperatorT) that is to run on an integer kernel, with the scales of the tensors it reads and makes.

    `inputs` and `outputs` are by place; places without data, such as axes, are not there.
    """

    op: Any
    inputs: Mapping[int, Affine]
    outputs: Mapping[int, Affine]


def use_kernels(model: Any, operators: Collection[KernelOperator]) -> None:
    """Let operators of a model (ModelT) compute in integers, in place; they are in the order in which they run."""
    editor = _Editor(model, {id(one.op) for one in operators})
    for one in operators:
        if flatbuffer.op_name(model, one.op) == NEG:
            editor.multiply(one.op, one.inputs[0].bits)
        for place, affine in one.inputs.items():
            one.op.inputs[place] = editor.integers(int(one.op.inputs[place]), affine, one.op)
        for place, affine in one.outputs.items():
            editor.hold(int(one.op.outputs[place]), affine, one.op)


@dataclass
class _Editor:
    """Edits the first subgraph of a model; `own` are the operators, by identity, that get integer kernels."""

    model: Any
    own: Collection[int]
    _made: dict[tuple[int, Affine], int] = field(default_factory=dict)

    @property
    def _graph(self) -> Any:
        return self.model.subgraphs[0]

    def multiply(self, op: Any, bits: int) -> None:
        """Let an operator of one input multiply it by -1."""
        op.opcodeIndex = self._code(schema.BuiltinOperator.MUL)
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        factor = flatbuffer.add_constant(
            self.model, self._graph, f"{NEG}_{len(self._graph.tensors)}", np.full(1, -1, _kind(bits))
        )
        hold_integers(self._graph.tensors[factor], scale=1.0, zero=0, bits=bits)
        op.inputs = [*op.inputs, factor]

    def integers(self, tensor: int, affine: Affine, reader: Any) -> int:
        """A tensor in integers of this scale, for an operator: one that is there, or converted in front of it."""
        value = flatbuffer.value_of(self.model, self._graph.tensors[tensor])
        if value is not None:
            return self._constant(tensor, value, affine)
        source = self._integer_source(tensor)
        if affine_of(self._graph.tensors[source]) == affine:
            return source
        if (source, affine) not in self._made:
            self._made[source, affine] = self._convert(source, affine, at=self._place(reader))
        return self._made[source, affine]

    def hold(self, tensor: int, affine: Affine, maker: Any) -> None:
        """Let a result be integers of this scale; what reads it in float reads it converted."""
        hold_integers(self._graph.tensors[tensor], scale=affine.scale, zero=affine.offset, bits=affine.bits)
        is_output, in_float = tensor in list(map(int, self._graph.outputs)), []
        for op in [op for op in self._graph.operators if tensor in list(map(int, op.inputs))]:
            if self._kind(op) == "QUANTIZE":
                (result,) = map(int, op.outputs)
                if affine_of(self._graph.tensors[result]) == affine:
                    self._replace(result, tensor)
            elif id(op) not in self.own:
                in_float.append(op)
        if in_float or is_output:
            real = self._convert(tensor, None, at=self._place(maker) + 1)
            for op in in_float:
                op.inputs = [real if int(index) == tensor else index for index in op.inputs]
            self._graph.outputs = [real if int(index) == tensor else index for index in self._graph.outputs]

    def _integer_source(self, tensor: int) -> int:
        """What a tensor was dequantized from, if it was; else itself."""
        makers = [op for op in self._graph.operators if tensor in list(map(int, op.outputs))]
        return int(makers[0].inputs[0]) if makers and self._kind(makers[0]) == "DEQUANTIZE" else tensor

    def _constant(self, tensor: int, value: Any, affine: Affine) -> int:
        steps = np.rint(value.astype(np.float64) / affine.scale) + affine.offset
        low, high = -(2 ** (affine.bits - 1)), 2 ** (affine.bits - 1) - 1
        made = self._like(tensor, affine)
        self._graph.tensors[made].buffer = flatbuffer.add_buffer(
            self.model, np.ravel(np.clip(steps, low, high).astype(_kind(affine.bits))).view(np.uint8)
        )
        return made

    def _convert(self, tensor: int, affine: Affine | None, *, at: int) -> int:
        """Add a QUANTIZE to a scale, or a DEQUANTIZE, at a place of the file; gives its result."""
        result = self._like(tensor, affine)
        kind = "DEQUANTIZE" if affine is None else "QUANTIZE"
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = self._code(getattr(schema.BuiltinOperator, kind)), [tensor], [result]
        self._graph.operators.insert(at, op)
        return result

    def _like(self, tensor: int, affine: Affine | None) -> int:
        """A new tensor of the shape of another: of integers, or of float."""
        made = copy(self._graph.tensors[tensor])
        made.buffer, made.type, made.quantization = 0, schema.TensorType.FLOAT32, None
        made.name = made.name + (b"_float32" if affine is None else b"_requantized")
        if affine is not None:
            hold_integers(made, scale=affine.scale, zero=affine.offset, bits=affine.bits)
        self._graph.tensors.append(made)
        return len(self._graph.tensors) - 1

    def _replace(self, tensor: int, other: int) -> None:
        """Let what reads one tensor, or is an output, be another one."""
        for op in self._graph.operators:
            op.inputs = [other if int(index) == tensor else index for index in op.inputs]
        self._graph.outputs = [other if int(index) == tensor else index for index in self._graph.outputs]

    def _place(self, op: Any) -> int:
        return next(number for number, one in enumerate(self._graph.operators) if one is op)

    def _kind(self, op: Any) -> str:
        return flatbuffer.op_name(self.model, op)

    def _code(self, kind: int) -> int:
        for number, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == kind:
                return number
        self.model.operatorCodes.append(flatbuffer.operator_code(kind))
        return len(self.model.operatorCodes) - 1


def _kind(bits: int) -> type[np.int8] | type[np.int16]:
    return np.int8 if bits == 8 else np.int16


def affine_of(tensor: Any) -> Affine | None:
    """Scale and offset of a tensor (TensorT) of INT8 or INT16; None of another one."""
    if tensor.type not in (schema.TensorType.INT8, schema.TensorType.INT16):
        return None
    bits = 8 * flatbuffer.DTYPES[tensor.type].itemsize
    return Affine(float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]), bits)
