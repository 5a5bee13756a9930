"""LiteRT Quantizer, the package `litert_quantizer`, as far as it is used: no other file knows its inside."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy as shallow_copy
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np
from litert_quantizer import algorithm_manager, default_policy, params_generator, qtyping
from litert_quantizer.algorithms.uniform_quantize import mse, naive_min_max_quantize, octav
from litert_quantizer.algorithms.utils.common_utils import DRQ_OR_WEIGHT_ONLY_OPS, OpQuantConstraint
from litert_quantizer.transformation_instruction_generator import TransformationInstructionsGenerator
from litert_quantizer.transformation_performer import TransformationPerformer
from litert_quantizer.utils.constrained_ops_utils import get_constrained_op_list
from litert_quantizer.utils.tfl_flatbuffer_utils import TFL_OP_CODE_TO_NAME, get_op_scope

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.model.litert.flatbuffer import schema
from autoquant.quantization.affine import QMAX, QMIN, Affine

ALGORITHM = "autoquant"
"""What the library knows our way to scale and offset by: its own, and what it found is known the next time."""
KNOWN = "known"
"""The key, in what the library is given as the range of a tensor, of what is known for this tensor."""
MOST = 4
"""Scales of a tensor that are known at once."""
Known = dict[str, dict[Any, tuple[Any, Any]]]
"""By name of a tensor what the library found for it, by all that it depends on, and the values that it was found of."""
ALGORITHMS: Mapping[str, Any] = MappingProxyType({"minmax": naive_min_max_quantize, "mse": mse, "octav": octav})
"""Name of a weight algorithm in a plan -> the library's module that computes it."""


def supports_int8(model: Any, op: Any) -> bool:
    """Whether the library can make an operator (schema.OperatorT) of a model (ModelT) INT8."""
    name = _name(model, op)
    if name is None or default_policy.is_non_quantizable_composite_op(op):
        return False
    try:
        algorithm_manager.check_op_quantization_config(
            algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT, name, _int8_config(channel_wise=True)
        )
    except ValueError:  # which is how it says that it cannot
        return False
    return True


def quantizes_weight(model: Any, op: Any) -> bool:
    """Whether the library quantizes a constant that the operator reads as a weight."""
    return _name(model, op) in DRQ_OR_WEIGHT_ONLY_OPS


def keeps_input_scale(model: Any, op: Any) -> bool:
    """Whether the operator's results in INT8 have scale and offset of its input."""
    return _name(model, op) in _scale_keepers()


def operator_weight_scales(model: Any, op: Any, weight: Array, algorithm: str, *, channel_wise: bool) -> Array:
    """Scales of an operator's weight, float32 in the library's shape; those of channels without values mean nothing."""
    return _weight_scales(_name(model, op), op, weight, algorithm, channel_wise=channel_wise)


def row_scales(rows: Array, algorithm: str) -> Array:
    """The scale of each row of a weight, (channels, values), by the same algorithms, (channels,) float32."""
    name = qtyping.TFLOperationName.FULLY_CONNECTED
    return _weight_scales(name, None, rows, algorithm, channel_wise=True).reshape(-1)


@dataclass(frozen=True, slots=True)
class Int8:
    """INT8 operators of a model, by index, with scales by name of the tensor.

    `operators` says of each whether its weight has one scale a channel; `ends` whether inputs and outputs are INT8.
    """

    operators: Mapping[int, bool]
    activations: Mapping[str, Affine]
    weights: Mapping[str, Array]
    ends: bool


def quantize_operators(model: Any, copy: Any, int8: Int8, known: Known) -> None:
    """Make operators of a model's first subgraph INT8, in a copy of the model (both ModelT), which is changed in place.

    `known` is what earlier calls for the same model found, constants in INT8 among it, and is added to. Raises
    TrialError where the library refuses.
    """
    _register()
    functions = copy.subgraphs[1:]
    model, copy.subgraphs = _alone(model), copy.subgraphs[:1]
    graph = copy.subgraphs[0]
    ranges = {name: min_max(affine) for name, affine in int8.activations.items()}
    ranges |= {name: {"min": -QMAX * scales, "max": QMAX * scales} for name, scales in int8.weights.items()}
    remembering = {name: {**ends, KNOWN: known.setdefault(name, {})} for name, ends in ranges.items()}
    try:
        params = params_generator.ParamsGenerator(model).generate_quantization_parameters(
            _Recipe(model, int8), remembering, enable_progress_bar=False
        )
        steps = TransformationInstructionsGenerator().quant_params_to_transformation_insts(params, copy, False)
        # What reads an output is operator -1 to it, and so its transformations change the last one. Let that be none.
        nothing = schema.OperatorT()
        nothing.inputs, nothing.outputs = [], []
        graph.operators.append(nothing)
        TransformationPerformer().transform_graph(steps, copy, enable_progress_bar=False)
        graph.operators.remove(nothing)
    except (RuntimeError, ValueError) as error:
        raise TrialError("LiteRT Quantizer", str(error), hint="leave what it names in float") from error
    copy.subgraphs += functions


