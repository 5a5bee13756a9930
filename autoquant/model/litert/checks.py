"""What a .tflite must be to be quantized: of parts that fit together, which LiteRT does not check, and in float."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

from autoquant.errors import ModelError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.functions import RUN, missing_subgraph
from autoquant.model.litert.kinds import HOLDS_SUBGRAPHS, KINDS

INTEGERS = frozenset({"INT2", "INT4", "INT8", "INT16", "INT32", "UINT4", "UINT8", "UINT16"})
BYTES = {code: dtype.itemsize for code, dtype in flatbuffer.DTYPES.items()} | {flatbuffer.schema.TensorType.BFLOAT16: 2}
"""Type of a tensor -> bytes of a value, of whole ones."""
GIVE_FLOAT = "give the float model: convert it without optimizations, or with weights in float16"


def check_sound(model: Any, *, where: str) -> None:
    """Raise ModelError where an index points nowhere, a tensor is used before it is made, or a value is not whole."""
    fault = next(_faults(model), None)
    if fault is not None:
        raise ModelError(where, f"is damaged: {fault}", hint="is the file whole? convert the model again")


def check_inputs(model: Any, names: Sequence[str], *, where: str) -> None:
    """Raise ModelError where an input of the first subgraph takes what NumPy does not have, such as text."""
    graph = model.subgraphs[0]
    for name, tensor in zip(names, (graph.tensors[index] for index in graph.inputs), strict=True):
        if tensor.type not in flatbuffer.DTYPES:
            what = f"its input '{name}' is of type {flatbuffer.type_name(tensor)}"
            raise ModelError(where, what, hint="only numbers and truth values can be fed")


def check_operators(model: Any, *, where: str) -> None:
    """Raise ModelError for operators that run subgraphs, other than loops and conditions, and for custom ones.

    Also for a layer without its options.
    """
    for graph, op in ((each, op) for each in model.subgraphs for op in each.operators):
        kind = flatbuffer.op_name(model, op)
        name = flatbuffer.tensor_name(graph.tensors[op.outputs[0]]) if len(op.outputs) else "?"
        if kind in HOLDS_SUBGRAPHS and kind not in RUN:
            hint = "export an inference model without it"
            raise ModelError(
                where, f"holds a part of its own in {kind} ('{name}'), which cannot be quantized", hint=hint
            )
        if kind.startswith("CUSTOM"):
            hint = "convert the model again with builtin operators only"
            raise ModelError(where, f"has the custom operator '{kind.removeprefix('CUSTOM ')}' ('{name}')", hint=hint)
        if kind in KINDS and op.builtinOptions is None:
            raise ModelError(where, f"is damaged: {kind} ('{name}') has no options", hint="convert the model again")


def check_float(model: Any, *, where: str) -> None:
    """Raise ModelError where a tensor is quantized."""
    for graph in model.subgraphs:
        _check_float(graph, where)


def _check_float(graph: Any, where: str) -> None:
    made = {int(index) for op in graph.operators for index in op.outputs} | {int(index) for index in graph.inputs}
    found: dict[str, str] = {}
    for index, tensor in enumerate(graph.tensors):
        type_name, name = flatbuffer.type_name(tensor), flatbuffer.tensor_name(tensor)
        if type_name in INTEGERS and has_scales(tensor.quantization):
            found.setdefault("activation" if index in made else "weight", f"'{name}' is {type_name}")
    if "activation" in found:
        raise ModelError(where, f"is quantized already: its tensor {found['activation']}", hint=GIVE_FLOAT)
    if "weight" in found:
        what = f"has quantized weights already (dynamic range): {found['weight']}"
        raise ModelError(where, what, hint=GIVE_FLOAT)


def has_scales(quantization: Any | None) -> bool:
    """Whether there are scales, those of blocks included, which the details hold."""
    if quantization is None:
        return False
    return quantization.details is not None or (quantization.scale is not None and len(quantization.scale) > 0)


def _faults(model: Any) -> Iterator[str]:
    if not model.subgraphs:
        yield "it holds no graph"
    for signature in model.signatureDefs or ():
        if not 0 <= signature.subgraphIndex < len(model.subgraphs) or signature.signatureKey is None:
            yield "a signature has no graph or no name"
        if any(entry.name is None for entry in (*(signature.inputs or ()), *(signature.outputs or ()))):
            yield "a signature has an input or output without a name"
    for graph in model.subgraphs:
        yield from _faults_of_tensors(model, graph)
        yield from _faults_of_operators(model, graph)
        if (missing := missing_subgraph(model, graph)) is not None:
            yield missing


def _faults_of_tensors(model: Any, graph: Any) -> Iterator[str]:
    for number, tensor in enumerate(graph.tensors or ()):
        if not 0 <= tensor.buffer < len(model.buffers):
            yield f"tensor {number} has no buffer"
        elif tensor.shape is not None and any(size < 0 for size in tensor.shape):
            yield f"tensor {number} has a negative size"
        elif not _whole(model, tensor):
            yield f"the value of tensor {number} has not as many bytes as its shape says"


def _whole(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    size = BYTES.get(tensor.type)
    if data is None or len(data) == 0 or size is None or tensor.sparsity is not None:
        return True
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    return bool(len(data) == prod(shape) * size)


def _faults_of_operators(model: Any, graph: Any) -> Iterator[str]:
    if graph.tensors is None or graph.inputs is None or graph.outputs is None or graph.operators is None:
        yield "a graph has no tensors, operators, inputs or outputs"
        return
    count = len(graph.tensors)
    known = {number for number, tensor in enumerate(graph.tensors) if _has_value(model, tensor)} | {-1, *graph.inputs}
    for number, op in enumerate(graph.operators):
        if not 0 <= op.opcodeIndex < len(model.operatorCodes) or op.inputs is None or op.outputs is None:
            yield f"operator {number} is of no kind, or has no inputs or outputs"
            return
        indices = [*op.outputs, *(() if op.intermediates is None else op.intermediates)]
        if not all(0 <= index < count for index in indices) or not known.issuperset(op.inputs):
            yield f"operator {number} reads a tensor that nothing made, or makes one that is not there"
        known.update(map(int, op.outputs))
    if not all(0 <= index < count and index in known for index in (*graph.inputs, *graph.outputs)):
        yield "an input or output of a graph is not there"


def _has_value(model: Any, tensor: Any) -> bool:
    """Whether a tensor is there before the first operator: a constant, of any size, or a variable."""
    if tensor.isVariable or not 0 <= tensor.buffer < len(model.buffers):
        return True
    buffer = model.buffers[tensor.buffer]
    empty = tensor.shape is not None and prod(map(int, tensor.shape)) == 0
    return empty or bool(buffer.offset) or (buffer.data is not None and len(buffer.data) > 0)
