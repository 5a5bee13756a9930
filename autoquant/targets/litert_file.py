"""Turns a float .tflite into one with INT8 operators, by LiteRT Quantizer; counts its Q/DQ operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import IN_FLOAT, TrialError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.kinds import Kind
from autoquant.quantization.affine import INT32, Affine
from autoquant.targets.litert_kernels import KERNELS, KernelOperator, use_kernels
from autoquant.targets.litert_library import Integers, Known, quantize_operators
from autoquant.targets.litert_operators import SHAPE_READERS


def prepare(model: Any) -> Any:
    """The model (ModelT), changed in place: the kinds of operators are where LiteRT Quantizer looks for them.

    Files of before 2020 have them in another place.
    """
    for code in model.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for buffer in model.buffers:
        if buffer.data is not None:
            buffer.data = np.frombuffer(buffer.data, np.uint8)  # other types are written value by value, in Python
    return model


def with_constants(model: Any, constants: Mapping[int, Array]) -> Any:
    """A prepared model with other constants, float32, by index of the tensor."""
    if not constants:
        return model
    result = _fresh(model)
    for tensor, value in constants.items():
        result.buffers[result.subgraphs[0].tensors[tensor].buffer].data = np.ravel(value).view(np.uint8)
    return result


def quantize(model: Any, integers: Integers, known: Known) -> Any:
    """A new model (ModelT) with operators in integers; the one given, which is prepared, stays as it is.

    `known` is as of `quantize_operators`. Tensors keep their indices, inputs and outputs their names too. Raises
    TrialError where LiteRT Quantizer refuses.
    """
    result = _fresh(model)
    operators = list(result.subgraphs[0].operators)
    own = {index for index in integers.operators if flatbuffer.op_name(model, operators[index]) in KERNELS}
    others = {index: one for index, one in integers.operators.items() if index not in own}
    quantize_operators(model, result, replace(integers, operators=others), known)
    use_kernels(result, [_kernel_operator(model, operators[index], index, integers) for index in sorted(own)])
    _keep_outputs(result, model.subgraphs[0].outputs)
    _ask_shapes_of_int8(result)
    flatbuffer.drop_unread(result.subgraphs[0], lambda op: len(op.outputs) > 0)
    return result


def _kernel_operator(model: Any, op: Any, index: int, integers: Integers) -> KernelOperator:
    """An operator (OperatorT) of a copy of the float model (ModelT), by its index there, with its scales."""
    graph, wide = model.subgraphs[0], integers.operators[index].bits == 16
    scales = integers.wide if wide else integers.activations

    def affines(tensors: Iterable[int]) -> dict[int, Affine | None]:
        real = {place: graph.tensors[tensor] for place, tensor in enumerate(tensors) if tensor >= 0}
        own = {place: one for place, one in real.items() if one.type == schema.TensorType.FLOAT32}
        return {place: scales.get(flatbuffer.tensor_name(one)) for place, one in own.items()}

    before = graph.operators[index]
    outputs = {place: affine for place, affine in affines(before.outputs).items() if affine is not None}
    inputs = {place: outputs[0] if affine is None else affine for place, affine in affines(before.inputs).items()}
    return KernelOperator(op, inputs, outputs)


def replace_weights(model: Any, layers: Mapping[str, tuple[Any, Kind]], weights: Mapping[str, Array]) -> None:
    """Give layers other integers for their weights, in place: int8, in the shape of the weight.

    `layers` gives the operator (OperatorT) of each, and its kind. Each has a buffer for its weight alone, see `tidy`.
    """
    for name, integers in weights.items():
        op, kind = layers[name]
        assert kind.weight is not None, name
        tensor = model.subgraphs[0].tensors[op.inputs[kind.weight]]
        assert tuple(tensor.shape) == integers.shape and integers.dtype == np.int8, name
        model.buffers[tensor.buffer].data = np.ravel(integers).view(np.uint8)


def add_to_biases(model: Any, layers: Mapping[str, tuple[Any, Kind]], corrections: Mapping[str, Array]) -> None:
    """Add to the biases of layers, INT32 or INT64, in place, what `corrections` say in real units, (channels,).

    `layers` gives the operator (OperatorT) of each, and its kind. Raises TrialError where one would exceed INT32.
    """
    graph = model.subgraphs[0]
    for name, correction in corrections.items():
        op, kind = layers[name]
        assert kind.bias is not None, name
        tensor = copy(graph.tensors[op.inputs[kind.bias]])
        steps = flatbuffer.value_of(model, tensor)
        assert steps is not None, name
        scales = np.asarray(tensor.quantization.scale, np.float64)
        corrected = steps + np.rint(correction / scales)
        if not (np.abs(corrected) <= INT32.max).all():  # NaN fails too
            what = "its corrected bias exceeds int32"
            raise TrialError(name, what, hint=IN_FLOAT)
        tensor.buffer = flatbuffer.add_buffer(model, corrected.astype(steps.dtype).view(np.uint8))
        graph.tensors.append(tensor)  # others may read the one that it was
        op.inputs[kind.bias] = len(graph.tensors) - 1


def fix_batch(model: Any) -> None:
    """Fix the batch where it is open, in place, to one sample, which is what converters state then."""
    for tensor in model.subgraphs[0].tensors:
        signature = tensor.shapeSignature
        if signature is not None and len(signature) and signature[0] < 0 and min(signature[1:], default=0) >= 0:
            tensor.shapeSignature = None


def count_qdq_ops(model: Any) -> int:
    """How many operators turn float, INT8 and INT16 into each other."""
    graph = model.subgraphs[0]
    conversions = [op for op in graph.operators if flatbuffer.op_name(model, op) in ("DEQUANTIZE", "QUANTIZE")]
    ends = [{graph.tensors[op.inputs[0]].type, graph.tensors[op.outputs[0]].type} for op in conversions]
    return sum(len(types) > 1 for types in ends)  # from INT8 to INT8 is no conversion


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
    """Give converted outputs the names of the tensors they convert, and their places in the signature."""
    graph = model.subgraphs[0]
    now = dict(zip(map(int, before), map(int, graph.outputs), strict=True))
    for signature in model.signatureDefs:
        for entry in signature.outputs:
            entry.tensorIndex = now[entry.tensorIndex]
    for was, output in ((graph.tensors[was], graph.tensors[index]) for was, index in now.items() if was != index):
        output.name = was.name
        was.name = was.name + (b"_int8" if was.type == schema.TensorType.INT8 else b"_float32")


def _ask_shapes_of_int8(model: Any) -> None:
    """Let operators that want a shape alone read the integer tensor itself, also that of an input in float."""
    graph = model.subgraphs[0]
    askers = [op for op in graph.operators if flatbuffer.op_name(model, op) in SHAPE_READERS]
    asked, inputs = {int(op.inputs[0]) for op in askers}, set(map(int, graph.inputs))
    sources: dict[int, int] = {}
    for op in list(graph.operators):
        kind = flatbuffer.op_name(model, op)
        if kind == "DEQUANTIZE":
            sources[int(op.outputs[0])] = int(op.inputs[0])
        elif kind == "QUANTIZE" and int(op.inputs[0]) in inputs & asked - sources.keys():
            sources[int(op.inputs[0])] = int(op.outputs[0])
            graph.operators.remove(op)
            graph.operators.insert(0, op)  # before all that may ask
    for op in askers:
        op.inputs = [sources.get(int(index), index) for index in op.inputs]
