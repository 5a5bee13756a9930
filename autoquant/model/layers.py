"""The layers of a graph: operators that can be quantized, and those that look like it but cannot, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Graph, attr_of, const_shape, data_format, node_of
from autoquant.model.shapes import Shape, for_one_sample, imported, placeholder_shape, static_shape, tensor_name


@dataclass(frozen=True, slots=True)
class Layer:
    """A quantizable operator.

    `activation` is the tensor that it reads as data, `weight` the Const node of its weight, `channel_axes` the axes of
    the weight that number its output channels, `bias` the BiasAdd that alone reads the operator and has a constant
    vector. `macs` counts multiply-adds for one sample. What depends on a shape that is not known is None.
    """

    name: str
    op: str
    activation: str
    weight: str
    weight_shape: tuple[int, ...]
    channel_axes: tuple[int, ...]
    bias: str | None
    output_shape: tuple[int | None, ...] | None
    macs: int | None

    @property
    def channels(self) -> int:
        """Output channels."""
        return prod(self.weight_shape[axis] for axis in self.channel_axes)

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return prod(self.weight_shape) + (self.channels if self.bias is not None else 0)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An operator that looks quantizable but is not, and why."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True)
class Survey:
    """All operators worth a look, in graph order."""

    layers: tuple[Layer, ...]
    rejected: tuple[Rejected, ...]


CHANNEL_AXES: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"Conv2D": (3,), "DepthwiseConv2dNative": (2, 3), "MatMul": (1,)}
)
"""Operator -> the axes of its weight that number output channels. Input 0 is the data, input 1 the weight."""

NOT_YET = "not supported by this version"
BODY = "what happens inside its body stays in float"
FUSED = "it was fused by an optimizer; export the graph without that"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("Conv3D", "Conv2DBackpropInput", "Conv3DBackpropInputV2", "Einsum", "AvgPool", "MaxPool"), NOT_YET)
    | dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), NOT_YET)
    | dict.fromkeys(("_FusedConv2D", "_FusedDepthwiseConv2dNative", "_FusedMatMul"), FUSED)
    | dict.fromkeys(("If", "StatelessIf", "While", "StatelessWhile", "Case", "StatelessCase"), BODY)
    | dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), BODY)
)
"""Operator -> why it is never quantized, for those that a reader of the table would look for."""


def survey(graph: Graph, *, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Survey:
    """Find the layers of a normalized graph, and what looks like one but is not.

    `input_shapes` gives the shape of one sample, or of a batch, for inputs whose shape the file leaves open. Raises
    ModelError if nothing can be quantized.
    """
    tf_graph = imported(for_one_sample(graph, input_shapes))
    batch = _fixed_batch(graph)
    layers: list[Layer] = []
    rejected: list[Rejected] = []
    for node in graph.ordered():
        reason = _objection(graph, node)
        if reason is not None:
            rejected.append(Rejected(node.name, node.op, reason))
        elif node.op in CHANNEL_AXES:
            shape = static_shape(tf_graph.get_tensor_by_name(tensor_name(node.name)))
            layers.append(_layer(graph, node, shape, batch))
    if not layers:
        raise ModelError("graph", "has no layer that can be quantized" + _listed(rejected), hint=_way_out(rejected))
    return Survey(tuple(layers), tuple(rejected))


def _layer(graph: Graph, node: Any, shape: Shape | None, batch: int) -> Layer:
    weight = node_of(node.input[1])
    weight_shape = const_shape(graph.nodes[weight])
    axes = CHANNEL_AXES[node.op]
    reader = graph.single_consumer(node.name)
    bias = reader.name if reader is not None and _is_bias(graph, reader, node) else None
    macs = None
    if shape is not None and None not in shape:
        # Each output value takes as many multiply-adds as its channel has weights.
        per_value = prod(size for axis, size in enumerate(weight_shape) if axis not in axes)
        macs = prod(size or 0 for size in shape) * per_value // batch
    return Layer(
        name=node.name,
        op=node.op,
        activation=node.input[0],
        weight=weight,
        weight_shape=weight_shape,
        channel_axes=axes,
        bias=bias,
        output_shape=shape,
        macs=macs,
    )


def _is_bias(graph: Graph, reader: Any, node: Any) -> bool:
    """Whether the reader of a layer adds a constant to each of its channels."""
    same = reader.op == "BiasAdd" and data_format(reader) == data_format(node)
    return same and graph.constant(reader.input[1]) is not None


def _fixed_batch(graph: Graph) -> int:
    """The batch size where the file fixes it, else 1: the first dimension of the first input that has several."""
    for name in graph.inputs:
        shape = placeholder_shape(graph.nodes[name])
        if shape is not None and len(shape) > 1:
            return shape[0] or 1
    return 1


def _objection(graph: Graph, node: Any) -> str | None:
    """Why a node that looks like a layer is none."""
    if node.op.startswith("BatchMatMul") and not any(graph.nodes[node_of(e)].op == "Const" for e in node.input):
        return "both factors are activations: there is no weight"
    if node.op not in CHANNEL_AXES:
        return UNSUPPORTED.get(node.op)
    weight = graph.nodes[node_of(node.input[1])]
    if attr_of(node, "T").type != types_pb2.DT_FLOAT:
        return (
            f"computes in {types_pb2.DataType.Name(attr_of(node, 'T').type).removeprefix('DT_').lower()}, not in float"
        )
    if weight.op != "Const":
        return f"its weight '{node.input[1]}' is not constant"
    others = [name for name in graph.consumers[weight.name] if name != node.name]
    if others:
        return f"its weight '{weight.name}' is shared with '{others[0]}'"
    if node.op == "MatMul" and (attr_of(node, "transpose_a").b or attr_of(node, "transpose_b").b):
        return "it transposes a factor"
    if node.op == "DepthwiseConv2dNative" and _strided_and_dilated(node):
        return "it has both a stride and a dilation above 1"
    if not np.isfinite(np.asarray(graph.constant(weight.name))).all():
        return f"its weight '{weight.name}' holds NaN or infinity"
    return None


def _strided_and_dilated(node: Any) -> bool:
    return max(attr_of(node, "strides").list.i) > 1 and max(attr_of(node, "dilations").list.i, default=1) > 1


def _listed(rejected: list[Rejected]) -> str:
    shown = "; ".join(f"'{r.name}' ({r.op}): {r.reason}" for r in rejected[:5])
    more = f"; and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    return f": {shown}{more}" if rejected else f": it has no {', '.join(CHANNEL_AXES)}"


def _way_out(rejected: list[Rejected]) -> str:
    return "change what the reasons name, and export again" if rejected else "is this the whole model?"
