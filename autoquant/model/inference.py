"""A GraphDef as an inference graph: placeholders that are no data have their values, and training branches are gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from autoquant.errors import UsageError, did_you_mean, listed
from autoquant.model.conditions import control_edges, with_known_conditions
from autoquant.model.feed import OPTION, feed_value
from autoquant.model.graph import Graph
from autoquant.model.inlining import inline_calls, without_idle_functions
from autoquant.model.loops import with_functional_loops
from autoquant.model.nodes import make_const
from autoquant.model.shapes import input_spec, placeholder_dtype, placeholder_shape

NOTHING: Mapping[str, str] = MappingProxyType({})


def inference_graph(
    graph_def: Any,
    *,
    inputs: Mapping[str, str] = NOTHING,
    outputs: Iterable[str] = (),
    feed: Mapping[str, str] = NOTHING,
    keep_calls: bool = False,
    constants: Iterable[Any] = (),
) -> Graph:
    """The graph of a GraphDef, with constants in place of the placeholders in `feed` (name -> value as text).

    `constants` are nodes that it has in place of its own.

    `inputs` maps node -> the name that users know, outputs are tensors. Calls of functions are inlined, unless
    `keep_calls`; conditions that depend on constants, values fed and defaults of placeholders alone are gone; loops of
    TensorFlow 1 are While operators; the library has the functions that are still called. Raises ModelError, and
    UsageError for a feed that does not fit.
    """
    present = {node.name for node in graph_def.node}
    known = [name for name in inputs if name in present]
    graph = Graph.from_graph_def(graph_def, inputs=known, outputs=outputs)
    graph = graph.edit(put=constants)
    if not keep_calls:
        graph = inline_calls(graph)
    graph = with_known_conditions(_fed(graph, inputs, feed), control_edges(graph_def))
    if graph.outputs:
        graph = graph.pruned()
    return without_idle_functions(with_functional_loops(graph))


def _fed(graph: Graph, inputs: Mapping[str, str], feed: Mapping[str, str]) -> Graph:
    """The graph with constants in place of placeholders, whose names are their own or those in `inputs`."""
    nodes = {**{name: name for name in graph.nodes}, **{user: node for node, user in inputs.items()}}
    for name, text in feed.items():
        if name not in nodes:
            known = [user for user, node in nodes.items() if node in graph.nodes and _is_placeholder(graph.nodes[node])]
            hint = did_you_mean(name, known, otherwise=f"its placeholders: {listed(known) or 'none'}")
            raise UsageError(f"{OPTION} {name}", "there is no such placeholder in the model", hint=hint)
        if nodes[name] in graph.nodes:  # else it is an input of which nothing depends
            graph = graph.edit(put=[_constant(name, graph.nodes[nodes[name]], text)])
    inputs_left = [name for name in graph.inputs if not _has_value(graph.nodes[name])]
    return replace(graph, inputs=tuple(inputs_left))


def _has_value(node: Any) -> bool:
    """Whether an input is fed, or is a single value with a default."""
    return node.op == "Const" or (node.op == "PlaceholderWithDefault" and input_spec(node).is_single_value)


def _is_placeholder(node: Any) -> bool:
    return bool(node.op.startswith("Placeholder"))


def _constant(name: str, node: Any, text: str) -> Any:
    where = f"{OPTION} {name}"
    if not _is_placeholder(node):
        raise UsageError(where, f"is a {node.op}, not a placeholder", hint="`autoquant inspect` shows the inputs")
    shape = placeholder_shape(node)
    if shape:
        sizes = "x".join("?" if size is None else str(size) for size in shape)
        raise UsageError(where, f"is of shape {sizes}, not a single value", hint="samples are given by the data")
    return make_const(node.name, feed_value(name, text, placeholder_dtype(node)))
