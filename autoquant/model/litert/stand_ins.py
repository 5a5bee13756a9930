"""Numbers that stand in for the weights of a graph while the converter has it, which holds constants many times over.

Each large weight is given to it as one number repeated, another one for each, which takes no memory; `put_back` puts
the weights where it left these.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.litert.kinds import laid_out
from autoquant.model.nodes import FLOAT, attr_of, const_shape, is_large, with_number
from autoquant.model.operators import OPERATORS, node_of

LEAST = 1 << 14
"""Bytes of a weight that a number stands in for; it is the smaller ones that take the converter's time."""
MADE_OF: Mapping[str, Mapping[str, int]] = MappingProxyType(
    {
        "BatchMatMul": {"BATCH_MATMUL": 1, "FULLY_CONNECTED": 1},
        "BatchMatMulV2": {"BATCH_MATMUL": 1, "FULLY_CONNECTED": 1},
        "Conv2D": {"CONV_2D": 1},
        "Conv2DBackpropInput": {"TRANSPOSE_CONV": 1},
        "DepthwiseConv2dNative": {"DEPTHWISE_CONV_2D": 1},
        "GatherV2": {"EMBEDDING_LOOKUP": 1, "GATHER": 0},
        "MatMul": {"BATCH_MATMUL": 1, "FULLY_CONNECTED": 1},
    }
)
"""Operator of TensorFlow whose weight a number stands in for -> what is made of it, and where that has the weight."""


@dataclass(frozen=True)
class Weight:
    """A constant of a graph, the operator of TensorFlow that reads it, and how many operators read one like it."""

    node: Any
    op: str
    readers: int

    def laid_out(self, kind: str, op: Any) -> Array:
        """Its values in the layout of an operator (OperatorT) of a kind that is made of the other, a view."""
        tensor = self.node.attr["value"].tensor
        value = np.frombuffer(tensor.tensor_content, np.float32).reshape(const_shape(self.node))
        if self.op == "GatherV2":
            return value
        return laid_out(value, kind, transposed=kind == "BATCH_MATMUL" and op.builtinOptions.adjY)


@dataclass(frozen=True)
class StandIns:
    """A graph with numbers in place of its large weights, and the weight that each stands for."""

    graph: Graph
    weights: Mapping[float, Weight]


def with_stand_ins(graph: Graph) -> StandIns:
    """Put numbers in place of the large weights of operators; equal weights have the same one.

    The converter joins equal constants, and operators that read them, and shall do so as ever. It takes what is one
    number throughout for what it is not otherwise, so a weight that is such stays. What no output needs is left out.
    """
    graph = graph.pruned()
    found = dict(_weights(graph))
    numbers = _numbers(graph, found)
    weights: dict[float, Weight] = {}
    alike: defaultdict[tuple[Any, ...], list[tuple[Any, float]]] = defaultdict(list)
    put = []
    for name, op in found.items():
        node = graph.nodes[name]
        content = node.attr["value"].tensor.tensor_content
        group = alike[const_shape(node), content[:64], content[-64:]]
        same = (number for other, number in group if other.attr["value"].tensor.tensor_content == content)
        number = next(same, None)
        if number is None:
            number = next(numbers)
            group.append((node, number))
        weights[number] = Weight(node, op, weights[number].readers + 1 if number in weights else 1)
        put.append(with_number(node, number))
    return StandIns(graph.edit(put=put), weights)


def _weights(graph: Graph) -> Iterator[tuple[str, str]]:
    """The constants that are the weight of one operator and nothing else, and that operator."""
    for node in graph.nodes.values():
        if node.op not in MADE_OF or attr_of(node, "Tparams" if node.op == "GatherV2" else "T").type != FLOAT:
            continue
        place = 0 if node.op == "GatherV2" else OPERATORS[node.op].weight or 0
        source = graph.nodes[node_of(node.input[place])]
        if graph.single_consumer(source.name) is not None and is_large(source) and _stands_alone(graph, node, source):
            yield source.name, node.op


def _stands_alone(graph: Graph, node: Any, source: Any) -> bool:
    """Whether what becomes of a weight follows from the operator alone."""
    shape = const_shape(source)
    value = np.frombuffer(source.attr["value"].tensor.tensor_content, np.float32)
    # The converter makes the largest number of infinity.
    if value.nbytes < LEAST or (value == value[0]).all() or not np.isfinite(value).all():
        return False
    if node.op == "GatherV2":
        axis = graph.constant(node.input[2])
        return axis is not None and not axis.any() and attr_of(node, "batch_dims").i == 0
    if node.op in ("Conv2D", "DepthwiseConv2dNative"):
        return shape[2] > 1  # what has a single channel, or as many groups, can become either kind
    return len(shape) == (4 if node.op == "Conv2DBackpropInput" else 2)


def _numbers(graph: Graph, weights: Mapping[str, str]) -> Iterator[float]:
    """Numbers that no constant begins with; in [1.5, 2) no factor but 1, the nearest either, leaves one as it is."""
    taken = set[float]()
    for name, node in graph.nodes.items():
        if node.op == "Const" and node.attr["dtype"].type == FLOAT and name not in weights:
            value = graph.constant(name)
            taken.update(() if value is None or not value.size else (float(value.flat[0]),))
    random = np.random.default_rng(0)
    while True:
        number = float(np.float32(random.uniform(1.5, 1.999)))
        if number not in taken:
            taken.add(number)
            yield number
