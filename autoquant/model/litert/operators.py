"""Operators that are added to a .tflite while it is edited, and tensors that hold integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

from ai_edge_litert import schema_py_generated as schema

OPTIONS: Mapping[int, tuple[int, Callable[[], Any]]] = MappingProxyType(
    {
        schema.BuiltinOperator.MEAN: (
            schema.BuiltinOptions.ReducerOptions,
            partial(schema.ReducerOptionsT, keepDims=True),
        ),
        schema.BuiltinOperator.MUL: (schema.BuiltinOptions.MulOptions, schema.MulOptionsT),
        schema.BuiltinOperator.SUB: (schema.BuiltinOptions.SubOptions, schema.SubOptionsT),
    }
)
"""Operator -> the kind of its options, and how to make them, for those that must have any."""


class AddedOperators:
    """Makes operators for a model (ModelT), whose list of codes, which must be its own, grows with them."""

    def __init__(self, model: Any) -> None:
        self._codes_of_model = model.operatorCodes
        self._codes: dict[int, int] = {}

    def made(self, code: int, inputs: Sequence[int], output: int) -> Any:
        """An operator (OperatorT) of a builtin code, of the given tensors."""
        op = schema.OperatorT()
        op.opcodeIndex, op.inputs, op.outputs = self._code(code), list(inputs), [output]
        if code in OPTIONS:
            op.builtinOptionsType, options = OPTIONS[code]
            op.builtinOptions = options()
        return op

    def _code(self, code: int) -> int:
        """Index of an operator's code, added where this has not yet done so."""
        if code not in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode = entry.deprecatedBuiltinCode = code
            entry.version = 2 if code == schema.BuiltinOperator.DEQUANTIZE else 1  # 2 takes INT8
            self._codes[code] = len(self._codes_of_model)
            self._codes_of_model.append(entry)
        return self._codes[code]


def hold_int8(tensor: Any, *, scale: float, zero: int) -> None:
    """Let a tensor (TensorT) hold INT8: real = (q - zero) * scale."""
    tensor.type, tensor.quantization = schema.TensorType.INT8, schema.QuantizationParametersT()
    tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero]
