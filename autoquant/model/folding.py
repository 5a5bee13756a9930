"""Constant folding: what depends on constants alone is computed once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from tensorflow.python.framework import op_def_registry

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.loops import CONTROL_FLOW
from autoquant.model.nodes import calls_functions, make_const
from autoquant.model.operators import canonical, node_of
from autoquant.model.shapes import import_graph, tensor_of

LARGE = 2**20  # bytes; below it a result may be any number of times larger than what it is made from
GROWTH = 4


def fold_constants(graph: Graph) -> Graph:
    """Replace every largest part of the graph that depends on constants alone by its value, all in one run.

    Random and stateful operators are left, and results above 1 MiB that are over four times as large as the constants
    they are made from.
    """
    folded = foldable(graph)
    wanted = _read_outside(graph, folded)
    values = _evaluate(graph, wanted) if wanted else {}
    kept = {tensor: value for tensor, value in values.items() if not _blown_up(graph, tensor, value.nbytes)}
    broken = {node_of(tensor) for tensor in wanted if tensor not in kept}  # all outputs of a node, or none
    kept = {tensor: value for tensor, value in kept.items() if node_of(tensor) not in broken}
    if not kept:
        return graph
    consts, redirect = [], {}
    for tensor, value in kept.items():
        name = tensor if tensor in graph.nodes else graph.free_name(tensor.replace(":", "_"))
        consts.append(make_const(name, value))
        if name != tensor:
            redirect[tensor] = name
    # Redirected first: a node that is put takes the place of one that others may read by index.
    return graph.edit(redirect=redirect).edit(put=consts).pruned()


def foldable(graph: Graph) -> frozenset[str]:
    """Nodes, other than Const, that depend on constants alone."""
    known: set[str] = set()
    found: set[str] = set()
    for node in graph.ordered():
        if node.op == "Const":
            known.add(node.name)
        elif node.input and all(node_of(edge) in known for edge in node.input) and is_pure(node):
            known.add(node.name)
            found.add(node.name)
    return frozenset(found)


def is_pure(node: Any) -> bool:
    """Whether what a node computes depends on its inputs alone."""
    definition = op_def_registry.get(node.op)
    if definition is None or definition.is_stateful or node.op in CONTROL_FLOW or "Random" in node.op:
        return False
    return not calls_functions(node)


def _read_outside(graph: Graph, folded: frozenset[str]) -> list[str]:
    """Tensors of foldable nodes that other nodes or the outputs of the graph need."""
    wanted = dict.fromkeys(output for output in graph.outputs if node_of(output) in folded)
    for node in graph.nodes.values():
        if node.name not in folded:
            wanted |= dict.fromkeys(canonical(edge) for edge in node.input if node_of(edge) in folded)
    # Outputs keep their names, and 'a:1' is not a name for a Const: such a node stays.
    bound = {node_of(output) for output in graph.outputs if ":" in output}
    return [tensor for tensor in wanted if node_of(tensor) not in bound]


def _evaluate(graph: Graph, wanted: list[str]) -> dict[str, Array]:
    """Values of the tensors; without those that are no arrays, are known to be too large, or fail to compute."""
    import tensorflow as tf

    part = graph.ancestors(*wanted)
    tf_graph = import_graph(Graph(MappingProxyType(dict(part)), (), tuple(wanted), graph.library))
    tensors = {}
    for name in wanted:
        tensor = tensor_of(tf_graph, name)
        if tensor.dtype.is_numpy_compatible and not tensor.dtype.is_quantized:
            size = (tensor.shape.num_elements() or 0) * max(tensor.dtype.size or 1, 1)
            if not _blown_up(graph, name, size):
                tensors[name] = tensor
    with tf.compat.v1.Session(graph=tf_graph) as session:
        try:
            values: Mapping[str, Any] = session.run(tensors)
        except tf.errors.OpError:
            values = _one_by_one(session, tensors)
    return {name: np.asarray(value) for name, value in values.items()}


def _one_by_one(session: Any, tensors: Mapping[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    values = {}
    for name, tensor in tensors.items():
        try:
            values[name] = session.run(tensor)
        except tf.errors.OpError:
            continue  # it stays in the graph, where running it fails as it did before
    return values


def _blown_up(graph: Graph, tensor: str, size: int) -> bool:
    if size <= LARGE:
        return False
    made_from = sum(node.ByteSize() for node in graph.ancestors(tensor).values() if node.op == "Const")
    return size > GROWTH * int(made_from)
