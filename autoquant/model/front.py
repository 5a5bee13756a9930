"""Cuts a graph where LiteRT can go on: in front of that is text, and what else it has no operators for."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tensorflow.python.framework import op_def_registry

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.model import stated_batch
from autoquant.model.nodes import FLOAT, STRING, AttrValue, make_node
from autoquant.model.operators import OPERATORS, canonical, node_of
from autoquant.model.shapes import (
    for_one_sample,
    import_shapes,
    make_placeholder,
    run_on_zeros,
    stated_shapes,
    static_shape,
    tensor_of,
)

NOT_IN_LITERT = frozenset(
    ("Bincount", "DenseBincount", "LowerBound", "RaggedBincount", "RaggedTensorToTensor", "SparseBincount")
)
"""Operators without text that are found in front of networks and that LiteRT does not have."""
ENDLESS = 1 << 30


@dataclass(frozen=True, slots=True)
class Halves:
    """A graph in two: `front` computes those inputs of `rest` that are not inputs of the whole."""

    front: Graph
    rest: Graph


def cut_front(graph: Graph) -> Halves | None:
    """Cut off what LiteRT cannot run, with all that it depends on; None where there is nothing of that.

    The cut goes through as few tensors as possible, and as far behind as there are no floats, which may be quantized.
    Raises ModelError where an output or a layer is in front of it.
    """
    first = [name for name in _behind(graph, graph.inputs) if _is_unknown_to_litert(graph.nodes[name])]
    if not first:
        return None
    needed = graph.ancestors(*first)
    _check_in_front(graph, needed)
    types = _types(graph)
    front = _grown(graph, needed, {name for name, each in types.items() if FLOAT in each.values()})
    tensors = sorted(_read_behind(graph, front) - set(graph.inputs))
    names = _names(graph, tensors)
    tf_graph = import_shapes(graph)
    ends, begins = [], []
    for tensor, name in names.items():
        dtype = types[node_of(tensor)][tensor]
        ends.append(make_node(name, "Identity", [tensor], T=AttrValue(type=dtype)))
        begins.append(make_placeholder(name, dtype, static_shape(tensor_of(tf_graph, tensor))))
    whole = replace(graph, inputs=(), outputs=tuple(names.values()))
    rest = replace(graph.edit(put=begins).edit(redirect=names), inputs=())
    halves = Halves(_fed(whole.edit(put=ends), graph.inputs), _fed(rest, (*graph.inputs, *names.values())))
    _check_rows(halves.front)
    return halves


def _check_rows(front: Graph) -> None:
    """Raise ModelError where what the front makes has not one row for each sample, as far as empty text tells."""
    one = for_one_sample(front)
    rows = stated_batch(stated_shapes(one))
    for value in run_on_zeros(one, import_shapes(one), one.outputs).values():
        if np.shape(value)[:1] != (rows,):
            what = "is ragged in front of the layers: a sample has any number of rows, which LiteRT cannot take"
            hint = "give it a fixed length (output_sequence_length in Keras), or choose --target tensorflow"
            raise ModelError(", ".join(front.inputs), what, hint=hint)


def _fed(graph: Graph, inputs: Iterable[str]) -> Graph:
    """The graph with those inputs that its outputs need."""
    needed = graph.pruned()
    return replace(needed, inputs=tuple(name for name in inputs if name in needed.nodes))


def _is_unknown_to_litert(node: Any) -> bool:
    """Whether a node has no operator in LiteRT, as it reads or makes text if nothing else."""
    definition = op_def_registry.get(node.op)
    arguments = () if definition is None else (*definition.input_arg, *definition.output_arg)
    types = {argument.type for argument in arguments}.union(
        *((value.type, *value.list.type) for value in node.attr.values())
    )
    return node.op in NOT_IN_LITERT or STRING in types


def _types(graph: Graph) -> dict[str, dict[str, int]]:
    """Type of every tensor that a node reads or makes, by node; numbers of DataType."""
    return {
        operation.name: {
            canonical(tensor.name): tensor.dtype.as_datatype_enum for tensor in (*operation.inputs, *operation.outputs)
        }
        for operation in import_shapes(graph).get_operations()
    }


def _behind(graph: Graph, names: Iterable[str]) -> set[str]:
    """These nodes and those that depend on one of them."""
    found: set[str] = set()
    stack = list(names)
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack.extend(graph.consumers[name])
    return found


def _check_in_front(graph: Graph, needed: Mapping[str, Any]) -> None:
    for output in graph.outputs:
        if node_of(output) in needed:
            what = "is an output of text, or of operators that LiteRT does not have"
            raise ModelError(output, what, hint="leave it out with --outputs, or choose --target tensorflow")
    for name, node in graph.nodes.items():
        if name in needed and node.op in OPERATORS and OPERATORS[node.op].weight is not None:
            what = f"is a layer ({node.op}) in front of text, or of operators that LiteRT does not have"
            raise ModelError(name, what, hint="name outputs in front of those with --outputs")


def _grown(graph: Graph, needed: Collection[str], floats: Collection[str]) -> set[str]:
    """The front: `needed`, and of what else depends on its inputs as much as lets the fewest tensors be cut.

    A node is in front only where all that it reads is; beside `needed` neither `floats` nor outputs are.
    """
    fed = _behind(graph, graph.inputs)
    may = (_behind(graph, set(graph.inputs) & set(needed)) - set(floats) - graph.output_nodes) | (fed & set(needed))
    network = Network()
    for name in fed:
        if name in needed:
            network.pipe(SOURCE, name, ENDLESS)
        elif name not in may:
            network.pipe(name, SINK, ENDLESS)
        for edge in graph.nodes[name].input:
            if node_of(edge) in fed:
                network.pipe(node_of(edge), f"tensor {edge}", 1)
                network.pipe(f"tensor {edge}", name, ENDLESS)
                network.pipe(name, node_of(edge), ENDLESS)
    return fed - network.sink_side()


SOURCE, SINK = "^source", "^sink"
"""No nodes of a graph are called so."""


class Network:
    """Pipes between places, each with room for so much; a minimal cut of them."""

    def __init__(self) -> None:
        self._room: dict[str, dict[str, int]] = {SOURCE: {}, SINK: {}}

    def pipe(self, one: str, other: str, room: int) -> None:
        """Lay a pipe."""
        self._room.setdefault(one, {})[other] = room
        self._room.setdefault(other, {}).setdefault(one, 0)

    def sink_side(self) -> set[str]:
        """The fewest places that a minimal cut leaves with the sink: from which more could flow to it."""
        while path := self._path():
            for one, other in path:
                self._room[one][other] -= 1
                self._room[other][one] += 1
        found, queue = {SINK}, deque([SINK])
        while queue:
            place = queue.popleft()
            for other in self._room[place]:
                if other not in found and self._room[other][place] > 0:
                    found.add(other)
                    queue.append(other)
        return found

    def _path(self) -> list[tuple[str, str]]:
        """Pipes with room from the source to the sink; none where nothing more can flow."""
        came: dict[str, str] = {SOURCE: SOURCE}
        queue = deque([SOURCE])
        while queue and SINK not in came:
            place = queue.popleft()
            for other, room in self._room[place].items():
                if room > 0 and other not in came:
                    came[other] = place
                    queue.append(other)
        path, place = [], SINK
        while place in came and place != SOURCE:
            path.append((came[place], place))
            place = came[place]
        return path


def _read_behind(graph: Graph, front: Collection[str]) -> set[str]:
    """Tensors of the front that other nodes read."""
    others = (node for name, node in graph.nodes.items() if name not in front)
    return {canonical(edge) for node in others for edge in node.input if node_of(edge) in front}


def _names(graph: Graph, tensors: Iterable[str]) -> dict[str, str]:
    """A name for each tensor: after the one input that it is made from, where it is one."""
    names: dict[str, str] = {}
    for tensor in tensors:
        made_from = graph.ancestors(tensor)
        own = [name for name in graph.inputs if name in made_from]
        wanted = f"{own[0] if len(own) == 1 else 'inputs'}_processed"
        taken = {*graph.nodes, *names.values()}
        numbered = (wanted, *(f"{wanted}_{number}" for number in range(1, len(taken) + 2)))
        names[tensor] = next(name for name in numbered if name not in taken)
    return names
