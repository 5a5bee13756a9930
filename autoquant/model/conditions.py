"""Conditions whose value is known before the model runs, such as is_training: only the branch that is taken stays.

             .--false--> inference branch --.
    x --> Switch                            Merge --> readers        becomes    x --> inference branch --> readers
             '--true---> training branch ---'

These are of TensorFlow 1. Those of TensorFlow 2 (If, Case) have a function for each branch, which takes their place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.folding import fold_constants, is_pure
from autoquant.model.graph import Graph
from autoquant.model.inlining import inlined
from autoquant.model.loops import UNREAD
from autoquant.model.nodes import AttrValue, make_const, make_node
from autoquant.model.operators import canonical, node_of
from autoquant.model.shapes import input_spec

SWITCHES = frozenset({"RefSwitch", "Switch"})
MERGES = frozenset({"Merge", "RefMerge"})
FUNCTIONAL = frozenset({"Case", "If", "StatelessCase", "StatelessIf"})


def control_edges(graph_def: Any) -> Mapping[str, tuple[str, ...]]:
    """The nodes that each node of a GraphDef waits for without reading them, where there are any.

    They alone tell to which branch of TensorFlow 1 a constant belongs.
    """
    waits = (
        (node.name, tuple(node_of(edge) for edge in node.input if edge.startswith("^"))) for node in graph_def.node
    )
    return {name: sources for name, sources in waits if sources}


def with_known_conditions(graph: Graph, control: Mapping[str, tuple[str, ...]]) -> Graph:
    """The graph without conditions that depend on constants alone, and without their branches that are not taken.

    A single value with a default counts as its default. `control` is `control_edges` of what the graph was made from.
    Raises ModelError where an output is in a branch that is not taken.
    """
    while True:
        simpler = _without_functional(_without_switches(graph, control))
        if simpler is graph:
            return graph
        graph = simpler


def predicate_of(node: Any) -> str:
    """The tensor that decides a Switch, If or Case."""
    return str(node.input[1] if node.op in SWITCHES else node.input[0])


def is_condition(graph: Graph, node: Any) -> bool:
    """Whether a node decides a condition; the Switch of a loop decides whether it goes on."""
    return node.op in FUNCTIONAL or (node.op in SWITCHES and graph.nodes[node_of(node.input[1])].op != "LoopCond")


def _without_functional(graph: Graph) -> Graph:
    nodes = [node for node in graph.nodes.values() if node.op in FUNCTIONAL]
    values = _known_values(graph, map(predicate_of, nodes))
    for node in nodes:
        if predicate_of(node) in values:
            function = _branch(node, values[predicate_of(node)])
            graph = inlined(graph, graph.nodes[node.name], function, graph.nodes[node.name].input[1:])
    return graph


def _branch(node: Any, value: Array) -> str:
    """The function that is called; an index beyond all branches of a Case is the last one."""
    if node.op in {"If", "StatelessIf"}:
        return str(node.attr["then_branch" if _is_true(value) else "else_branch"].func.name)
    names = [function.name for function in node.attr["branches"].list.func]
    return str(names[int(value)] if 0 <= int(value) < len(names) else names[-1])


def _is_true(value: Array) -> bool:
    """As TensorFlow has it: a number that is not 0; of a tensor that is no scalar, whether it holds anything."""
    return bool(value) if value.ndim == 0 else value.size > 0


def _without_switches(graph: Graph, control: Mapping[str, tuple[str, ...]]) -> Graph:
    switches = [node for node in graph.nodes.values() if node.op in SWITCHES and is_condition(graph, node)]
    values = _known_values(graph, map(predicate_of, switches))
    taken = {node.name: _is_true(values[node.input[1]]) for node in switches if node.input[1] in values}
    if not taken:
        return graph
    untaken = {name if true else f"{name}:1" for name, true in taken.items()}
    dead = _dead(graph, untaken, control)
    for output in graph.outputs:
        if node_of(output) in dead:
            what = "is computed in a branch of a condition that is not taken"
            raise ModelError(output, what, hint="name another output with --outputs")
    graph = _without_merges(graph, dead, untaken)
    graph = graph.edit(redirect={f"{name}:1": name for name, true in taken.items() if true})
    graph = graph.edit(drop=dead)
    passing = [graph.nodes[name] for name in taken if name not in dead]
    return graph.edit(put=[_passed_on(graph, node) for node in passing])


def _passed_on(graph: Graph, node: Any) -> Any:
    """What a Switch becomes; where only the other branch read it, it is no output of the graph."""
    op = "Identity" if graph.consumers[node.name] or node.name in graph.output_nodes else UNREAD
    return make_node(node.name, op, [node.input[0]], T=node.attr["T"])


def _dead(graph: Graph, untaken: set[str], control: Mapping[str, tuple[str, ...]]) -> set[str]:
    """The nodes that do not run, given the tensors that Switches do not give: what reads or waits for those.

    A Merge runs where one of its inputs does; that of a loop where the loop is entered.
    """
    waiting: dict[str, list[str]] = {}
    for name, sources in control.items():
        for source in sources:
            waiting.setdefault(source, []).append(name)
    dead: set[str] = set()

    def missing(edge: str) -> bool:
        return node_of(edge) in dead or canonical(edge) in untaken

    def runs(node: Any) -> bool:
        if node.op in MERGES:
            entering = [edge for edge in node.input if graph.nodes[node_of(edge)].op != "NextIteration"]
            return not all(map(missing, entering))
        return not (any(map(missing, node.input)) or any(source in dead for source in control.get(node.name, ())))

    stack = [reader for tensor in untaken for reader in graph.consumers[node_of(tensor)]]
    while stack:
        name = stack.pop()
        if name in graph.nodes and name not in dead and not runs(graph.nodes[name]):
            dead.add(name)
            stack += [*graph.consumers[name], *waiting.get(name, ())]
    return dead


def _without_merges(graph: Graph, dead: set[str], untaken: set[str]) -> Graph:
    """The graph with an Identity in place of each Merge of which one input is left, and a constant for which it was."""
    for node in [node for node in graph.nodes.values() if node.op in MERGES and node.name not in dead]:
        missing = [node_of(edge) in dead or canonical(edge) in untaken for edge in node.input]
        left = [number for number, gone in enumerate(missing) if not gone]
        inputs = [node.input[number] for number in left]
        if len(left) == len(node.input):
            continue
        if len(left) > 1:  # which stays, and is refused later
            attrs = {"T": node.attr["T"], "N": AttrValue(i=len(left))}
            graph = graph.edit(put=[make_node(node.name, node.op, inputs, **attrs)])
            continue
        index = make_const(graph.free_name(f"{node.name}/value_index"), np.array(left[0], np.int32))
        graph = graph.edit(redirect={f"{node.name}:1": index.name}, put=[index])
        graph = graph.edit(put=[make_node(node.name, "Identity", inputs, T=node.attr["T"])])
    return graph


def _known_values(graph: Graph, tensors: Iterable[str]) -> dict[str, Array]:
    """The values of those tensors that depend on constants alone."""
    parts = {tensor: _known_part(graph, tensor) for tensor in dict.fromkeys(tensors)}
    known = [tensor for tensor, part in parts.items() if part is not None]
    if not known:
        return {}
    nodes = {name: node for part in parts.values() if part is not None for name, node in part.items()}
    folded = fold_constants(Graph(MappingProxyType(nodes), (), tuple(map(canonical, known))))
    values = {tensor: folded.constant(tensor) for tensor in known}
    return {tensor: value for tensor, value in values.items() if value is not None}


def _known_part(graph: Graph, tensor: str) -> dict[str, Any] | None:
    """The nodes that make a tensor; None where they are not all pure functions of constants."""
    found: dict[str, Any] = {}
    stack = [node_of(tensor)]
    while stack:
        node = graph.nodes[stack.pop()]
        if node.name in found:
            continue
        if node.op == "Enter":  # which takes a value into a loop as it is
            node = make_node(node.name, "Identity", [node.input[0]], T=node.attr["T"])
        elif node.op == "PlaceholderWithDefault" and input_spec(node).is_single_value:
            node = make_node(node.name, "Identity", [node.input[0]], T=node.attr["dtype"])
        elif node.op != "Const" and not is_pure(node):
            return None
        found[node.name] = node
        stack += map(node_of, node.input)
    return found
