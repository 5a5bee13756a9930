"""AMCT's operators as a function library, so that a graph that carries it runs in stock TensorFlow.

A node whose operator is the name of a library function is a call to it. Semantics are those of AMCT's TensorFlow
kernels, in float32; ties round to even.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from tensorflow.core.framework import function_pb2, op_def_pb2

from autoquant.model.graph import Graph
from autoquant.model.nodes import FLOAT, INT8, INT32, UINT8, UINT64, AttrValue, attr_of, make_const, make_node
from autoquant.targets.attributes import (
    area_attribute,
    cast,
    element,
    float_attribute,
    in_float,
    is_text,
    size_attribute,
    type_attr,
)

NAMES = ("AscendAntiQuant", "AscendDequant", "AscendQuant", "AscendWeightQuant")
"""The operators of a quantized graph."""
_KINDS = {"type": "type", "i": "int", "f": "float", "s": "string", "list": "list(int)"}


def functions_for(graph: Graph) -> Any:
    """The library that runs a quantized graph.

    Its AscendDequant is x * scale where that is all there is to do: by the whole formula a MobileNet takes 1.7 times as
    long.
    """
    dequants = [node for node in graph.nodes.values() if node.op == "AscendDequant"]
    return library(complete=any(_is_more_than_a_scale(graph, node) for node in dequants))


def _is_more_than_a_scale(graph: Graph, dequant: Any) -> bool:
    deq_scale = graph.constant(dequant.input[1])
    shifted = deq_scale is None or bool((deq_scale >> np.uint64(32)).any())
    return shifted or attr_of(dequant, "data_format").s == b"NCHW"


@cache
def library(*, complete: bool = True) -> Any:
    """The four functions; without `complete` AscendDequant knows no shift and has channels last."""
    dequant = _dequant() if complete else _plain_dequant()
    return function_pb2.FunctionDefLibrary(function=[_anti_quant(), dequant, _quant(), _weight_quant()])


def _quant() -> Any:
    """Y = clip(round(x * scale) + offset, -2^(b-1), 2^(b-1) - 1) - offset; the attribute `scale` is 1 / scale_d."""
    nodes = [
        *float_attribute("scale"),
        *float_attribute("offset"),
        *size_attribute("quant_bits"),
        make_const("one", np.array(1, np.float32)),
        make_const("two", np.array(2, np.float32)),
        in_float("value_bits", "Sub", "quant_bits:y:0", "one:output:0"),
        in_float("half", "Pow", "two:output:0", "value_bits:z:0"),
        in_float("qmin", "Neg", "half:z:0"),
        in_float("qmax", "Sub", "half:z:0", "one:output:0"),
        in_float("low", "Sub", "qmin:y:0", "offset:y:0"),
        in_float("high", "Sub", "qmax:z:0", "offset:y:0"),
        in_float("scaled", "Mul", "x", "scale:y:0"),
        in_float("rounded", "Rint", "scaled:z:0"),
        in_float("above", "Maximum", "rounded:y:0", "low:z:0"),
        in_float("clipped", "Minimum", "above:z:0", "high:z:0"),
    ]
    attributes = {"quant_bits": AttrValue(i=8), "scale": AttrValue(f=1.0), "offset": AttrValue(f=0.0)}
    return _function("AscendQuant", {"x": FLOAT}, attributes, nodes, "clipped:z:0")


def _anti_quant() -> Any:
    """Y = x * scale; AscendQuant has taken the offset away already."""
    nodes = [*float_attribute("scale"), in_float("real", "Mul", "x", "scale:y:0")]
    attributes = {"scale": AttrValue(f=1.0), "offset": AttrValue(f=0.0)}
    return _function("AscendAntiQuant", {"x": FLOAT}, attributes, nodes, "real:z:0")


def _weight_quant() -> Any:
    """Y = float(x) - float(offset_w)."""
    nodes = [
        cast("values", "x", INT8, FLOAT),
        cast("offsets", "offset_w", INT8, FLOAT),
        in_float("centered", "Sub", "values:y:0", "offsets:y:0"),
    ]
    return _function("AscendWeightQuant", {"x": INT8, "offset_w": INT8}, {}, nodes, "centered:z:0")


def _plain_dequant() -> Any:
    """Y = x * scale, which is what remains of AscendDequant where no shift is: the area cancels."""
    nodes = [*_byte_of_scale("scale", UINT64, FLOAT, 0), in_float("real", "Mul", "x", "scale:output:0")]
    return _dequant_function(nodes)


def _dequant() -> Any:
    """Y = v * scale * 2^N / a, where v = x * a; with N > 0 v is first clip(floor(v / 2^N), -2^15, 2^15 - 1).

    `a` is the area of ksize; scale and N of a channel, or of all, are bits 31:0 and 39:32 of deq_scale.
    """
    nodes = [
        *area_attribute("ksize"),
        *_channel_shape(),
        *_byte_of_scale("scales", UINT64, FLOAT, 0),
        *_byte_of_scale("bytes", UINT64, UINT8, 4),
        cast("shifts", "bytes:output:0", UINT8, FLOAT),
        _reshaped("scale", "scales:output:0"),
        _reshaped("shift", "shifts:y:0"),
        make_const("zero", np.array(0, np.float32)),
        make_const("two", np.array(2, np.float32)),
        make_const("low", np.array(-(2**15), np.float32)),
        make_const("high", np.array(2**15 - 1, np.float32)),
        in_float("power", "Pow", "two:output:0", "shift:output:0"),
        in_float("sum", "Mul", "x", "ksize:y:0"),
        in_float("quotient", "RealDiv", "sum:z:0", "power:z:0"),
        in_float("floor", "Floor", "quotient:z:0"),
        in_float("above", "Maximum", "floor:y:0", "low:output:0"),
        in_float("clipped", "Minimum", "above:z:0", "high:output:0"),
        in_float("shifted", "Greater", "shift:output:0", "zero:output:0"),
        in_float("value", "SelectV2", "shifted:z:0", "clipped:z:0", "sum:z:0"),
        in_float("step", "Mul", "scale:output:0", "power:z:0"),
        in_float("mean_step", "RealDiv", "step:z:0", "ksize:y:0"),
        in_float("real", "Mul", "value:output:0", "mean_step:z:0"),
    ]
    return _dequant_function(nodes)


def _dequant_function(nodes: list[Any]) -> Any:
    attributes = {"ksize": AttrValue(list=AttrValue.ListValue(i=[1, 1])), "data_format": AttrValue(s=b"NHWC")}
    return _function("AscendDequant", {"x": FLOAT, "deq_scale": UINT64}, attributes, nodes, "real:z:0")


def _byte_of_scale(name: str, kind: int, to: int, index: int) -> list[Any]:
    """Nodes for `<name>:output:0`: deq_scale cut into numbers of another type, of which it takes one, lowest first."""
    parts = make_node(f"parts_{name}", "Bitcast", ["deq_scale"], T=type_attr(kind), type=type_attr(to))
    return [
        parts,
        make_const(f"index_{name}", np.array(index, np.int32)),
        make_const(f"last_{name}", np.array(-1, np.int32)),
        element(name, f"parts_{name}:output:0", f"index_{name}:output:0", to, axis=f"last_{name}"),
    ]


def _channel_shape() -> list[Any]:
    """Nodes for `shape:output:0`, that of a vector over the channels of x: [-1], with NCHW a 1 more for each size."""
    return [
        *is_text("channels_first", "data_format", b"NCHW"),
        make_node("rank", "Rank", ["x"], T=type_attr(FLOAT)),
        make_const("others", np.array([2], np.int32)),
        make_node("sizes", "Sub", ["rank:output:0", "others:output:0"], T=type_attr(INT32)),
        make_node("behind", "Mul", ["sizes:z:0", "channels_first:y:0"], T=type_attr(INT32)),
        make_const("once", np.array(1, np.int32)),
        make_node("ones", "Fill", ["behind:z:0", "once:output:0"], T=type_attr(INT32), index_type=type_attr(INT32)),
        make_const("channels", np.array([-1], np.int32)),
        make_const("join", np.array(0, np.int32)),
        make_node(
            "shape",
            "ConcatV2",
            ["channels:output:0", "ones:output:0", "join:output:0"],
            N=2,
            T=type_attr(INT32),
            Tidx=type_attr(INT32),
        ),
    ]


def _reshaped(name: str, source: str) -> Any:
    return make_node(name, "Reshape", [source, "shape:output:0"], T=type_attr(FLOAT), Tshape=type_attr(INT32))


def _function(name: str, inputs: Mapping[str, int], attributes: Mapping[str, Any], nodes: list[Any], y: str) -> Any:
    """A function; `attributes` gives each attribute of its calls an example, from which its kind is read."""
    examples = {"T": type_attr(FLOAT), **attributes}
    signature = op_def_pb2.OpDef(name=name)
    for argument, kind in inputs.items():
        signature.input_arg.add(name=argument, type=kind)
    signature.output_arg.add(name="y", type=FLOAT)
    for attribute, example in examples.items():
        signature.attr.add(name=attribute, type=_KINDS[example.WhichOneof("value")])
    # Of the function itself, TensorFlow's MLIR bridge instantiates it with these, and complains where one is missing.
    return function_pb2.FunctionDef(signature=signature, node_def=nodes, ret={"y": y}, attr=examples)
