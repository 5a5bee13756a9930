"""The operators that AMCT quantizes, and where each of them has its data, its weight and its channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autoquant.model.graph import Graph, attr_of, const_shape, node_of


@dataclass(frozen=True, slots=True)
class Operator:
    """How an operator is quantized.

    `data` and `weight` are indices of its inputs; `channel_axes` the axes of the weight that number output channels,
    `input_axis` the one that numbers input channels; `rank` is that of its result, None where it can be any.
    `per_channel` says whether the weight may have a scale for every channel. Of an operator that is `tensor_only` no
    work becomes INT8: its input is quantized and dequantized, which its reader may join with its own.
    """

    rank: int | None
    data: int = 0
    weight: int | None = None
    channel_axes: tuple[int, ...] = ()
    input_axis: int = 0
    per_channel: bool = False
    tensor_only: bool = False


BATCHED = Operator(None, weight=1, channel_axes=(1,), input_axis=0)
OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "Add": Operator(None, tensor_only=True),
        "AddV2": Operator(None, tensor_only=True),
        "AvgPool": Operator(4),
        "BatchMatMul": BATCHED,
        "BatchMatMulV2": BATCHED,
        "Conv2D": Operator(4, weight=1, channel_axes=(3,), input_axis=2, per_channel=True),
        # Its inputs are the shape of the result, the weight (height, width, out, in) and the data.
        "Conv2DBackpropInput": Operator(4, data=2, weight=1, channel_axes=(2,), input_axis=3, per_channel=True),
        "Conv3D": Operator(5, weight=1, channel_axes=(4,), input_axis=3),
        "DepthwiseConv2dNative": Operator(4, weight=1, channel_axes=(2, 3), input_axis=2, per_channel=True),
        "MatMul": Operator(2, weight=1, channel_axes=(1,), input_axis=0),
        "MaxPool": Operator(4, tensor_only=True),
    }
)
"""Operator -> how it is quantized. A BatchMatMul has a weight only where its second factor is a constant matrix."""


def channels_first(node: Any) -> bool:
    """Whether the data of a node has its channels right behind the batch: NCHW, NCDHW."""
    return bytes(attr_of(node, "data_format").s).startswith(b"NC")


def sizes(node: Any, attribute: str) -> tuple[int, ...]:
    """A list of whole numbers of a convolution or pooling, for its spatial axes alone: strides, dilations, ksize."""
    values = tuple(attr_of(node, attribute).list.i)
    return values[2:] if channels_first(node) else values[1:-1]


def weight_of(graph: Graph, node: Any) -> str | None:
    """The node of a layer's weight; None for a pooling, and for a product of two activations."""
    index = OPERATORS[node.op].weight
    if index is None:
        return None
    source = graph.nodes[node_of(node.input[index])]
    if OPERATORS[node.op].rank is None and not (source.op == "Const" and len(const_shape(source)) == 2):
        return None
    return str(source.name)
