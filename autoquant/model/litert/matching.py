"""Finds the layers of a TensorFlow graph again among the operators that the converter made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.kinds import KINDS, laid_out, output_axis
from autoquant.model.litert.weight_index import WeightIndex, peakedness
from autoquant.model.nodes import FLOAT, attr_of
from autoquant.model.operators import OPERATORS, node_of

ROUNDING = 1e-5
"""Weights are the same where they differ by no more than this, relative to the largest of their channel."""
JOINED = frozenset({"Identity", "Relu", "Relu6"})
"""Operators that the converter joins with what makes their data."""
GONE = "the converter left no operator for it"
CHANGED = "the converter made a different weight"
MADE_OF: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "AvgPool": frozenset({"AVERAGE_POOL_2D"}),
        "BatchMatMul": frozenset({"BATCH_MATMUL", "FULLY_CONNECTED"}),
        "BatchMatMulV2": frozenset({"BATCH_MATMUL", "FULLY_CONNECTED"}),
        "Conv2D": frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}),
        "Conv2DBackpropInput": frozenset({"TRANSPOSE_CONV"}),
        "Conv3D": frozenset({"CONV_3D"}),
        "DepthwiseConv2dNative": frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"}),
        "MatMul": frozenset({"BATCH_MATMUL", "FULLY_CONNECTED"}),
    }
)
"""Operator of TensorFlow -> what the converter can make of it."""


@dataclass
class Match:
    """Where the layers of a graph are in a .tflite. See LiteGraph for `layers`, `missing` and `ops`."""

    layers: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    ops: dict[str, str] = field(default_factory=dict)


def match(graph: Graph, model: Any) -> Match:
    """Find each operator of the graph that can be a layer; operators of such kinds that are left get their own names.

    A layer is found by its name among those that a result or a weight carries, or else by its weight; in either case
    the weight must be the layer's, up to rounding and a factor for each output channel, which the converter makes of a
    multiplication behind it, or for each input channel, of one before it. One without a weight can also have the name
    of what alone reads it.
    """
    wanted = [node for node in graph.ordered() if _is_layer(node)]
    found = Match(ops={node.name: node.op for node in wanted})
    taken: set[int] = set()
    results = _names(model, lambda op: op.outputs)
    constants = _names(model, lambda op: op.inputs[1:])
    weights = _weight_index(model)
    ways: tuple[Callable[[Any], Iterable[int]], ...] = (
        lambda node: results.get(node.name, ()),
        lambda node: constants.get(node.name, ()),
        lambda node: [index for name in _names_behind(graph, node) for index in results.get(name, ())],
        lambda node: _alike(graph, node, weights),
    )
    for way in ways:
        for node in (node for node in wanted if node.name not in found.layers):
            for index in way(node):
                if index not in taken and _same(graph, node, model, index):
                    found.layers[node.name] = index
                    taken.add(index)
                    break
    _tell_missing(found, model, [node.name for node in wanted], results)
    _name_others(found, graph, model)
    return found


def _is_layer(node: Any) -> bool:
    return node.op in MADE_OF and attr_of(node, "T").type == FLOAT


def parts_of(tensor: Any) -> list[str]:
    """The names of nodes that the converter joined in a tensor's; where several would have one, it numbers them."""
    return flatbuffer.tensor_name(tensor).split(";")


def _names(model: Any, tensors: Callable[[Any], Iterable[int]]) -> dict[str, list[int]]:
    """Name -> the operators of which one of these tensors carries it; behind those, where it carries it numbered."""
    graph = model.subgraphs[0]
    exact: dict[str, list[int]] = {}
    numbered: dict[str, list[int]] = {}
    for index, op in enumerate(graph.operators):
        for part in (part for tensor in tensors(op) if tensor >= 0 for part in parts_of(graph.tensors[tensor])):
            exact.setdefault(part, []).append(index)
            numbered.setdefault(part.rstrip("0123456789"), []).append(index)
    return {name: [*exact.get(name, ()), *numbered.get(name, ())] for name in exact.keys() | numbered.keys()}


def _names_behind(graph: Graph, node: Any) -> Iterator[str]:
    """The nodes that alone read a node, and one another, and that the converter joins with it."""
    reader = node if node.name not in graph.output_nodes else None
    while reader is not None:
        readers = graph.consumers[reader.name]
        reader = graph.nodes[readers[0]] if len(readers) == 1 and reader.name not in graph.output_nodes else None
        if reader is None or reader.op not in JOINED:
            return
        yield reader.name


def _weight(graph: Graph, node: Any) -> Array | None:
    place = OPERATORS[node.op].weight
    return None if place is None else graph.constant(node_of(node.input[place]))


