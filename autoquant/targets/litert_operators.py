"""What AI Edge Quantizer knows of operators: which can be INT8, and which keep the scale of their input."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache, lru_cache
from typing import Any

from ai_edge_litert.schema_py_generated import TensorType
from ai_edge_quantizer import algorithm_manager, default_policy, qtyping
from ai_edge_quantizer.algorithms.utils.common_utils import DRQ_OR_WEIGHT_ONLY_OPS, OpQuantConstraint
from ai_edge_quantizer.utils.constrained_ops_utils import get_constrained_op_list
from ai_edge_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_CODE_TO_NAME

from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph

INT8_ENDS = "int8"
"""The type of inputs and outputs, where it is not float32."""
SHAPE_READERS = frozenset({"RANK", "SHAPE"})
"""Operators that read of a tensor only what shape it has: they take INT8 and float alike."""
MODELS = 4
"""Models of which it is kept what was found out."""


def static_int8(*, channel_wise: bool) -> Any:
    """The configuration (OpQuantizationConfig) of an operator in INT8, with one weight scale a channel or in all."""
    granularity = qtyping.QuantGranularity
    return qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=True, granularity=granularity.CHANNELWISE if channel_wise else granularity.TENSORWISE
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )


def quantizer_name(model: Any, op: Any) -> Any | None:
    """What AI Edge Quantizer calls an operator (TFLOperationName), or None where it does not know it."""
    code = model.operatorCodes[op.opcodeIndex]
    return TFL_OP_CODE_TO_NAME.get(max(code.builtinCode, code.deprecatedBuiltinCode))


@lru_cache(MODELS)
def able(lite: LiteGraph) -> frozenset[int]:
    """Indices of the operators that can be INT8: AI Edge Quantizer can do them, and they have float data.

    An operator with a weight must be one of the layers, because only plans quantize weights.
    """
    layers = frozenset(lite.layers.values())
    return frozenset(
        index
        for index, op in enumerate(lite.subgraph.operators)
        if (index in layers or quantizer_name(lite.model, op) not in DRQ_OR_WEIGHT_ONLY_OPS)
        and _known(lite.model, op)
        and not all_data(lite).isdisjoint(map(int, (*op.inputs, *op.outputs)))
    )


@lru_cache(MODELS)
def keeping_scale(lite: LiteGraph) -> frozenset[int]:
    """Indices of the operators whose results in INT8 have scale and offset of their only data input."""
    names = _keeping_scale()
    return frozenset(
        index
        for index, op in enumerate(lite.subgraph.operators)
        if quantizer_name(lite.model, op) in names and len(data_of(lite, op.inputs)) == 1
    )


@lru_cache(MODELS)
def all_data(lite: LiteGraph) -> frozenset[int]:
    """Indices of the tensors that hold float32 and are no constant."""
    return frozenset(
        index
        for index, tensor in enumerate(lite.subgraph.tensors)
        if tensor.type == TensorType.FLOAT32 and flatbuffer.value_of(lite.model, tensor) is None
    )


def data_of(lite: LiteGraph, tensors: Iterable[int]) -> list[int]:
    """Those of the tensors that are data, each once, in their order."""
    known = all_data(lite)
    return list(dict.fromkeys(int(tensor) for tensor in tensors if int(tensor) in known))


def data_near(lite: LiteGraph, operators: Collection[int], io: str) -> list[int]:
    """Tensors that INT8 operators, and inputs and outputs if they are INT8, read or make; in order of index."""
    near = {int(t) for index in operators for op in [lite.subgraph.operators[index]] for t in (*op.inputs, *op.outputs)}
    if io == INT8_ENDS:
        near.update(map(int, (*lite.subgraph.inputs, *lite.subgraph.outputs)))
    return sorted(data_of(lite, near))


def _known(model: Any, op: Any) -> bool:
    name = quantizer_name(model, op)
    if name is None or default_policy.is_non_quantizable_composite_op(op):
        return False
    try:
        algorithm_manager.check_op_quantization_config(
            algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT, name, static_int8(channel_wise=True)
        )
    except ValueError:  # which is how it says that it cannot
        return False
    return True


@cache
def _keeping_scale() -> frozenset[Any]:
    return frozenset(get_constrained_op_list(OpQuantConstraint.SAME_AS_INPUT_SCALE))
