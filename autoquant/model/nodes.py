"""Nodes of a graph (NodeDef messages): how they are made and copied, and what their attributes say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from tensorflow.core.framework import attr_value_pb2, node_def_pb2, types_pb2
from tensorflow.python.framework import tensor_util

from autoquant.array import Array

NodeDef = node_def_pb2.NodeDef
AttrValue = attr_value_pb2.AttrValue
DataType = types_pb2.DataType
FLOAT, INT8, INT32, INT64 = types_pb2.DT_FLOAT, types_pb2.DT_INT8, types_pb2.DT_INT32, types_pb2.DT_INT64
RESOURCE = types_pb2.DT_RESOURCE
UINT8, UINT64, BOOL, STRING = types_pb2.DT_UINT8, types_pb2.DT_UINT64, types_pb2.DT_BOOL, types_pb2.DT_STRING
HALF, BFLOAT16 = types_pb2.DT_HALF, types_pb2.DT_BFLOAT16

REAL: Mapping[int, int] = MappingProxyType(
    {FLOAT: 4, types_pb2.DT_DOUBLE: 8, types_pb2.DT_HALF: 2, types_pb2.DT_BFLOAT16: 2}
)
"""Types of real numbers -> bytes of one."""


def make_node(name: str, op: str, inputs: Iterable[str] = (), **attrs: Any) -> Any:
    """A NodeDef; attributes are bool, int, float or bytes, or an AttrValue message for anything else."""
    node = NodeDef(name=name, op=op)
    node.input.extend(inputs)
    for key, value in attrs.items():
        if isinstance(value, bool):
            node.attr[key].b = value
        elif isinstance(value, int):
            node.attr[key].i = value
        elif isinstance(value, float):
            node.attr[key].f = value
        elif isinstance(value, bytes):
            node.attr[key].s = value
        else:
            node.attr[key].CopyFrom(value)
    return node


def make_const(name: str, value: Array) -> Any:
    """A Const node that holds `value`."""
    node = NodeDef(name=name, op="Const")
    tensor = tensor_util.make_tensor_proto(value)
    node.attr["dtype"].type = tensor.dtype
    node.attr["value"].tensor.CopyFrom(tensor)
    return node


LARGE = 4096
"""Bytes of a constant that is a weight, and no shape, axis or other setting."""


def is_large(node: Any) -> bool:
    """Whether a node is a constant of real numbers with many values, whose size is what its shape says."""
    if node.op != "Const" or node.attr["dtype"].type not in REAL:
        return False
    tensor = node.attr["value"].tensor
    size = math.prod(dim.size for dim in tensor.tensor_shape.dim) * REAL[node.attr["dtype"].type]
    return bool(len(tensor.tensor_content) == size >= LARGE)


def with_zeros(node: Any) -> Any:
    """A constant of the same type and shape that is zero everywhere, which takes no memory."""
    zeros = NodeDef(name=node.name, op=node.op)
    zeros.attr["dtype"].type = node.attr["dtype"].type
    value = zeros.attr["value"].tensor
    value.dtype = node.attr["value"].tensor.dtype
    value.tensor_shape.CopyFrom(node.attr["value"].tensor.tensor_shape)
    return zeros


def with_number(node: Any, number: float) -> Any:
    """A constant of float32 of the same shape that is this number everywhere, which takes no memory either."""
    repeated = with_zeros(node)
    repeated.attr["value"].tensor.float_val.append(number)
    return repeated


def changed_node(node: Any, *, name: str = "", op: str = "", inputs: Iterable[str] | None = None) -> Any:
    """A copy of a node with another name, operator or inputs, where given."""
    changed = NodeDef()
    changed.CopyFrom(node)
    changed.name, changed.op = name or node.name, op or node.op
    if inputs is not None:
        del changed.input[:]
        changed.input.extend(inputs)
    return changed


def with_inputs(node: Any, tensors: Mapping[int, str]) -> Any:
    """A copy of a node that reads other tensors as some of its inputs, given by their index."""
    return changed_node(node, inputs=[tensors.get(index, edge) for index, edge in enumerate(node.input)])


def attr_of(node: Any, key: str) -> Any:
    """An attribute, empty where the node does not state it; reading `node.attr[key]` would write it there."""
    return node.attr[key] if key in node.attr else AttrValue()


def const_shape(node: Any) -> tuple[int, ...]:
    """The shape of a Const node, without decoding its values."""
    return tuple(dim.size for dim in node.attr["value"].tensor.tensor_shape.dim)


def function_of(name: str) -> Any:
    """An attribute that names a function of the graph's library."""
    return AttrValue(func=attr_value_pb2.NameAttrList(name=name))


def calls_functions(node: Any) -> bool:
    """Whether an attribute names functions of the graph's library, as those of If and While do."""
    return any(value.WhichOneof("value") == "func" or value.list.func for value in node.attr.values())


def data_format(node: Any) -> bytes:
    """NHWC, or NCHW where channels come first; a node that does not say has them last."""
    return bytes(attr_of(node, "data_format").s) or b"NHWC"


def channels_first(node: Any) -> bool:
    """Whether the data of a node has its channels right behind the batch: NCHW, NCDHW."""
    return data_format(node).startswith(b"NC")


def sizes(node: Any, attribute: str) -> tuple[int, ...]:
    """A list of whole numbers of a convolution or pooling, for its spatial axes alone: strides, dilations, ksize."""
    values = tuple(attr_of(node, attribute).list.i)
    return values[2:] if channels_first(node) else values[1:-1]
