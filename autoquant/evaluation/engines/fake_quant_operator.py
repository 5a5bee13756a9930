"""Operators of a .tflite fake-quantized: kernels in float that compute what INT8 does, up to rounding in float32.

    INT8            x -> [MUL] -> QUANTIZE -> operator(integers) -> DEQUANTIZE
    fake-quantized  x -> [MUL] -> QUANTIZE -> DEQUANTIZE -> operator(its integers * scale, bias * scale)

Both compute sums of the same integers times the same scales; only where the scale comes in differs. (QUANTIZE of
XNNPACK rounds half to even, as AscendQuant does.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.flatbuffer import schema
from autoquant.quantization.affine import Affine


@dataclass(frozen=True)
class FakeQuantized:
    """An operator by its index, and what becomes of its inputs, by their numbers.

    `data` are rounded to INT8, or INT16, and back; before that their last axis is multiplied by `factors`, where there
    are any. `constants` are those of the integer operator, in real units, in the layout of the file; its last input may
    be missing.
    `added` is a vector that is added to its result. `layer` is what errors call it.
    """

    layer: str
    operator: int
    data: Mapping[int, Affine]
    constants: Mapping[int, Array]
    factors: Array | None = None
    added: Array | None = None


def fake_quantize(builder: LiteBuilder, op: Any, wanted: FakeQuantized, *, at: int) -> None:
    """Let an operator (OperatorT) that runs at a place of the file read its inputs as INT8 has them.

    Raises TrialError where its data have not as many channels as there are factors.
    """
    for number, affine in wanted.data.items():
        tensor = int(op.inputs[number])
        if wanted.factors is not None:
            tensor = _balanced(builder, tensor, wanted, at)
        op.inputs[number] = builder.quantize_dequantize(tensor, affine.scale, affine.offset, bits=affine.bits, at=at)
    for number, value in wanted.constants.items():
        _put_constant(builder, op, number, value)
    if wanted.added is not None:
        _add_behind(builder, op, wanted.added, at=at + 1)


def _put_constant(builder: LiteBuilder, op: Any, number: int, value: Array) -> None:
    if flatbuffer.input_of(op, number) is not None:
        op.inputs[number] = builder.constant_like(int(op.inputs[number]), value)
    else:
        op.inputs[number:] = [builder.constant(value)]


def _add_behind(builder: LiteBuilder, op: Any, value: Array, *, at: int) -> None:
    (result,) = op.outputs
    op.outputs = [builder.like(result)]
    builder.add(schema.BuiltinOperator.ADD, [*op.outputs, builder.constant(value)], result, at=at)


def _balanced(builder: LiteBuilder, tensor: int, wanted: FakeQuantized, at: int) -> int:
    assert wanted.factors is not None
    channels = flatbuffer.shape_of(builder.tensor(tensor))[-1:]
    if channels != wanted.factors.shape:
        what = (
            f"cannot be balanced on LiteRT, where its data has {channels} channels for {wanted.factors.shape} factors"
        )
        hint = "choose --engine tensorflow, or remove dmq_balancer_param"
        raise TrialError(wanted.layer, what, hint=hint)
    factors = builder.constant(wanted.factors)
    return builder.add(schema.BuiltinOperator.MUL, [tensor, factors], builder.like(tensor), at=at)
