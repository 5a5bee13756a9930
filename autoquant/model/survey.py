"""Finds the layers of a graph: operators that can be quantized, and those that look like it but cannot, with why."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.model.graph import Graph
from autoquant.model.layer import Layer, Rejected, Survey, no_layers, product
from autoquant.model.model import Shape, stated_batch
from autoquant.model.multiply_adds import CALLS, multiply_adds, multiply_adds_of_calls
from autoquant.model.nodes import FLOAT, DataType, attr_of, channels_first, const_shape, sizes
from autoquant.model.operators import OPERATORS, OperatorKind, node_of
from autoquant.model.shapes import for_one_sample, sample_shapes, stated_shapes

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


def survey_graph(graph: Graph, *, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Survey:
    """Find the layers of a normalized graph, and what looks like one but is not.

    `input_shapes` gives the shape of one sample, or of a batch, for inputs whose shape the file leaves open. Raises
    ModelError if nothing can be quantized.
    """
    sample = for_one_sample(graph, input_shapes)
    known = [node for node in graph.nodes.values() if node.op in OPERATORS or node.op in UNSUPPORTED.keys() - CALLS]
    tensors_of_layers = {tensor: None for node in known for tensor in (node.name, *node.input)}
    shapes = sample_shapes(sample, tensors_of_layers)
    inside = multiply_adds_of_calls(sample, (node for node in graph.nodes.values() if node.op in CALLS))
    batch = stated_batch(stated_shapes(graph))
    layers: list[Layer] = []
    tensors: list[Layer] = []
    rejected: list[Rejected] = []
    for node in graph.ordered():
        reason = _objection(graph, node)
        if reason is not None:
            macs = inside[node.name] if node.name in inside else multiply_adds(node, shapes.__getitem__)
            own = None if macs is None else macs // batch
            rejected.append(Rejected(node.name, node.op, reason, own, _parameters(graph, node)))
        elif node.op in OPERATORS and OPERATORS[node.op].tensor_only:
            tensors += _inputs(graph, node, shapes[node.name])
        elif node.op in OPERATORS:
            layers.append(_layer(graph, node, shapes, batch))
    if not layers:
        known = [name for name, operator in OPERATORS.items() if not operator.tensor_only]
        raise no_layers("graph", "has no layer that can be quantized", rejected, known, again="export")
    return Survey(tuple(layers), tuple(tensors), tuple(rejected))


def _parameters(graph: Graph, node: Any) -> int:
    """The values of the constant matrices, kernels and the like that an operator reads."""
    values = [value for edge in node.input if (value := graph.constant(edge)) is not None]
    return sum(value.size for value in values if value.ndim > 1 and value.dtype.kind not in "iu")


def _inputs(graph: Graph, node: Any, shape: Shape | None) -> list[Layer]:
    """The inputs of an operator that is quantized by its input alone, without constants."""
    if attr_of(node, "T").type != FLOAT:
        return []  # additions of shapes and indices are no news
    data = [(index, edge) for index, edge in enumerate(node.input) if graph.constant(edge) is None]
    axis = 1 if channels_first(node) else -1
    return [Layer(f"{node.name}:{i}", node.op, (edge,), axis, None, (), (), None, shape, 0) for i, edge in data]


def _layer(graph: Graph, node: Any, shapes: Mapping[str, Shape | None], batch: int) -> Layer:
    operator = OPERATORS[node.op]
    weight = _weight_of(graph, node)
    data = (node.input[operator.data],) if weight or operator.weight is None else tuple(node.input)
    weight_shape = () if weight is None else const_shape(graph.nodes[weight])
    reader = graph.single_consumer(node.name)
    macs = _macs(node, operator, weight_shape, shapes)
    return Layer(
        name=node.name,
        op=node.op,
        activations=data,
        data_axis=1 if channels_first(node) else -1,
        weight=weight,
        weight_shape=weight_shape,
        channel_axes=() if weight is None else operator.channel_axes,
        bias=reader.name if weight and reader is not None and _is_bias(graph, reader, node) else None,
        output_shape=shapes[node.name],
        macs=None if macs is None else macs // batch,
        groups=_groups(node, operator, weight_shape, shapes),
    )


def _groups(
    node: Any, operator: OperatorKind, weight_shape: tuple[int, ...], shapes: Mapping[str, Shape | None]
) -> int:
    """Groups of input channels of a convolution; 1 where the channels of its data are not known."""
    data = shapes[node.input[operator.data]]
    channels = data[1 if channels_first(node) else -1] if data else None
    return channels // weight_shape[operator.input_axis] if weight_shape and channels else 1


def _macs(
    node: Any, operator: OperatorKind, weight_shape: tuple[int, ...], shapes: Mapping[str, Shape | None]
) -> int | None:
    """Multiply-adds for the whole batch."""
    if node.op == "Conv2DBackpropInput":  # every value of the data meets every weight of its channel
        return product(shapes[node.input[operator.data]], prod(weight_shape) // weight_shape[operator.input_axis])
    if operator.weight is None:
        return product(shapes[node.name], prod(sizes(node, "ksize")))
    if not weight_shape:
        shared = (shapes[node.input[0]] or (None,))[-1]
        return None if shared is None else product(shapes[node.name], shared)
    # Each output value takes as many multiply-adds as its channel has weights.
    per_value = prod(size for axis, size in enumerate(weight_shape) if axis not in operator.channel_axes)
    return product(shapes[node.name], per_value)


def _is_bias(graph: Graph, reader: Any, node: Any) -> bool:
    """Whether the reader of a layer adds a constant to each of its channels."""
    same = reader.op == "BiasAdd" and channels_first(reader) == channels_first(node)
    return same and graph.constant(reader.input[1]) is not None


def _weight_of(graph: Graph, node: Any) -> str | None:
    """The node of a layer's weight; None for a pooling, and for a product of two activations."""
    index = OPERATORS[node.op].weight
    if index is None:
        return None
    source = graph.nodes[node_of(node.input[index])]
    if OPERATORS[node.op].rank is None and not (source.op == "Const" and len(const_shape(source)) == 2):
        return None
    return str(source.name)


def _objection(graph: Graph, node: Any) -> str | None:
    """Why a node that looks like a layer is none, as a sentence; None where it is one, or looks like nothing."""
    operator = OPERATORS.get(node.op)
    if operator is None:
        return UNSUPPORTED.get(node.op)
    if operator.tensor_only:
        return None
    if attr_of(node, "T").type != FLOAT:
        kind = DataType.Name(attr_of(node, "T").type)
        return f"computes in {kind.removeprefix('DT_').lower()}, not in float"
    return _form(graph, node) or (None if _weight_of(graph, node) is None else _objection_to_weight(graph, node))


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
