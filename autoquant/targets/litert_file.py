"""A float .tflite becomes one with INT8 operators, by AI Edge Quantizer; and what the result says of itself."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert.schema_py_generated import OperatorT, TensorType
from ai_edge_quantizer import params_generator, qtyping, recipe_manager
from ai_edge_quantizer.transformation_instruction_generator import TransformationInstructionsGenerator
from ai_edge_quantizer.transformation_performer import TransformationPerformer
from ai_edge_quantizer.utils.tfl_flatbuffer_utils import get_op_scope

from autoquant.errors import TrialError
from autoquant.model.litert import flatbuffer
from autoquant.quantization.affine import Array
from autoquant.targets.litert_operators import INT8_ENDS, SHAPE_READERS, quantizer_name, static_int8

Limits = Mapping[str, Mapping[str, Array]]
"""Tensor -> the real numbers, 'min' and 'max', that become -128 and 127, of a weight -127 and 127."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall be INT8: operators by index, inputs and outputs; which weights have one scale in all; all limits."""

    int8: Collection[int]
    tensor_wise: Collection[int]
    io: str
    limits: Limits


def prepared(model: Any) -> Any:
    """The model (ModelT), changed in place: the kinds of operators are where AI Edge Quantizer looks for them.

    Files of before 2020 have them in another place.
    """
    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # other types are written value by value, in Python
    return model


def with_constants(model: Any, constants: Mapping[int, Array]) -> Any:
    """A model like a `prepared` one, with other constants, float32, by index of the tensor."""
    if not constants:
        return model
    result = _fresh(model)
    for tensor, value in constants.items():
        result.buffers[result.subgraphs[0].tensors[tensor].buffer].data = np.ravel(value).view(np.uint8)
    return result


def quantized(model: Any, wanted: Wanted) -> Any:
    """A new model (ModelT) with operators in INT8; the one given, which is `prepared`, stays as it is.

    Tensors keep their indices, inputs and outputs their names too. Raises TrialError where AI Edge Quantizer refuses.
    """
    result = _fresh(model)
    graph = result.subgraphs[0]
    limits = {name: dict(ends) for name, ends in wanted.limits.items()}  # it writes into them
    try:
        params = params_generator.ParamsGenerator(model).generate_quantization_parameters(
            _recipe(model, wanted), limits, enable_progress_bar=False
        )
        steps = TransformationInstructionsGenerator().quant_params_to_transformation_insts(params, result, False)
        # What reads an output is operator -1 to it, and so its transformations change the last one. Let that be none.
        nothing = OperatorT()
        nothing.inputs, nothing.outputs = [], []
        graph.operators.append(nothing)
        TransformationPerformer().transform_graph(steps, result, enable_progress_bar=False)
        graph.operators.remove(nothing)
    except (RuntimeError, ValueError) as error:
        raise TrialError("AI Edge Quantizer", str(error), hint="leave what it names in float") from error
    _keep_outputs(result, model.subgraphs[0].outputs)
    _ask_shapes_of_int8(result)
    _drop_unread(graph)
    return result


def boundaries_in(model: Any) -> int:
    """How many operators turn float into INT8, or INT8 into float."""
    graph = model.subgraphs[0]
    conversions = [op for op in graph.operators if flatbuffer.op_name(model, op) in ("DEQUANTIZE", "QUANTIZE")]
    ends = [{graph.tensors[op.inputs[0]].type, graph.tensors[op.outputs[0]].type} for op in conversions]
    return sum(TensorType.FLOAT32 in types for types in ends)  # from INT8 to INT8 is no boundary


def _recipe(model: Any, wanted: Wanted) -> Any:
    """Operators by the names of their results; what no entry names stays float."""
    graph = model.subgraphs[0]
    scopes: dict[tuple[Any, bool], list[str]] = {}
    for index in sorted(wanted.int8):
        op = graph.operators[index]
        key = quantizer_name(model, op), index not in wanted.tensor_wise
        scopes.setdefault(key, []).append(re.escape(get_op_scope(op, graph.tensors)))
    recipe = recipe_manager.RecipeManager()
    for (name, channel_wise), names in scopes.items():
        config = static_int8(channel_wise=channel_wise)
        recipe.add_quantization_config(f"^(?:{'|'.join(names)})$", name, config)
    if wanted.io == INT8_ENDS:
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            recipe.add_quantization_config(".*", end, static_int8(channel_wise=True))
    return recipe


def _fresh(model: Any) -> Any:
    """A copy in which everything that is changed can be; the bytes of constants are shared."""
    result = copy(model)
    result.operatorCodes = [copy(code) for code in model.operatorCodes]
    result.buffers = [copy(buffer) for buffer in model.buffers]
    result.signatureDefs = [copy(signature) for signature in model.signatureDefs]
    for signature in result.signatureDefs:
        signature.outputs = [copy(entry) for entry in signature.outputs]
    result.subgraphs = [copy(graph) for graph in model.subgraphs]
    for graph in result.subgraphs:
        graph.tensors = [copy(tensor) for tensor in graph.tensors]
        graph.inputs, graph.outputs = list(graph.inputs), list(graph.outputs)
        graph.operators = [copy(op) for op in graph.operators]
        for op in graph.operators:
            op.inputs, op.outputs = list(op.inputs), list(op.outputs)
    return result


def _keep_outputs(model: Any, before: Iterable[int]) -> None:
    """Let outputs that were converted have the name of what they were made from, and its place in the signature."""
    graph = model.subgraphs[0]
    now = dict(zip(map(int, before), map(int, graph.outputs), strict=True))
    for signature in model.signatureDefs:
        for entry in signature.outputs:
            entry.tensorIndex = now[entry.tensorIndex]
    for was, output in ((graph.tensors[was], graph.tensors[index]) for was, index in now.items() if was != index):
        output.name = was.name
        was.name = was.name + (b"_int8" if was.type == TensorType.INT8 else b"_float32")


def _ask_shapes_of_int8(model: Any) -> None:
    """Let operators that want a shape alone read the INT8 tensor itself."""
    graph = model.subgraphs[0]
    dequantized = [op for op in graph.operators if flatbuffer.op_name(model, op) == "DEQUANTIZE"]
    sources = {int(op.outputs[0]): op.inputs[0] for op in dequantized}
    for op in graph.operators:
        if flatbuffer.op_name(model, op) in SHAPE_READERS:
            op.inputs = [sources.get(int(index), index) for index in op.inputs]


def _drop_unread(graph: Any) -> None:
    """Remove operators whose results nobody reads."""
    while True:
        read = {int(index) for op in graph.operators for index in op.inputs} | {int(index) for index in graph.outputs}
        kept = [op for op in graph.operators if not len(op.outputs) or not read.isdisjoint(map(int, op.outputs))]
        if len(kept) == len(graph.operators):
            return
        graph.operators = kept
