"""Inputs of a graph of TensorFlow that state no shape, given the one that their readers need."""

from __future__ import annotations

from typing import Any

from autoquant.model.graph import Graph, const_shape
from autoquant.model.model import Shape
from autoquant.model.names import node_of
from autoquant.model.nodes import channels_first
from autoquant.model.operators import OPERATORS
from autoquant.model.shapes import make_placeholder, placeholder_shape

SAME_SHAPE = frozenset(
    {"Add", "AddV2", "BiasAdd", "Cast", "Identity", "Maximum", "Minimum", "Mul", "RealDiv", "Relu", "Relu6", "Sub"}
)
"""Operators whose result has the shape of their data, where they have no other operand or a number or a vector."""


def with_ranks(graph: Graph) -> Graph:
    """Inputs of unknown rank take as many dimensions as the layers that read them, and their channels; sizes stay open.

    The converter needs that much. Inputs of which no layer tells are left as they are.
    """
    nodes = [graph.nodes[name] for name in graph.inputs]
    shapes = {node.name: _needed(graph, node.name) for node in nodes if placeholder_shape(node) is None}
    known = [(graph.nodes[name], shape) for name, shape in shapes.items() if shape is not None]
    return graph.edit(put=[make_placeholder(node.name, node.attr["dtype"].type, shape) for node, shape in known])


def _needed(graph: Graph, name: str) -> Shape | None:
    """The shape that the first layer behind a node needs there, through operators that keep it."""
    for reader in (graph.nodes[reader] for reader in graph.consumers[name]):
        operator = OPERATORS.get(reader.op)
        if operator is not None and operator.rank is not None and node_of(reader.input[operator.data]) == name:
            return _data_shape(graph, reader)
        if reader.op in SAME_SHAPE and all(_small(graph, edge) for edge in reader.input if node_of(edge) != name):
            found = _needed(graph, reader.name)
            if found is not None:
                return found
    return None


def _data_shape(graph: Graph, node: Any) -> Shape:
    operator = OPERATORS[node.op]
    channels = None
    if operator.weight is not None:
        weight = graph.nodes[node_of(node.input[operator.weight])]
        channels = const_shape(weight)[operator.input_axis] if weight.op == "Const" else None
    open_sizes = (None,) * ((operator.rank or 0) - 2)
    return (None, channels, *open_sizes) if channels_first(node) else (None, *open_sizes, channels)


def _small(graph: Graph, edge: str) -> bool:
    value = graph.constant(edge)
    return value is not None and value.ndim <= 1