def _same(graph: Graph, node: Any, model: Any, index: int) -> bool:
    """Whether an operator can have come from a node, and has its weight; one that is worked out is not compared."""
    op = model.subgraphs[0].operators[index]
    kind = flatbuffer.op_name(model, op)
    if kind not in MADE_OF[node.op]:
        return False
    weight = _weight(graph, node)
    if weight is None:
        return True
    lite = flatbuffer.value_of(model, model.subgraphs[0].tensors[op.inputs[1]])
    layouts = list(_layouts(weight, kind))
    return lite is not None and any(
        equal_but_for_factors(lite, laid, axis) for axis in _axes(kind, op) for laid in layouts
    )


def _axes(kind: str, op: Any) -> tuple[int, ...]:
    """The axes of an operator's weight for whose indices it may have factors."""
    # A depthwise convolution has its input channels on the same axis.
    return (output_axis(kind, op), KINDS[kind].input_axis) if kind in KINDS else (output_axis(kind, op),)


def _weight_index(model: Any) -> WeightIndex:
    """Operators by kind, by the shape of their weight and each axis for which that may have factors."""
    graph, known = model.subgraphs[0], frozenset(chain(*MADE_OF.values()))

    def entries() -> Iterator[tuple[Any, float, int]]:
        for index, op in enumerate(graph.operators):
            kind = flatbuffer.op_name(model, op)
            place = flatbuffer.input_of(op, 1) if kind in known else None
            weight = None if place is None else flatbuffer.value_of(model, graph.tensors[place])
            if weight is not None:
                for axis in {one % weight.ndim for one in _axes(kind, op)}:
                    yield (kind, weight.shape, axis), peakedness(weight, axis), index

    return WeightIndex.of(entries())


def _alike(graph: Graph, node: Any, weights: WeightIndex) -> Iterator[int]:
    """The operators whose weights may be a node's: those that are where no factor is 0 come first."""
    weight = _weight(graph, node)
    layouts = [] if weight is None else [(kind, one) for kind in MADE_OF[node.op] for one in _layouts(weight, kind)]
    near, others = set[int](), set[int]()
    for kind, laid in layouts:
        for axis, count in enumerate(laid.shape):
            group = kind, laid.shape, axis
            near.update(weights.near(group, peakedness(laid, axis), 4.0 * ROUNDING * count))
            others.update(weights.all(group))
    yield from sorted(near)
    yield from sorted(others - near)


def _layouts(weight: Array, kind: str) -> Iterator[Array]:
    """A weight of TensorFlow in the layouts that an operator of this kind can have it in."""
    yield laid_out(weight, kind)
    if kind == "FULLY_CONNECTED":
        yield weight.reshape(-1, weight.shape[-1])
    elif kind == "BATCH_MATMUL":
        yield laid_out(weight, kind, transposed=True)


def equal_but_for_factors(value: Array, weight: Array, axis: int) -> bool:
    """Whether two arrays are the same up to rounding and a factor for each index of `axis`."""
    if value.shape != weight.shape:
        return False
    if np.array_equal(value, weight):
        return True
    if not np.isfinite(weight).all():
        return np.array_equal(value, weight, equal_nan=True)
    ours = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    theirs = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1).astype(np.float64)
    norms = np.maximum((ours * ours).sum(axis=1), np.finfo(np.float64).tiny)
    factors = (ours * theirs).sum(axis=1) / norms
    bound = ROUNDING * np.maximum(abs(theirs).max(axis=1), abs(factors) * abs(ours).max(axis=1))
    return bool((abs(theirs - factors[:, None] * ours).max(axis=1) <= bound).all())


def _tell_missing(found: Match, model: Any, wanted: Sequence[str], named: Mapping[str, Sequence[int]]) -> None:
    """Say why layers were not found."""
    operators = model.subgraphs[0].operators
    for name in wanted:
        if name in found.layers:
            continue
        if name not in named:
            found.missing[name] = GONE
        else:
            kind = flatbuffer.op_name(model, operators[named[name][0]])
            found.missing[name] = CHANGED if kind in MADE_OF[found.ops[name]] else f"the converter made {kind} of it"


def _name_others(found: Match, graph: Graph, model: Any) -> None:
    """Operators of a layer's kind that come from none of the graph's layers: called as their result is."""
    lite = model.subgraphs[0]
    taken = set(found.layers.values())
    for index, op in enumerate(lite.operators):
        if index in taken or flatbuffer.op_name(model, op) not in KINDS:
            continue
        full = flatbuffer.tensor_name(lite.tensors[op.outputs[0]])
        parts = [name for part in parts_of(lite.tensors[op.outputs[0]]) for name in (part, part.rstrip("0123456789"))]
        known = [name for name in parts if name in graph.nodes and name not in found.ops and name not in found.layers]
        found.layers[known[-1] if known else full] = index
