"""Loops of TensorFlow 1 as While operators: such a graph has no cycles, and what is in a loop is in functions.

                    .--> condition --> LoopCond -----.
                    |                                v
    value --> Enter --> Merge ------------------> Switch --false--> Exit --> readers
                          ^                          '--true--> body --> NextIteration --.
                          '--------------------------------------------------------------'

An Enter without a Merge is a value that no iteration changes. Each Exit becomes an Identity of its name. As
TensorFlow's gradient of a While expects, two numbers come before the values: of iterations, and of the most, or -1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.model.graph import FunctionDefLibrary, Graph
from autoquant.model.model import Shape
from autoquant.model.nodes import INT32, AttrValue, attr_of, changed_node, function_of, make_const, make_node
from autoquant.model.operators import node_of
from autoquant.model.shapes import import_graph, import_shapes, make_placeholder, shape_value, static_shape, tensor_of

CONTROL_FLOW = frozenset(
    {"Enter", "Exit", "LoopCond", "Merge", "NextIteration", "RefEnter", "RefExit", "RefMerge", "RefNextIteration"}
    | {"RefSwitch", "Switch"}
)
"""Operators of TensorFlow 1 that loops and conditions are made of; their results may be dead."""
LOOPS = frozenset({"StatelessWhile", "While"})
"""Operators that run a function again and again."""
NUMBERS = ("iterations", "most_iterations")
UNREAD = "Snapshot"
"""What an Exit or Switch that nothing reads becomes, so that it is an output only where it is asked for."""


def with_functional_loops(graph: Graph) -> Graph:
    """The graph with a While in place of every loop of TensorFlow 1, inner loops first.

    A loop that is not as `tf.while_loop` makes it, or has a condition of TensorFlow 1 in it, stays as it is.
    """
    while True:
        ready = [loop for loop in _find_loops(graph) if loop.is_simple(graph)]
        if not ready:
            return graph
        # Where the values come from is known to the end of the graph, their shapes are too.
        graph = _replaced(graph, next((loop for loop in ready if loop.is_first(graph)), ready[0]))


@dataclass(frozen=True, slots=True)
class Loop:
    """The values of a loop, those that change before those that do not, by their Enter.

    `following` are what the first are in the next iteration; `given` says which value each tensor is that the functions
    of the loop read; `predicate` tells whether there is another iteration.
    """

    name: str
    enters: tuple[Any, ...]
    following: tuple[str, ...]
    given: Mapping[str, int]
    predicate: str

    def is_simple(self, graph: Graph) -> bool:
        """Whether no other control flow of TensorFlow 1 is in it, and nothing but its values leaves it."""
        if None in _nodes(graph, self)[1].values():
            return False
        return _part(graph, (self.predicate, *self.following), self.given) is not None

    def is_first(self, graph: Graph) -> bool:
        """Whether no such control flow is before it."""
        return _part(graph, [enter.input[0] for enter in self.enters], {}) is not None


def _find_loops(graph: Graph) -> list[Loop]:
    """The loops in which each value has what it needs."""
    frames: dict[bytes, list[Any]] = {}
    for node in graph.nodes.values():
        if node.op == "Enter":
            frames.setdefault(node.attr["frame_name"].s, []).append(node)
    loops = (_loop(graph, name.decode(errors="replace"), enters) for name, enters in frames.items())
    return [loop for loop in loops if loop is not None]


def _loop(graph: Graph, name: str, enters: Sequence[Any]) -> Loop | None:
    merged = [(enter, merge) for enter in enters for merge in _readers(graph, enter.name, "Merge")]
    changing = {enter.name: enter for enter, _ in merged}
    constant = [enter for enter in enters if enter.name not in changing]
    following = [_following(graph, merge) for _, merge in merged]
    switches = [(number, switch) for number, (_, merge) in enumerate(merged) for switch in _switches(graph, merge)]
    predicates = [graph.nodes[name] for name in {node_of(switch.input[1]) for _, switch in switches}]
    if None in following or len(predicates) != 1 or predicates[0].op != "LoopCond":
        return None
    given = {merge.name: number for number, (_, merge) in enumerate(merged)}
    given |= {f"{switch.name}:1": number for number, switch in switches}
    given |= {enter.name: number for number, enter in enumerate(constant, start=len(merged))}
    known = tuple(tensor for tensor in following if tensor is not None)
    return Loop(name, (*changing.values(), *constant), known, MappingProxyType(given), predicates[0].input[0])


def _readers(graph: Graph, name: str, op: str) -> list[Any]:
    return [graph.nodes[reader] for reader in graph.consumers[name] if graph.nodes[reader].op == op]


def _following(graph: Graph, merge: Any) -> str | None:
    """What a Merge gives in the next iteration."""
    sources = (graph.nodes[node_of(edge)] for edge in merge.input)
    return next((str(source.input[0]) for source in sources if source.op == "NextIteration"), None)


def _switches(graph: Graph, merge: Any) -> list[Any]:
    return [switch for switch in _readers(graph, merge.name, "Switch") if switch.input[0] == merge.name]


def _part(graph: Graph, tensors: Sequence[str], given: Mapping[str, int]) -> dict[str, Any] | None:
    """The nodes that make tensors from those given; None where control flow of TensorFlow 1 is among them."""
    found: dict[str, Any] = {}
    stack = [tensor for tensor in tensors if tensor not in given]
    while stack:
        node = graph.nodes[node_of(stack.pop())]
        if node.op in CONTROL_FLOW:
            return None
        if node.name not in found:
            found[node.name] = node
            stack += [edge for edge in node.input if edge not in given]
    return found


def _replaced(graph: Graph, loop: Loop) -> Graph:
    """The graph with a While for the loop."""
    inside, exits = _nodes(graph, loop)
    name = graph.free_name(loop.name)
    function = name.replace("/", "_")
    body, shapes = _body(graph, loop, f"{function}_body")
    condition = _Function(graph, loop, shapes, (loop.predicate,)).definition(f"{function}_cond")
    numbers = [make_const(graph.free_name(f"{name}/{NUMBERS[n]}"), np.array(-n, np.int32)) for n in range(2)]
    loop_node = make_node(
        name,
        "While",
        [*(number.name for number in numbers), *(enter.input[0] for enter in loop.enters)],
        T=AttrValue(list=AttrValue.ListValue(type=[INT32, INT32, *(enter.attr["T"].type for enter in loop.enters)])),
        output_shapes=AttrValue(list=AttrValue.ListValue(shape=[shape_value(s).shape for s in ((), (), *shapes)])),
        cond=function_of(condition.signature.name),
        body=function_of(body.signature.name),
        parallel_iterations=attr_of(loop.enters[0], "parallel_iterations").i or 10,
    )
    ends = []
    for end, number in exits.items():
        op = "Identity" if graph.consumers[end] or end in graph.output_nodes else UNREAD
        assert number is not None, end
        ends.append(make_node(end, op, [f"{name}:{number + len(NUMBERS)}"], T=graph.nodes[end].attr["T"]))
    library = FunctionDefLibrary()
    if graph.library is not None:
        library.CopyFrom(graph.library)
    library.function.extend([condition, body])
    edited = graph.edit(drop=sorted(inside), put=[*numbers, loop_node, *ends])
    return Graph(edited.nodes, graph.inputs, graph.outputs, library)


def _nodes(graph: Graph, loop: Loop) -> tuple[set[str], dict[str, int | None]]:
    """All nodes between the Enters and the Exits of a loop; the Exits, each with the number of its value."""
    inside: set[str] = set()
    exits: dict[str, int | None] = {}
    stack = [enter.name for enter in loop.enters]
    while stack:
        name = stack.pop()
        node = graph.nodes[name]
        if node.op == "Exit":
            switch = graph.nodes[node_of(node.input[0])]
            exits[name] = loop.given.get(switch.input[0]) if switch.op == "Switch" else None
        elif name not in inside:
            inside.add(name)
            stack += graph.consumers[name]
    return inside, exits


def _body(graph: Graph, loop: Loop, name: str) -> tuple[Any, list[Shape | None]]:
    """The function of one iteration, and the shapes of the values: what stays the same in all iterations."""
    shapes = _entering(graph, loop)
    unchanged = [enter.name for enter in loop.enters[len(loop.following) :]]
    while True:
        function = _Function(graph, loop, shapes, (*loop.following, *unchanged))
        joined = [_joined(was, now) for was, now in zip(shapes, function.shapes, strict=True)]
        if joined == shapes:
            return function.definition(name, iteration=True), shapes
        shapes = joined


def _entering(graph: Graph, loop: Loop) -> list[Shape | None]:
    """The shapes with which values enter the loop, as far as TensorFlow knows them."""
    if not loop.is_first(graph):
        return [None for _ in loop.enters]
    tensors = tuple(enter.input[0] for enter in loop.enters)
    before = import_shapes(replace(graph, inputs=(), outputs=tensors).pruned())
    return [static_shape(tensor_of(before, tensor)) for tensor in tensors]


def _joined(one: Shape | None, other: Shape | None) -> Shape | None:
    if one is None or other is None or len(one) != len(other):
        return None
    return tuple(size if size == now else None for size, now in zip(one, other, strict=True))


class _Function:
    """A part of a graph as a function of the values of a loop, which have these shapes."""

    def __init__(self, graph: Graph, loop: Loop, shapes: Sequence[Shape | None], results: Sequence[str]) -> None:
        part = _part(graph, results, loop.given)
        assert part is not None, loop.name
        names = [graph.free_name(f"{loop.name}/value_{number}") for number in range(len(loop.enters))]
        kinds = [enter.attr["T"].type for enter in loop.enters]
        nodes = {one.name: one for one in map(make_placeholder, names, kinds, shapes)}
        instead = {tensor: names[number] for tensor, number in loop.given.items()}
        for node in part.values():
            nodes[node.name] = changed_node(node, inputs=[instead.get(edge, edge) for edge in node.input])
        tensors = [instead.get(tensor, tensor) for tensor in results]
        self._graph = import_graph(Graph(MappingProxyType(nodes), (), tuple(tensors), graph.library))
        self._values = [tensor_of(self._graph, name) for name in names]
        self._results = [tensor_of(self._graph, tensor) for tensor in tensors]

    @property
    def shapes(self) -> list[Shape | None]:
        """Those of the results."""
        return [static_shape(result) for result in self._results]

    def definition(self, name: str, *, iteration: bool = False) -> Any:
        """The FunctionDef, which takes both numbers too; that of an `iteration` gives them, the first raised by 1."""
        import tensorflow as tf
        from tensorflow.python.framework.graph_to_function_def import graph_to_function_def

        with self._graph.as_default():
            numbers = [tf.compat.v1.placeholder(tf.int32, (), name=number) for number in NUMBERS]
            results = [numbers[0] + 1, numbers[1], *self._results] if iteration else self._results
        operators = self._graph.get_operations()
        found = graph_to_function_def(self._graph, operators, [*numbers, *self._values], results)
        found.signature.name = name
        return found
