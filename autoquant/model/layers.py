"""Finds the layers of a graph: operators that can be quantized, and those that look like it but cannot."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from types import MappingProxyType
from typing import Any

from tensorflow.core.framework import types_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Graph, attr_of, const_shape
from autoquant.model.layer import Layer, Rejected, Survey
from autoquant.model.model import Shape
from autoquant.model.nodes import channels_first, sizes, weight_of
from autoquant.model.operators import OPERATORS, Operator
from autoquant.model.restrictions import objection
from autoquant.model.shapes import for_one_sample, imported, placeholder_shape, static_shape, tensor_name


def survey(graph: Graph, *, input_shapes: Mapping[str, tuple[int, ...]] = MappingProxyType({})) -> Survey:
    """Find the layers of a normalized graph, and what looks like one but is not.

    `input_shapes` gives the shape of one sample, or of a batch, for inputs whose shape the file leaves open. Raises
    ModelError if nothing can be quantized.
    """
    tf_graph = imported(for_one_sample(graph, input_shapes))
    batch = _fixed_batch(graph)

    def shape_of(tensor: str) -> Shape | None:
        return static_shape(tf_graph.get_tensor_by_name(tensor_name(tensor)))

    layers: list[Layer] = []
    tensors: list[Layer] = []
    rejected: list[Rejected] = []
    for node in graph.ordered():
        reason = objection(graph, node)
        if reason is not None:
            rejected.append(Rejected(node.name, node.op, reason))
        elif node.op in OPERATORS and OPERATORS[node.op].tensor_only:
            tensors += _inputs(graph, node, shape_of(node.name))
        elif node.op in OPERATORS:
            layers.append(_layer(graph, node, {t: shape_of(t) for t in (node.name, *node.input)}, batch))
    if not layers:
        raise ModelError("graph", "has no layer that can be quantized" + _listed(rejected), hint=_way_out(rejected))
    return Survey(tuple(layers), tuple(tensors), tuple(rejected))


def _inputs(graph: Graph, node: Any, shape: Shape | None) -> list[Layer]:
    """The inputs of an operator that is quantized by its input alone, without constants."""
    if attr_of(node, "T").type != types_pb2.DT_FLOAT:
        return []  # additions of shapes and indices are no news
    data = [(index, edge) for index, edge in enumerate(node.input) if graph.constant(edge) is None]
    axis = 1 if channels_first(node) else -1
    return [Layer(f"{node.name}:{i}", node.op, (edge,), axis, None, (), (), None, shape, 0) for i, edge in data]


def _layer(graph: Graph, node: Any, shapes: Mapping[str, Shape | None], batch: int) -> Layer:
    operator = OPERATORS[node.op]
    weight = weight_of(graph, node)
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


def _groups(node: Any, operator: Operator, weight_shape: tuple[int, ...], shapes: Mapping[str, Shape | None]) -> int:
    """Groups of input channels of a convolution; 1 where the channels of its data are not known."""
    data = shapes[node.input[operator.data]]
    channels = data[1 if channels_first(node) else -1] if data else None
    return channels // weight_shape[operator.input_axis] if weight_shape and channels else 1


def _macs(
    node: Any, operator: Operator, weight_shape: tuple[int, ...], shapes: Mapping[str, Shape | None]
) -> int | None:
    """Multiply-adds for the whole batch."""
    if node.op == "Conv2DBackpropInput":  # every value of the data meets every weight of its channel
        return _product(shapes[node.input[operator.data]], prod(weight_shape) // weight_shape[operator.input_axis])
    if operator.weight is None:
        return _product(shapes[node.name], prod(sizes(node, "ksize")))
    if not weight_shape:
        shared = (shapes[node.input[0]] or (None,))[-1]
        return None if shared is None else _product(shapes[node.name], shared)
    # Each output value takes as many multiply-adds as its channel has weights.
    per_value = prod(size for axis, size in enumerate(weight_shape) if axis not in operator.channel_axes)
    return _product(shapes[node.name], per_value)


def _product(shape: Shape | None, factor: int) -> int | None:
    return None if shape is None or None in shape else prod(size or 0 for size in shape) * factor


def _is_bias(graph: Graph, reader: Any, node: Any) -> bool:
    """Whether the reader of a layer adds a constant to each of its channels."""
    same = reader.op == "BiasAdd" and channels_first(reader) == channels_first(node)
    return same and graph.constant(reader.input[1]) is not None


def _fixed_batch(graph: Graph) -> int:
    """The batch size where the file fixes it, else 1: the first dimension of the first input that has several."""
    for name in graph.inputs:
        shape = placeholder_shape(graph.nodes[name])
        if shape is not None and len(shape) > 1:
            return shape[0] or 1
    return 1


def _listed(rejected: list[Rejected]) -> str:
    shown = "; ".join(f"'{r.name}' ({r.op}): {r.reason}" for r in rejected[:5])
    more = f"; and {len(rejected) - 5} more" if len(rejected) > 5 else ""
    known = ", ".join(name for name, operator in OPERATORS.items() if not operator.tensor_only)
    return f": {shown}{more}" if rejected else f": it has no {known}"


def _way_out(rejected: list[Rejected]) -> str:
    return "change what the reasons name, and export again" if rejected else "is this the whole model?"
