"""Keeps the converter from joining operators across a tensor: the graph is converted in parts, which are put together.

It folds a multiplication into the weight of the convolution behind it, for instance, or makes one operator of two that
are alike, and nothing in its options or in the graph keeps it from that, but that it sees inputs of the model there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autoquant.model.graph import Graph
from autoquant.model.nodes import changed_node
from autoquant.model.operators import node_of
from autoquant.model.shapes import import_shapes, make_placeholder, static_shape, tensor_of


@dataclass(frozen=True)
class CutGraph:
    """A graph whose cut tensors are outputs too; `sources` says which one each new input stands for."""

    graph: Graph
    sources: Mapping[str, str]


def cut(graph: Graph, tensors: Iterable[str]) -> CutGraph:
    """Cut a graph at tensors: each node that reads one reads an input of its own, so that no two become one.

    Inputs of the graph, constants and tensors of unknown rank are left as they are.
    """
    wanted = [tensor for tensor in dict.fromkeys(tensors) if not _is_source(graph, tensor)]
    if not wanted:
        return CutGraph(graph, {})
    tf_graph = import_shapes(graph)
    made = {tensor: tensor_of(tf_graph, tensor) for tensor in wanted}
    shapes = {tensor: shape for tensor, one in made.items() if (shape := static_shape(one)) is not None}
    sources: dict[str, str] = {}
    changed: dict[str, Any] = {}
    for tensor, shape in shapes.items():
        for reader in graph.consumers[node_of(tensor)]:
            name = graph.free_name(f"cut/{len(sources)}")
            sources[name] = tensor
            changed[name] = make_placeholder(name, made[tensor].dtype.as_datatype_enum, shape)
            node = changed.get(reader, graph.nodes[reader])
            edges = [name if edge == tensor else edge for edge in node.input]
            changed[reader] = changed_node(node, inputs=edges)
    outputs = tuple(dict.fromkeys((*graph.outputs, *shapes)))
    parts = replace(graph.edit(put=changed.values()), inputs=(*graph.inputs, *sources), outputs=outputs)
    return CutGraph(parts, sources)


def _is_source(graph: Graph, tensor: str) -> bool:
    return node_of(tensor) in graph.inputs or graph.nodes[node_of(tensor)].op == "Const"


def join(model: Any, graph: Graph, parts: CutGraph) -> None:
    """Put the first subgraph of what the parts were converted to (ModelT) together again, in place.

    Its inputs and outputs are in the order of those of the parts; afterwards they are those of the graph.
    """
    if not parts.sources:
        return
    lite = model.subgraphs[0]
    outputs = dict(zip(parts.graph.outputs, map(int, lite.outputs), strict=True))
    inputs = dict(zip(parts.graph.inputs, map(int, lite.inputs), strict=True))
    sources = {inputs[name]: outputs[tensor] for name, tensor in parts.sources.items()}

    def source(tensor: int) -> int:
        while tensor in sources:  # an operator that does nothing leaves one input to be the next cut tensor
            tensor = sources[tensor]
        return tensor

    for op in lite.operators:
        op.inputs = [source(int(tensor)) for tensor in op.inputs]
    lite.inputs = [inputs[name] for name in graph.inputs]
    lite.outputs = [source(outputs[name]) for name in graph.outputs]
    lite.operators = in_order(lite.operators)


def in_order(operators: Iterable[Any]) -> list[Any]:
    """Operators (OperatorT) so that each stands behind those that make what it reads, else in the order given."""
    waiting, found = list(operators), list[Any]()
    while waiting:
        unmade = {int(tensor) for op in waiting for tensor in op.outputs}
        blocked = []
        for op in waiting:
            if unmade.isdisjoint(map(int, op.inputs)):
                found.append(op)
                unmade.difference_update(map(int, op.outputs))
            else:
                blocked.append(op)
        assert len(blocked) < len(waiting), "operators read one another"
        waiting = blocked
    return found
