"""LiteRT Quantizer, the package `litert_quantizer`, as far as it is used: no other file knows its inside."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy as shallow_copy
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import Any, NamedTuple

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
from autoquant.quantization.affine import QMAX, Affine

ALGORITHM = "autoquant"
"""What the library knows our way to scale and offset by: its own, and what it found is known the next time."""
KNOWN = "known"
"""The key, in what the library is given as the range of a tensor, of what is known for this tensor."""
WIDE = "wide"
"""The key of the range that INT16 has of a tensor."""
MOST = 4
"""Scales of a tensor that are known at once."""
Known = dict[str, dict[Any, tuple[Any, Any]]]
"""By name of a tensor what the library found for it, by all that it depends on, and the values that it was found of."""
ALGORITHMS: Mapping[str, Any] = MappingProxyType({"minmax": naive_min_max_quantize, "mse": mse, "octav": octav})
"""Name of a weight algorithm in a plan -> the library's module that computes it."""


def supports(model: Any, op: Any, bits: int) -> bool:
    """Whether the library can give an operator (schema.OperatorT) of a model (ModelT) activations of 8 or 16 bits."""
    name = _name(model, op)
    if name is None or default_policy.is_non_quantizable_composite_op(op):
        return False
    try:
        algorithm_manager.check_op_quantization_config(
            algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT, name, _config(bits, channel_wise=True)
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


class IntegerOperator(NamedTuple):
    """The bits of an operator's activations, and whether its weight, of 8 bits, has one scale a channel."""

    bits: int
    channel_wise: bool = True


@dataclass(frozen=True, slots=True)
class Integers:
    """Integer operators of a model, by index, with scales by name of the tensor.

    `activations` are those of INT8, `wide` those of INT16, which have no offset; a tensor that operators of both kinds
    read or make is in both. `ends` says whether inputs and outputs are INT8.
    """

    operators: Mapping[int, IntegerOperator]
    activations: Mapping[str, Affine]
    wide: Mapping[str, Affine]
    weights: Mapping[str, Array]
    ends: bool


def quantize_operators(model: Any, copy: Any, integers: Integers, known: Known) -> None:
    """Let operators of a model's first subgraph compute in integers, in a copy of the model (both ModelT), in place.

    `known` is what earlier calls for the same model found, constants in integers among it, and is added to. Raises
    TrialError where the library refuses.
    """
    _register()
    functions = copy.subgraphs[1:]
    model, copy.subgraphs = _alone(model), copy.subgraphs[:1]
    graph = copy.subgraphs[0]
    ranges: dict[str, dict[str, Any]] = {name: min_max(affine) for name, affine in integers.activations.items()}
    ranges |= {name: {"min": -QMAX * scales, "max": QMAX * scales} for name, scales in integers.weights.items()}
    for name, affine in integers.wide.items():
        ranges.setdefault(name, {})[WIDE] = min_max(affine)
    remembering = {name: {**ends, KNOWN: known.setdefault(name, {})} for name, ends in ranges.items()}
    try:
        params = params_generator.ParamsGenerator(model).generate_quantization_parameters(
            _Recipe(model, integers), remembering, enable_progress_bar=False
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
def _config(bits: int, *, channel_wise: bool) -> Any:
    """The configuration of an operator with activations of so many bits, and one weight scale a channel or in all."""
    granularity = qtyping.QuantGranularity
    return qtyping.OpQuantizationConfig(
        activation_tensor_config=qtyping.TensorQuantizationConfig(num_bits=bits, symmetric=bits != 8),
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=8, symmetric=True, granularity=granularity.CHANNELWISE if channel_wise else granularity.TENSORWISE
        ),
        compute_precision=qtyping.ComputePrecision.INTEGER,
    )


def _weight_scales(name: Any, op: Any, weight: Array, algorithm: str, *, channel_wise: bool) -> Array:
    config = _config(8, channel_wise=channel_wise)
    compute = ALGORITHMS[algorithm].get_tensor_quant_params
    with np.errstate(divide="ignore", invalid="ignore"):  # channels of zeros
        params = compute(qtyping.OpInfo(op, name, 0, config), config.weight_tensor_config, weight, None)
    return np.asarray(params.scale, np.float32)


def min_max(affine: Affine) -> dict[str, Array]:
    """The real numbers of -128 and 127, float64: exact, so that the library computes the same affine again.

    Of INT16 those of -32767 and 32767.
    """
    low = affine.low if affine.bits == 8 else -affine.high
    return {"min": np.array(low), "max": np.array(affine.high)}


class _Recipe:
    """Says which operators compute in integers, in place of the library's RecipeManager: by name, not by patterns."""

    def __init__(self, model: Any, integers: Integers) -> None:
        graph = model.subgraphs[0]
        self._operators = {
            get_op_scope(graph.operators[index], graph.tensors): own for index, own in integers.operators.items()
        }
        self._ends = IntegerOperator(8) if integers.ends else None

    def need_calibration(self) -> bool:
        """Integers need ranges."""
        return True

    def get_quantization_configs(self, target_op_name: Any, scope_name: str) -> tuple[str, Any]:
        """Algorithm and configuration of the operator whose results have these names; others stay in float."""
        if target_op_name in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            chosen = self._ends
        else:
            chosen = self._operators.get(scope_name)
        if chosen is None:
            return algorithm_manager.AlgorithmName.NO_QUANTIZE, qtyping.OpQuantizationConfig()
        return ALGORITHM, _config(chosen.bits, channel_wise=chosen.channel_wise)


@cache
def _register() -> None:
    """Let the library know our algorithm, for all operators that it can make INT8."""
    for name, materialize in algorithm_manager.MIN_MAX_OP_NAME_MATERIALIZE_FUNC_DICT.items():
        module, compute = naive_min_max_quantize, partial(materialize, _params)
        algorithm_manager.register_quantized_op(
            ALGORITHM, name, module.init_qsvs, module.min_max_calibrate, materialize_func=compute
        )


def _params(op_info: Any, tensor_quant_config: Any, tensor_content: Any = None, tensor_qsv: Any = None) -> Any:
    """Scale and offset of a tensor, and its integers where it is a constant, as the library computes them."""
    compute = naive_min_max_quantize.get_tensor_quant_params
    if tensor_qsv is not None and tensor_quant_config.num_bits == 16:
        tensor_qsv = {**tensor_qsv, **tensor_qsv.get(WIDE, {})}
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
