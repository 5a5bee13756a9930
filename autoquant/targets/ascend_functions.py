"""AMCT's operators as a function library, so that a graph that carries it runs in stock TensorFlow.

A node whose operator is the name of a library function is a call to it. Inside a function a float attribute becomes a
tensor through an operator that has such an attribute: LeakyRelu(-1) with alpha gives -alpha. Semantics are those of
AMCT's TensorFlow kernels; ties round to even.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from tensorflow.core.framework import function_pb2, op_def_pb2, types_pb2
from tensorflow.core.framework.attr_value_pb2 import AttrValue

from autoquant.model.graph import make_const, make_node

FLOAT, INT8, INT32, UINT64 = types_pb2.DT_FLOAT, types_pb2.DT_INT8, types_pb2.DT_INT32, types_pb2.DT_UINT64


WINDOW = AttrValue(list=AttrValue.ListValue(i=[1, 1]))
"""The `ksize` of a layer that is no pooling: an area of 1."""
_KINDS = {"type": "type", "i": "int", "f": "float", "s": "string", "list": "list(int)"}


def type_attr(kind: int) -> Any:
    """An attribute that holds a data type."""
    return AttrValue(type=kind)


@cache
def library() -> Any:
    """The functions AscendQuant, AscendWeightQuant and AscendDequant."""
    return function_pb2.FunctionDefLibrary(function=[_quant(), _weight_quant(), _dequant()])


def _quant() -> Any:
    """Y = clip(round(x * scale) + offset, -128, 127) - offset; the attribute `scale` is 1 / scale_d."""
    nodes = [
        *_attribute("scale"),
        *_attribute("offset"),
        make_const("qmin", np.array(-128, np.float32)),
        make_const("qmax", np.array(127, np.float32)),
        _float("low", "Sub", "qmin:output:0", "offset:y:0"),
        _float("high", "Sub", "qmax:output:0", "offset:y:0"),
        _float("scaled", "Mul", "x", "scale:y:0"),
        _float("rounded", "Rint", "scaled:z:0"),
        _float("above", "Maximum", "rounded:y:0", "low:z:0"),
        _float("clipped", "Minimum", "above:z:0", "high:z:0"),
    ]
    attributes = {
        "T": type_attr(FLOAT),
        "quant_bits": AttrValue(i=8),
        "scale": AttrValue(f=1.0),
        "offset": AttrValue(f=0.0),
    }
    return _function("AscendQuant", {"x": FLOAT}, attributes, nodes, "clipped:z:0")


def _weight_quant() -> Any:
    """Y = float(x) - float(offset_w)."""
    nodes = [
        make_node("values", "Cast", ["x"], SrcT=type_attr(INT8), DstT=type_attr(FLOAT)),
        make_node("offsets", "Cast", ["offset_w"], SrcT=type_attr(INT8), DstT=type_attr(FLOAT)),
        _float("centered", "Sub", "values:y:0", "offsets:y:0"),
    ]
    return _function("AscendWeightQuant", {"x": INT8, "offset_w": INT8}, {"T": type_attr(FLOAT)}, nodes, "centered:z:0")


def _dequant() -> Any:
    """Y = x * scale, the scale being the float32 in the low 32 bits of deq_scale; no shift, no pooling area."""
    nodes = [
        make_node("parts", "Bitcast", ["deq_scale"], T=type_attr(UINT64), type=type_attr(FLOAT)),
        make_const("begin", np.array([0, 0], np.int32)),
        make_const("end", np.array([0, 1], np.int32)),
        make_const("strides", np.array([1, 1], np.int32)),
        make_node(
            "scale",
            "StridedSlice",
            ["parts:output:0", "begin:output:0", "end:output:0", "strides:output:0"],
            T=type_attr(FLOAT),
            Index=type_attr(INT32),
            begin_mask=0,
            end_mask=0,
            ellipsis_mask=0b01,  # parts[..., 0]
            new_axis_mask=0,
            shrink_axis_mask=0b10,
        ),
        _float("real", "Mul", "x", "scale:output:0"),
    ]
    attributes = {"T": type_attr(FLOAT), "ksize": WINDOW, "data_format": AttrValue(s=b"NHWC")}
    return _function("AscendDequant", {"x": FLOAT, "deq_scale": UINT64}, attributes, nodes, "real:z:0")


def _attribute(name: str) -> list[Any]:
    """Nodes that turn a float attribute of the call into the scalar `<name>:y:0`."""
    negative = make_node(f"negative_{name}", "LeakyRelu", [f"minus_one_{name}:output:0"], T=type_attr(FLOAT))
    negative.attr["alpha"].placeholder = name
    return [
        make_const(f"minus_one_{name}", np.array(-1, np.float32)),
        negative,
        _float(name, "Neg", f"negative_{name}:activations:0"),
    ]


def _float(name: str, op: str, *inputs: str) -> Any:
    return make_node(name, op, inputs, T=type_attr(FLOAT))


def _function(name: str, inputs: dict[str, int], attributes: dict[str, Any], nodes: list[Any], result: str) -> Any:
    """A function; `attributes` gives each attribute of its calls an example, from which its kind is read."""
    signature = op_def_pb2.OpDef(name=name)
    for argument, kind in inputs.items():
        signature.input_arg.add(name=argument, type=kind)
    signature.output_arg.add(name="y", type=FLOAT)
    for attribute, example in attributes.items():
        signature.attr.add(name=attribute, type=_KINDS[example.WhichOneof("value")])
    # Of the function itself, TensorFlow's MLIR bridge instantiates it with these, and complains where one is missing.
    return function_pb2.FunctionDef(signature=signature, node_def=nodes, ret={"y": result}, attr=attributes)
