"""What a live tf.Graph reads and a file of it does not: variables, and the batches of a pipeline in the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.nodes import make_const
from autoquant.model.operators import OPERATORS, node_of
from autoquant.model.shapes import make_placeholder, static_shape, tensor_of

REF_VARIABLES = frozenset({"Variable", "VariableV2"})
BATCHES = frozenset(
    {"IteratorGetNext", "IteratorGetNextSync", "QueueDequeueManyV2", "QueueDequeueUpToV2", "QueueDequeueV2"}
)
"""Operators whose results are the next batch."""


def variables_of(graph: Graph, outputs: Sequence[str]) -> tuple[str, ...]:
    """The tensors that give the values of variables, of those that the outputs depend on."""
    needed = graph.ancestors(*outputs)
    handles = {name for name, node in needed.items() if node.op == "VarHandleOp"}
    reads = {name for name, node in needed.items() if node.op == "ReadVariableOp" and node_of(node.input[0]) in handles}
    return tuple(name for name, node in needed.items() if name in reads or node.op in REF_VARIABLES)


def with_values(graph: Graph, values: Mapping[str, Array]) -> Graph:
    """The graph with variables that have become constants."""
    return graph.edit(put=[make_const(name, value) for name, value in values.items()])


def stand_ins(tf_graph: Any, variables: Sequence[str]) -> dict[str, Array]:
    """Values of the right shapes and types, where they are known, until those of a session are.

    All are positive, as a variance is, and no two tensors of numbers are equal.
    """
    rng, found = np.random.default_rng(0), {}
    for name in variables:
        tensor = tensor_of(tf_graph, name)
        shape, dtype = tensor.shape, tensor.dtype.base_dtype
        if shape.is_fully_defined() and (dtype.is_floating or dtype.is_integer or dtype.is_bool):
            numbers = rng.uniform(0.5, 1.5, shape.as_list()) if dtype.is_floating else np.ones(shape.as_list())
            found[name] = np.asarray(numbers, dtype.as_numpy_dtype)
    return found


def with_fed_batches(graph: Graph, tf_graph: Any) -> tuple[Graph, dict[str, str]]:
    """The graph with Placeholders in place of batches that layers depend on, and what they are called in the tf.Graph.

    The first result of an operator keeps its name.
    """
    renamed: dict[str, str] = {}
    for name in [name for name, node in graph.nodes.items() if node.op in BATCHES and _leads_to_layer(graph, name)]:
        first, *others = tf_graph.get_operation_by_name(name).outputs
        for index, tensor in enumerate(others, start=1):
            own = graph.free_name(f"{name}_{index}")
            graph = graph.edit(put=[_placeholder(own, tensor)], redirect={f"{name}:{index}": own})
            renamed[own] = f"{name}:{index}"
        graph = graph.edit(put=[_placeholder(name, first)])
    return graph, renamed


def _placeholder(name: str, tensor: Any) -> Any:
    return make_placeholder(name, tensor.dtype.as_datatype_enum, static_shape(tensor))


def _leads_to_layer(graph: Graph, name: str) -> bool:
    stack, seen = [name], {name}
    while stack:
        for reader in graph.consumers[stack.pop()]:
            if graph.nodes[reader].op in OPERATORS and not OPERATORS[graph.nodes[reader].op].tensor_only:
                return True
            if reader not in seen:
                seen.add(reader)
                stack.append(reader)
    return False
