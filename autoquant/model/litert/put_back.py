"""Puts the weights of a graph in place of the numbers that stood in for them while the converter had it.

The layout of a weight follows from the operator that has it: no rule of the converter moves the values of one by what
is around it, unless it were a transposition; where a rule computes with a weight, its number is gone. Large constants
of one number are filled by an operator, as the converter is asked to, which keeps them out of its file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer, stand_ins
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.numbered_names import without_numbers
from autoquant.model.litert.stand_ins import MADE_OF, StandIns, Weight
from autoquant.model.nodes import const_shape

PERMUTES: Mapping[str, str] = MappingProxyType({"Transpose": "TRANSPOSE", "ReverseV2": "REVERSE_V2"})
"""Operators that could be within a weight, where the converter leaves none of them, and what it makes of them."""


def put_back(model: Any, given: StandIns) -> bool:
    """Put the weights in place of their numbers, in what the converter made (ModelT), in place.

    Returns whether that was certain, and the model what would have been made of the graph with its weights; else the
    objects are of no use. Names of tensors are those that they would have then.
    """
    if len(model.subgraphs) != 1 or not _leaves_transpositions(model, given.graph):
        return False
    graph = model.subgraphs[0]
    fills = {int(op.outputs[0]): op for op in graph.operators if _is_constant_fill(model, op)}
    found = dict(_found(model, fills, given.weights))
    readers = _readers(graph, found)
    if not given.weights.keys() >= {*found.values()} or readers.keys() != found.keys():
        return False
    counts = Counter[float]()
    for index, reading in readers.items():
        weight = given.weights[found[index]]
        counts[found[index]] += len(reading)
        if not all(_fits(model, weight, op, place, graph.tensors[index]) for op, place in reading):
            return False
        if len({_layout(model, op) for op, _ in reading}) > 1:
            return False
    if any(not 1 <= counts[number] <= weight.readers for number, weight in given.weights.items()):
        return False
    for index, number in found.items():
        op, _ = readers[index][0]
        weight = given.weights[number]
        layout = partial(weight.laid_out, flatbuffer.op_name(model, op), op)
        at = int(fills[index].inputs[1]) if index in fills else index
        graph.tensors[index].buffer = graph.tensors[at].buffer  # that of the number, which nothing else has
        model.buffers[graph.tensors[index].buffer] = flatbuffer.LaidOut(layout, 4 * prod(const_shape(weight.node)))
    return _without_fills(model, given.graph, fills)


def _leaves_transpositions(model: Any, graph: Graph) -> bool:
    """Whether no operator that permutes values has gone, which could be within a weight; some are made of others."""
    wanted = Counter(PERMUTES[node.op] for node in graph.nodes.values() if _permutes(graph, node))
    return wanted <= Counter(flatbuffer.op_name(model, op) for op in model.subgraphs[0].operators)


def _permutes(graph: Graph, node: Any) -> bool:
    if node.op not in PERMUTES:
        return False
    axes = graph.constant(node.input[1]) if node.op == "Transpose" else None
    return axes is None or axes.tolist() != [*range(axes.size)]


def _is_constant_fill(model: Any, op: Any) -> bool:
    """Whether an operator makes a constant of a large one that is a number throughout, as the converter was told to."""
    if flatbuffer.op_name(model, op) != "FILL":
        return False
    return all(_value(model, index) is not None for index in op.inputs)


def _value(model: Any, index: int) -> Array | None:
    return flatbuffer.value_of(model, model.subgraphs[0].tensors[index])


def _found(model: Any, fills: Mapping[int, Any], numbers: Collection[float]) -> Iterator[tuple[int, float]]:
    """The tensors that are a number throughout, and that: all that are filled, and what is one of the numbers."""
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        value = _value(model, int(fills[index].inputs[1]) if index in fills else index)
        if index in fills:
            yield index, float(np.asarray(value).item())
        elif tensor.type == schema.TensorType.FLOAT32 and value is not None and value.nbytes >= stand_ins.LEAST:
            number = float(value.flat[0])
            if number in numbers and (value == number).all():
                yield index, number


def _readers(graph: Any, tensors: Mapping[int, float]) -> Mapping[int, list[tuple[Any, int]]]:
    """The operators that read tensors, and as which of their inputs; an output of the graph is read as none."""
    found: defaultdict[int, list[tuple[Any, int]]] = defaultdict(list)
    for op in graph.operators:
        for place, index in enumerate(map(int, op.inputs)):
            if index in tensors:
                found[index].append((op, place))
    return {index: reading for index, reading in found.items() if index not in map(int, graph.outputs)}


def _fits(model: Any, weight: Weight, op: Any, place: int, tensor: Any) -> bool:
    """Whether an operator has its weight at this place, and in the shape that the weight has there."""
    kind = flatbuffer.op_name(model, op)
    known = MADE_OF[weight.op].get(kind) == place
    return known and weight.laid_out(kind, op).shape == tuple(tensor.shape)


def _layout(model: Any, op: Any) -> tuple[str, bool]:
    """What tells the layout of an operator's weight."""
    return flatbuffer.op_name(model, op), bool(getattr(op.builtinOptions, "adjY", False))


def _without_fills(model: Any, converted: Graph, fills: Mapping[int, Any]) -> bool:
    """Take out the operators that fill, their codes, and the numbers that they gave to other names."""
    graph = model.subgraphs[0]
    if not fills:
        return True
    graph.operators = [op for op in graph.operators if int(op.outputs[0]) not in fills]
    added = [int(index) for op in fills.values() for index in op.inputs]
    if len({*added}) < len(added) or _readers(graph, dict.fromkeys(added, 0.0)):
        return False
    for index in added:
        graph.tensors[index].buffer = 0
    _number_buffers(model)
    codes = {op.opcodeIndex: None for op in graph.operators}  # in the order in which they are first used
    model.operatorCodes = [model.operatorCodes[code] for code in codes]
    place = {old: new for new, old in enumerate(codes)}
    for op in graph.operators:
        op.opcodeIndex = place[op.opcodeIndex]
    names = [flatbuffer.tensor_name(tensor) for tensor in graph.tensors]
    triples = [(*map(int, op.inputs), index) for index, op in fills.items()]
    first = {*map(int, graph.inputs), *map(int, graph.outputs)}
    changed = without_numbers(names, triples, first, converted.nodes)
    for index, name in (changed or {}).items():
        graph.tensors[index].name = name.encode()
    return changed is not None


def _number_buffers(model: Any) -> None:
    """Let buffers be in the order of the tensors that have them, as the converter numbers them."""
    holders = (*model.subgraphs[0].tensors, *(model.metadata or ()))
    order = dict.fromkeys((0, *(int(holder.buffer) for holder in holders)))
    place = {old: new for new, old in enumerate(order)}
    model.buffers = [model.buffers[number] for number in order]
    for holder in holders:
        holder.buffer = place[int(holder.buffer)]
