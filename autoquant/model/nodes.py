"""What the nodes of a graph say about the operators in them."""

from __future__ import annotations

from typing import Any

from autoquant.model.graph import Graph, attr_of, const_shape
from autoquant.model.names import node_of
from autoquant.model.operators import OPERATORS


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