def _alone(model: Any) -> Any:
    """A model without the subgraphs that its first one runs: the library would take their inputs for the model's."""
    alone = shallow_copy(model)
    alone.subgraphs = model.subgraphs[:1]
    return alone


def _name(model: Any, op: Any) -> Any | None:
    """The library's name of an operator (TFLOperationName), or None where it has none."""
    code = model.operatorCodes[op.opcodeIndex]
    return TFL_OP_CODE_TO_NAME.get(max(code.builtinCode, code.deprecatedBuiltinCode))


@cache
def _scale_keepers() -> frozenset[Any]:
    return frozenset(get_constrained_op_list(OpQuantConstraint.SAME_AS_INPUT_SCALE))


@cache
def _int8_config(*, channel_wise: bool) -> Any:
    """The configuration of an operator in INT8, with one weight scale a channel or in all."""
    granularity = qtyping.QuantGranularity
    return qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=8, symmetric=False),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=True, granularity=granularity.CHANNELWISE if channel_wise else granularity.TENSORWISE
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )


def _weight_scales(name: Any, op: Any, weight: Array, algorithm: str, *, channel_wise: bool) -> Array:
    config = _int8_config(channel_wise=channel_wise)
    compute = ALGORITHMS[algorithm].get_tensor_quant_params
    with np.errstate(divide="ignore", invalid="ignore"):  # channels of zeros
        params = compute(qtyping.OpInfo(op, name, 0, config), config.weight_tensor_config, weight, None)
    return np.asarray(params.scale, np.float32)


def min_max(affine: Affine) -> dict[str, Array]:
    """The real numbers of -128 and 127, float64: exact, so that the library computes the same affine again."""
    return {
        "min": np.array((QMIN - affine.offset) * affine.scale),
        "max": np.array((QMAX - affine.offset) * affine.scale),
    }


class _Recipe:
    """Says which operators are to be INT8, in the place of the library's RecipeManager: by name, not by expressions."""

    def __init__(self, model: Any, int8: Int8) -> None:
        graph = model.subgraphs[0]
        self._channel_wise = {
            get_op_scope(graph.operators[index], graph.tensors): channel_wise
            for index, channel_wise in int8.operators.items()
        }
        self._ends = int8.ends

    def need_calibration(self) -> bool:
        """INT8 needs ranges."""
        return True

    def get_quantization_configs(self, target_op_name: Any, scope_name: str) -> tuple[str, Any]:
        """Algorithm and configuration of the operator whose results have these names; others stay in float."""
        if target_op_name in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            chosen = True if self._ends else None
        else:
            chosen = self._channel_wise.get(scope_name)
        if chosen is None:
            return algorithm_manager.AlgorithmName.NO_QUANTIZE, qtyping.OpQuantizationConfig()
        return ALGORITHM, _int8_config(channel_wise=chosen)


@cache
def _register() -> None:
    """Let the library know our algorithm, for all operators that it can make INT8."""
    for name, materialize in algorithm_manager.MIN_MAX_OP_NAME_MATERIALIZE_FUNC_DICT.items():
        module, compute = naive_min_max_quantize, partial(materialize, _params)
        algorithm_manager.register_quantized_op(
            ALGORITHM, name, module.init_qsvs, module.min_max_calibrate, materialize_func=compute
        )


def _params(op_info: Any, tensor_quant_config: Any, tensor_content: Any = None, tensor_qsv: Any = None) -> Any:
    """Scale and offset of a tensor, and its values in INT8 where it is a constant, as the library computes them."""
    compute = naive_min_max_quantize.get_tensor_quant_params
    known = None if tensor_qsv is None else tensor_qsv.get(KNOWN)
    if known is None:
        return compute(op_info, tensor_quant_config, tensor_content, tensor_qsv)
    bounds = (np.asarray(tensor_qsv[end]) for end in ("min", "max"))  # the library may have changed them
    key = op_info.op_name, tensor_quant_config, *(bound.tobytes() for bound in bounds)
    content, params = known.get(key, (None, None))
    if params is None or not _same_memory(content, tensor_content):
        params = compute(op_info, tensor_quant_config, tensor_content, tensor_qsv)
        if len(known) >= MOST:
            known.clear()
        known[key] = tensor_content, params
    return params


def _same_memory(one: Array | None, other: Array | None) -> bool:
    """Whether both are the same constant, or none: memory of one that is held is nobody else's."""
    if one is None or other is None:
        return one is other
    return bool(one.__array_interface__["data"] == other.__array_interface__["data"] and one.shape == other.shape)
