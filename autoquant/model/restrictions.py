"""Why an operator that looks like a layer is not quantized."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from autoquant.model.graph import Graph, attr_of
from autoquant.model.names import node_of
from autoquant.model.nodes import channels_first, sizes, weight_of
from autoquant.model.operators import OPERATORS

NOT_AMCT = "AMCT does not quantize it"
BODY = "operators inside its body stay in float"
FUSED = "it was fused by an optimizer; export the graph without that"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    dict.fromkeys(("Conv3DBackpropInputV2", "Einsum", "BatchMatMulV3", "AvgPool3D", "MaxPool3D"), NOT_AMCT)
    | dict.fromkeys(("_FusedConv2D", "_FusedDepthwiseConv2dNative", "_FusedMatMul"), FUSED)
    | dict.fromkeys(("If", "StatelessIf", "While", "StatelessWhile", "Case", "StatelessCase"), BODY)
    | dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), BODY)
)
"""Operator -> why it is never quantized, for those that a reader of the table would look for."""


def objection(graph: Graph, node: Any) -> str | None:
    """Why a node that looks like a layer is none, as a sentence; None where it is one, or looks like nothing."""
    operator = OPERATORS.get(node.op)
    if operator is None:
        return UNSUPPORTED.get(node.op)
    if operator.tensor_only:
        return None
    if attr_of(node, "T").type != types_pb2.DT_FLOAT:
        kind = types_pb2.DataType.Name(attr_of(node, "T").type)
        return f"computes in {kind.removeprefix('DT_').lower()}, not in float"
    return _form(graph, node) or (None if weight_of(graph, node) is None else _objection_to_weight(graph, node))


def _form(graph: Graph, node: Any) -> str | None:
    """What of the operator's own attributes and place AMCT does not quantize."""
    for attribute in ("transpose_a", "transpose_b", "adj_x", "adj_y"):
        if attr_of(node, attribute).b:
            return f"it transposes a factor ({attribute})"
    dilations = sizes(node, "dilations")
    if node.op == "DepthwiseConv2dNative" and max(sizes(node, "strides")) > 1 and max(dilations, default=1) > 1:
        return "it has both a stride and a dilation above 1"
    if node.op == "Conv3D" and dilations[:1] > (1,):
        return f"its dilation in depth is {dilations[0]}, not 1"
    if node.op == "Conv2DBackpropInput" and max(dilations, default=1) > 1:
        return f"its dilation is {max(dilations)}, not 1"
    if node.op == "Conv2D" and _is_conv1d(graph, node):
        return "it is a Conv1D (ExpandDims, Conv2D, Squeeze): AMCT does not quantize those"
    return None


def _objection_to_weight(graph: Graph, node: Any) -> str | None:
    edge = node.input[OPERATORS[node.op].weight or 0]
    weight = graph.nodes[node_of(edge)]
    if weight.op != "Const":
        fed = [name for name in graph.inputs if name in graph.ancestors(weight.name)]
        return f"its weight '{edge}' is not constant" + (f": it depends on the input '{fed[0]}'" if fed else "")
    others = [name for name in graph.consumers[weight.name] if name != node.name]
    if others:
        return f"its weight '{weight.name}' is shared with '{others[0]}'"
    if not np.isfinite(np.asarray(graph.constant(weight.name))).all():
        return f"its weight '{weight.name}' holds NaN or infinity"
    return None


def _is_conv1d(graph: Graph, node: Any) -> bool:
    """Whether a convolution stands between an ExpandDims and a Squeeze of one axis, as tf.nn.conv1d writes it."""
    before, behind = graph.nodes[node_of(node.input[0])], graph.single_consumer(node.name)
    while behind is not None and behind.op == "BiasAdd":
        behind = graph.single_consumer(behind.name)
    if before.op != "ExpandDims" or behind is None or behind.op != "Squeeze":
        return False
    axis = graph.constant(before.input[1])
    spatial = (2, 3) if channels_first(node) else (1, 2)
    squeezed = [axis % 4 for axis in attr_of(behind, "squeeze_dims").list.i]
    return axis is not None and int(axis.item()) % 4 in spatial and squeezed == [int(axis.item()) % 4]
