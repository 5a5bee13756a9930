"""Calls of functions replaced by the nodes of the function.

The converter to constants leaves calls of functions that XLA shall compile, as Keras writes grouped convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from autoquant.errors import ModelError
from autoquant.model.graph import FunctionDefLibrary, Graph, GraphDef
from autoquant.model.loops import UNREAD
from autoquant.model.nodes import AttrValue, attr_of, changed_node, make_node
from autoquant.model.operators import canonical, node_of

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})


def inline_calls(graph: Graph) -> Graph:
    """The graph with the operators of functions in place of their calls, under the name of the call.

    Calls inside of functions, such as the body of a loop, stay, and
    so do those of functions that call themselves, or that have attributes.
    """
    if graph.library is None:
        return graph
    functions = {one.signature.name: one for one in graph.library.function}
    simple = cache(partial(_is_simple, functions))
    while True:
        called = {node.name: _called(node) for node in graph.nodes.values() if _called(node) in functions}
        calls = {name: function for name, function in called.items() if simple(function)}
        if not calls:
            return graph
        for name, function in calls.items():
            graph = inlined(graph, graph.nodes[name], function, graph.nodes[name].input)


def without_idle_functions(graph: Graph) -> Graph:
    """The graph without functions that it does not run: those that were inlined are still there."""
    if graph.library is None:
        return graph
    functions = {one.signature.name: one for one in graph.library.function}
    reached: set[str] = set()
    stack = list(graph.nodes.values())
    while stack:
        new = _functions_of(stack.pop()) & functions.keys() - reached
        stack += [node for name in new for node in functions[name].node_def]
        reached |= new
    library = FunctionDefLibrary(function=[function for name, function in functions.items() if name in reached])
    return Graph(graph.nodes, graph.inputs, graph.outputs, library if reached else None)


def inlined(graph: Graph, node: Any, function: str, arguments: Sequence[str]) -> Graph:
    """The graph with the nodes of a function of its library in place of a node, the calls among them inlined too.

    They are called `<node>/<name in the function>`. The one that makes the only result takes the name of the node;
    where there is none, or are several results, an Identity or IdentityN does.
    """
    body = _body(graph, function)
    given = dict(zip(body.inputs, arguments, strict=True))
    names = _names(graph, node.name, body)
    made = node_of(body.outputs[0]) if len(body.outputs) == 1 else ""
    if made in body.outputs and made not in given:  # its first result, thus what the name stands for
        names[made] = node.name

    def outside(edge: str) -> str:
        inner = node_of(edge)
        return given.get(inner) or names[inner] + edge[len(inner) :]

    nodes = [
        changed_node(inner, name=names[inner.name], inputs=map(outside, inner.input))
        for inner in body.nodes.values()
        if inner.name not in given
    ]
    # So that what made them is no output of the graph.
    unread = [body.nodes[name] for name in given if not body.consumers[name] and name not in body.output_nodes]
    nodes += [make_node(names[one.name], UNREAD, [given[one.name]], T=one.attr["dtype"]) for one in unread]
    if node.name not in names.values():
        nodes += _named_results(node, [outside(tensor) for tensor in body.outputs])
    kept = {one.name for one in nodes}
    graph = graph.edit(drop=[] if node.name in kept else [node.name], put=nodes)
    for call in [one for one in nodes if one.op in CALLS]:
        graph = inlined(graph, call, call.attr["f"].func.name, call.input)
    return graph


def _functions_of(node: Any) -> set[str]:
    """The names of all functions that a node may run."""
    values = list(node.attr.values())
    return {node.op, *(value.func.name for value in values), *(one.name for value in values for one in value.list.func)}


def _called(node: Any) -> str:
    """The function that a node calls: its operator may be the function's name."""
    return str(node.attr["f"].func.name) if node.op in CALLS else str(node.op)


def _is_simple(functions: Mapping[str, Any], name: str) -> bool:
    """Whether a function has results, and neither it nor what it calls has attributes or calls itself."""
    called = _reached(functions, name)
    plain = all(not functions[one].signature.attr and one not in _reached(functions, one) for one in {name} | called)
    return plain and bool(functions[name].signature.output_arg)


def _reached(functions: Mapping[str, Any], name: str) -> set[str]:
    """The functions that a function calls, and those that these call."""
    reached: set[str] = set()
    stack = [name]
    while stack:
        called = {_called(node) for node in functions[stack.pop()].node_def} & functions.keys()
        stack += called - reached
        reached |= called
    return reached


def _body(graph: Graph, function: str) -> Graph:
    """What the results of a function need, as a graph from its arguments to its results. Raises ModelError."""
    import tensorflow as tf
    from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

    library = () if graph.library is None else graph.library.function
    definition = next((one for one in library if one.signature.name == function), None)
    if definition is None:
        raise ModelError("graph", f"calls a function that it lacks: '{function}'", hint="is the file whole?")
    with tf.Graph().as_default():  # functions that it calls are looked up here
        tf.graph_util.import_graph_def(GraphDef(library=graph.library), name="")
        graph_def, flat = function_def_to_graph_def(definition)
    inputs = [argument.name for argument in definition.signature.input_arg]
    outputs = [flat[definition.ret[result.name]] for result in definition.signature.output_arg]
    return Graph.from_graph_def(graph_def, inputs=inputs, outputs=outputs).pruned()


def _names(graph: Graph, prefix: str, body: Graph) -> dict[str, str]:
    """Names for the nodes of a function that the graph does not have."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for inner in body.nodes:
        name, number = graph.free_name(f"{prefix}/{inner}"), 0
        while name in taken:
            number += 1
            name = graph.free_name(f"{prefix}/{inner}_{number}")
        taken.add(name)
        found[inner] = name
    return found


def _named_results(node: Any, results: Sequence[str]) -> list[Any]:
    """What makes the results of a node under its name; nothing where it has none."""
    types = attr_of(node, "Tout").list.type
    if not results:
        return []
    if len(results) == 1:
        return [make_node(node.name, "Identity", [canonical(results[0])], T=AttrValue(type=types[0]))]
    return [make_node(node.name, "IdentityN", results, T=AttrValue(list=AttrValue.ListValue(type=types)))]
