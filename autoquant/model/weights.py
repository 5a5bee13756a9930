"""The weights of operators, each in a form of its own: read by one operator alone, and not transposed."""

from __future__ import annotations

from typing import Any

from autoquant.model.graph import Graph
from autoquant.model.nodes import FLOAT, attr_of, changed_node, const_shape, make_const, with_inputs
from autoquant.model.operators import OPERATORS, node_of

TRANSPOSED = ("transpose_b", "adj_y")
"""Attributes by which an operator reads its second factor transposed."""


def own_weight(graph: Graph, node: Any) -> Graph | None:
    """Let an operator read a constant that nothing else does, and that it does not transpose.

    So that its weight can be INT8, with a scale of its own, whatever becomes of the others. Costs a copy for each
    operator but the last.
    """
    operator = OPERATORS[node.op]
    place = operator.weight or 0
    source = graph.nodes[node_of(node.input[place])]
    if source.op != "Const" or attr_of(node, "T").type != FLOAT:
        return None
    if operator.rank is None and len(const_shape(source)) != 2:
        return None  # a stack of matrices is no weight
    transposed = [key for key in TRANSPOSED if attr_of(node, key).b]
    alone = graph.single_consumer(source.name) is not None
    if alone and not transposed:
        return None
    name = source.name if alone else graph.free_name(f"{node.name}/weight")
    changed = with_inputs(node, {place: name})
    if not transposed:
        return graph.edit(put=[changed_node(source, name=name), changed])
    for key in transposed:
        changed.attr[key].b = False
    weight = graph.constant(source.name)
    assert weight is not None, source.name
    return graph.edit(put=[make_const(name, weight.T), changed])
