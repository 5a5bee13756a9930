"""Graphs of half precision (float16, bfloat16) in float32, where batch norms fold and INT8 is chosen from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from tensorflow.core.framework import full_type_pb2
from tensorflow.python.framework import tensor_util

from autoquant.errors import ModelError
from autoquant.model.graph import FunctionDefLibrary, Graph
from autoquant.model.nodes import BFLOAT16, FLOAT, HALF, NodeDef

FLOAT32: Mapping[str, Mapping[int, int]] = MappingProxyType(
    {
        "tensorflow.DataType": {BFLOAT16: FLOAT, HALF: FLOAT},
        "tensorflow.FullTypeId": dict.fromkeys(
            (full_type_pb2.TFT_BFLOAT16, full_type_pb2.TFT_HALF), full_type_pb2.TFT_FLOAT
        ),
    }
)
"""Kind of number that says what type a tensor has -> what becomes of half precision."""
TENSOR = "tensorflow.TensorProto"
BITS = frozenset({"Bitcast", "DecodePaddedRaw", "DecodeRaw", "ParseTensor", "SerializeTensor"})
"""Operators that know how many bytes a value has."""


def in_float32(graph: Graph) -> Graph:
    """The graph with float32 for every tensor of half precision, inputs, outputs and functions included.

    Constants keep their values, casts between the types stay and do nothing. Raises ModelError where an operator reads
    or writes the bytes of half precision.
    """
    put = [_retyped(node) for node in graph.nodes.values() if _is_half(node)]
    if graph.library is None or not _is_half(graph.library):
        return graph.edit(put=put) if put else graph
    library = FunctionDefLibrary()
    library.CopyFrom(graph.library)
    for function in library.function:
        _check_bits(node for node in function.node_def if _is_half(node))
        _retype(function)
    edited = graph.edit(put=put)
    return Graph(edited.nodes, graph.inputs, graph.outputs, library)


def _retyped(node: Any) -> Any:
    _check_bits([node])
    changed = NodeDef()
    changed.CopyFrom(node)
    _retype(changed)
    return changed


def _check_bits(nodes: Iterable[Any]) -> None:
    for node in nodes:
        if node.op in BITS:
            what = f"{node.op} takes the bytes of half precision, which there are none of in float32"
            raise ModelError(node.name, what, hint="export the model in float32, or cut that off with --inputs")


def _is_half(message: Any) -> bool:
    """Whether a message says anywhere that a tensor has half precision."""
    if message.DESCRIPTOR.full_name == TENSOR:
        return message.dtype in (BFLOAT16, HALF)  # its values are not looked at
    for field, value in message.ListFields():
        if field.enum_type is not None:
            kinds = FLOAT32.get(field.enum_type.full_name, {})
            if any(number in kinds for number in (value if field.is_repeated else (value,))):
                return True
        elif any(map(_is_half, _parts(field, value))):
            return True
    return False


def _retype(message: Any) -> None:
    """Let a message, and all that it holds, say float32 instead of half precision."""
    if message.DESCRIPTOR.full_name == TENSOR:
        if message.dtype in (BFLOAT16, HALF):
            message.CopyFrom(tensor_util.make_tensor_proto(tensor_util.MakeNdarray(message).astype(np.float32)))
        return
    for field, value in message.ListFields():
        if field.enum_type is None:
            for part in _parts(field, value):
                _retype(part)
            continue
        kinds = FLOAT32.get(field.enum_type.full_name, {})
        if field.is_repeated:
            value[:] = [kinds.get(number, number) for number in value]
        else:
            setattr(message, field.name, kinds.get(value, value))


def _parts(field: Any, value: Any) -> Iterable[Any]:
    """The messages in a field."""
    if field.message_type is None:
        return ()
    if field.message_type.GetOptions().map_entry:
        return value.values() if field.message_type.fields_by_name["value"].message_type is not None else ()
    return value if field.is_repeated else (value,)
