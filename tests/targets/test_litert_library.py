"""The parts of LiteRT Quantizer that we use have the shape that we use: a new version that changes one fails here."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator, BuiltinOptions2, OperatorT, StableHLOCompositeOptionsT
from hypothesis import given
from hypothesis import strategies as st
from litert_quantizer import algorithm_manager, qtyping
from litert_quantizer.algorithms.uniform_quantize import mse, naive_min_max_quantize, octav
from litert_quantizer.algorithms.uniform_quantize.uniform_quantize_tensor import tensor_zp_scale_from_min_max
from litert_quantizer.algorithms.utils.common_utils import OpQuantConstraint
from litert_quantizer.default_policy import is_non_quantizable_composite_op
from litert_quantizer.params_generator import ParamsGenerator
from litert_quantizer.recipe_manager import RecipeManager
from litert_quantizer.transformation_instruction_generator import TransformationInstructionsGenerator
from litert_quantizer.transformation_performer import TransformationPerformer
from litert_quantizer.utils.constrained_ops_utils import get_constrained_op_list
from litert_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

from autoquant.quantization.affine import EPSILON, Affine
from autoquant.targets.litert_library import (
    ALGORITHM,
    MOST,
    _config,
    _params,
    _register,
    keeps_input_scale,
    min_max,
    quantizes_weight,
    supports,
)

FUNCTIONS: list[tuple[Callable[..., Any], str]] = [
    (algorithm_manager.check_op_quantization_config, "quantization_algorithm tfl_op_name op_quantization_config"),
    (get_constrained_op_list, "quant_constraint verbose"),
    (get_op_scope, "op subgraph_tensors max_length"),
    (is_non_quantizable_composite_op, "op"),
    (mse.get_tensor_quant_params, "op_info tensor_quant_config tensor_content tensor_qsv"),
    (naive_min_max_quantize.get_tensor_quant_params, "op_info tensor_quant_config tensor_content tensor_qsv"),
    (octav.get_tensor_quant_params, "op_info tensor_quant_config tensor_content tensor_qsv"),
    (ParamsGenerator, "float_tflite"),
    (
        ParamsGenerator.generate_quantization_parameters,
        "self model_recipe_manager model_qsvs enable_progress_bar",
    ),
    (RecipeManager.need_calibration, "self"),
    (RecipeManager.get_quantization_configs, "self target_op_name scope_name"),
    (
        algorithm_manager.register_quantized_op,
        "algorithm_key tfl_op_name init_qsv_func calibration_func materialize_func update_qsv_func",
    ),
    (TransformationInstructionsGenerator, "float_tflite"),
    (
        TransformationInstructionsGenerator.quant_params_to_transformation_insts,
        "self params flatbuffer_model enable_progress_bar",
    ),
    (TransformationPerformer, ""),
    (
        TransformationPerformer.transform_graph,
        "self transformation_instructions tflite_model tensor_processing_order enable_progress_bar",
    ),
]
FIELDS: list[tuple[type[Any], str]] = [
    (qtyping.OpInfo, "op op_name subgraph_op_index op_quant_config"),
    (
        qtyping.OpQuantizationConfig,
        "activation_tensor_config weight_tensor_config compute_precision explicit_dequantize skip_checks "
        "min_weight_elements",
    ),
    (qtyping.TensorQuantizationConfig, "num_bits symmetric granularity dtype algorithm_params"),
    (
        qtyping.UniformQuantParams,
        "num_bits quantized_dimension scale zero_point symmetric quantized_data block_size hadamard "
        "custom_algorithm_param signed",
    ),
]
MEMBERS: list[tuple[Any, str]] = [
    (algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT, "min_max_uniform_quantize"),
    (algorithm_manager.AlgorithmName.NO_QUANTIZE, "no_quantize"),
    (qtyping.ComputePrecision.INTEGER, "INTEGER"),
    (qtyping.QuantGranularity.CHANNELWISE, "CHANNELWISE"),
    (qtyping.QuantGranularity.TENSORWISE, "TENSORWISE"),
    (qtyping.TFLOperationName.FULLY_CONNECTED, "FULLY_CONNECTED"),
    (qtyping.TFLOperationName.INPUT, "INPUT"),
    (qtyping.TFLOperationName.OUTPUT, "OUTPUT"),
]
WITH_WEIGHT = "BATCH_MATMUL CONV_2D DEPTHWISE_CONV_2D EMBEDDING_LOOKUP FULLY_CONNECTED TRANSPOSE_CONV"
SAME_SCALE = (
    "AVERAGE_POOL_2D BROADCAST_TO GATHER GATHER_ND MAX_POOL_2D MIRROR_PAD PAD REDUCE_MIN RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR SLICE SPACE_TO_DEPTH SPLIT STRIDED_SLICE TRANSPOSE UNPACK"
)
OWN_SCALE = (
    "ADD CONCATENATION DIV DYNAMIC_UPDATE_SLICE EQUAL GELU HARD_SWISH LOGISTIC MAXIMUM MEAN MUL NOT_EQUAL PACK PADV2 "
    "RELU RSQRT SELECT SELECT_V2 SOFTMAX SQRT SQUARED_DIFFERENCE SUB SUM TANH"
)
IN_FLOAT = "CONV_3D EXP LSTM SPACE_TO_BATCH_ND STABLEHLO_COMPOSITE WHILE"


@pytest.mark.parametrize(("function", "parameters"), FUNCTIONS, ids=lambda value: getattr(value, "__qualname__", ""))
def test_functions_take_what_we_pass(function: Callable[..., Any], parameters: str) -> None:
    assert list(inspect.signature(function).parameters) == parameters.split()


@pytest.mark.parametrize(("kind", "fields"), FIELDS, ids=lambda value: getattr(value, "__name__", ""))
def test_values_have_the_fields_we_fill(kind: type[Any], fields: str) -> None:
    assert [field.name for field in dataclasses.fields(kind)] == fields.split()


@pytest.mark.parametrize(("member", "value"), MEMBERS, ids=str)
def test_members_have_their_values(member: Any, value: str) -> None:
    assert member.value == value


def test_our_algorithm_is_the_library_s_own() -> None:
    """For all operators that it makes INT8: what it registers for its own algorithm is what we register for ours."""
    _register()
    for name, materialize in algorithm_manager.MIN_MAX_OP_NAME_MATERIALIZE_FUNC_DICT.items():
        theirs, ours = (
            algorithm_manager.get_quantization_func(key, name, qtyping.QuantizeMode.MATERIALIZE)
            for key in (algorithm_manager.AlgorithmName.MIN_MAX_UNIFORM_QUANT, ALGORITHM)
        )
        assert theirs.func is ours.func is materialize
        assert theirs.args == (naive_min_max_quantize.get_tensor_quant_params,) and not theirs.keywords


def test_what_is_known_is_of_the_same_values_and_range_alone() -> None:
    config = _config(8, channel_wise=True).weight_tensor_config
    info = qtyping.OpInfo(OperatorT(), qtyping.TFLOperationName.FULLY_CONNECTED, 0, _config(8, channel_wise=True))
    weight, known = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3), {}  # type: ignore[var-annotated]

    def found(values: np.ndarray, scale: float, **also: Any) -> Any:
        ends = {"min": np.full((2, 1), -127.0 * scale), "max": np.full((2, 1), 127.0 * scale)}
        return _params(info, config, values, {**ends, **also})

    first = found(weight, 0.01, known=known)
    assert found(weight.reshape(2, 3), 0.01, known=known) is first
    for values, scale in ((weight, 0.02), (weight * 2, 0.01), (weight.copy(), 0.01), (weight[:, :2], 0.01)):
        again, plain = found(values, scale, known=known), found(values, scale)
        assert again is not first
        np.testing.assert_array_equal(again.quantized_data, plain.quantized_data)
        np.testing.assert_array_equal(again.scale, plain.scale)
    for number in range(1, 10):
        found(weight, number / 10.0, known=known)
        assert len(known) <= MOST


def test_the_constraint_we_ask_for_is_there() -> None:
    assert OpQuantConstraint.SAME_AS_INPUT_SCALE.name in OpQuantConstraint.__members__


def operator(name: str) -> tuple[Any, Any]:
    """A model and its only operator, of this kind."""
    code = SimpleNamespace(builtinCode=getattr(BuiltinOperator, name), deprecatedBuiltinCode=0)
    op = OperatorT()
    if name == "STABLEHLO_COMPOSITE":
        op.builtinOptions2Type = BuiltinOptions2.StableHLOCompositeOptions
        op.builtinOptions2 = StableHLOCompositeOptionsT()
        op.builtinOptions2.name = b"unknown"
    return SimpleNamespace(operatorCodes=[code]), op


def operators_that(holds: Callable[[Any, Any], bool]) -> set[str]:
    """The kinds of operators for which it holds."""
    names = [name for name in vars(BuiltinOperator) if not name.startswith("_") and name != "STABLEHLO_COMPOSITE"]
    return {name for name in names if holds(*operator(name))}


def test_operators_with_a_weight() -> None:
    assert operators_that(quantizes_weight) == set(WITH_WEIGHT.split())


def test_operators_that_keep_the_scale_of_their_input() -> None:
    assert operators_that(keeps_input_scale) == set(SAME_SCALE.split())


def test_operators_that_can_be_int8() -> None:
    known = {*WITH_WEIGHT.split(), *SAME_SCALE.split(), *OWN_SCALE.split()}
    assert operators_that(partial(supports, bits=8)) == known - {"EMBEDDING_LOOKUP"}


def test_operators_that_can_have_16_bits() -> None:
    known = {*WITH_WEIGHT.split(), *SAME_SCALE.split(), *OWN_SCALE.split()}
    narrow = {"EMBEDDING_LOOKUP", "HARD_SWISH", "SPACE_TO_DEPTH", "SQUARED_DIFFERENCE"}
    assert operators_that(partial(supports, bits=16)) == known - narrow


@pytest.mark.parametrize("name", IN_FLOAT.split())
def test_an_operator_that_cannot_be_int8_is_no_error(name: str) -> None:
    assert not supports(*operator(name), 8)


@given(st.floats(EPSILON, 1 / EPSILON, width=32), st.integers(-128, 127))
def test_the_library_computes_exactly_our_scale_and_offset(scale: float, offset: int) -> None:
    ends = min_max(Affine(scale, offset))
    granularity = qtyping.QuantGranularity.TENSORWISE
    zero, computed = tensor_zp_scale_from_min_max(ends["min"], ends["max"], 8, False, granularity)
    assert (float(computed), int(zero)) == (scale, offset)


@given(st.floats(EPSILON, 1 / EPSILON, width=32))
def test_the_library_computes_exactly_our_scale_of_a_weight(scale: float) -> None:
    ends = np.array(-127 * scale), np.array(127 * scale)
    zero, computed = tensor_zp_scale_from_min_max(*ends, 8, True, qtyping.QuantGranularity.CHANNELWISE)
    assert (float(np.float32(computed)), int(zero)) == (scale, 0)
