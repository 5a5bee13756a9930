"""From a TensorFlow function to a frozen graph with named inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoquant.model.graph import Graph
from autoquant.model.interface import renamed


def frozen_function(function: Any) -> Any:
    """The concrete function with its variables as constants and its calls inlined."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # Lowered control flow needs control edges, which a Graph does not keep: If and While stay functions.
    return convert_variables_to_constants_v2(function, lower_control_flow=False)


def from_frozen(graph_def: Any, *, inputs: Mapping[str, str], outputs: list[tuple[str, str]]) -> Graph:
    """A Graph of what the outputs need; `inputs` maps node -> name, `outputs` holds (tensor, name)."""
    tensors = [tensor for tensor, _ in outputs]
    present = {node.name for node in graph_def.node}
    graph = Graph.from_graph_def(graph_def, inputs=[name for name in inputs if name in present], outputs=tensors)
    graph = _without_idle_library(graph.pruned())
    return renamed(graph, inputs={n: inputs[n] for n in graph.inputs}, outputs=outputs)


def _without_idle_library(graph: Graph) -> Graph:
    """Inlined functions are still in the library; a graph that calls none needs none of them."""
    if graph.library is None:
        return graph
    functions = {function.signature.name for function in graph.library.function}
    for node in graph.nodes.values():
        if node.op in functions or any(a.WhichOneof("value") == "func" or a.list.func for a in node.attr.values()):
            return graph
    return Graph(graph.nodes, graph.inputs, graph.outputs)
