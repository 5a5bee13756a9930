"""Nodes whose own constants can take up a per-channel map of their result: operators with a weight, and batch norms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.nodes import (
    FLOAT,
    AttrValue,
    attr_of,
    changed_node,
    channels_first,
    data_format,
    make_const,
    make_node,
    with_inputs,
)
from autoquant.model.operators import OPERATORS, node_of

BATCH_NORMS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})


@dataclass(frozen=True, slots=True)
class Channels:
    """Where a tensor of `rank` axes has its `count` channels: `axis` counts from the end, -1 is the last.

    A rank of None is one that the nodes at hand do not tell.
    """

    count: int
    axis: int
    rank: int | None

    @property
    def least_rank(self) -> int:
        """The rank, or what it cannot be below."""
        return self.rank or max(2, -self.axis)

    def lie_on(self, axis: int) -> bool:
        """Whether they lie on this axis, counted from the end if it is negative."""
        if axis < 0:
            return axis == self.axis
        return self.rank is not None and axis - self.rank == self.axis


@dataclass(frozen=True, slots=True)
class Change:
    """Nodes to put, and `moved`: node that is gone or scaled -> the node that now makes what readers of its shape read.

    Those readers are the only ones left: a source is read by nothing else.
    """

    put: tuple[Any, ...]
    moved: Mapping[str, str]

    def applied(self, graph: Graph) -> Graph:
        """The graph after the change."""
        stay = {node.name for node in self.put}
        return graph.edit(put=self.put, drop=[name for name in self.moved if name not in stay], redirect=self.moved)


class Source(Protocol):
    """What makes a tensor that one node reads, and can compute a per-channel map of it instead."""

    @property
    def channels(self) -> Channels:
        """Where its result has its channels."""
        ...

    def fold(self, graph: Graph, scale: Array, shift: Array, name: str) -> Change | None:
        """The change after which node `name` makes result * scale + shift, vectors over the channels in float64.

        What it computed before keeps no name. None where a constant would not be finite in float32.
        """
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """An operator with a constant weight, and the BiasAdd that alone reads it, if there is one.

    `weight` as the operator has it, `bias` of shape (channels,).
    """

    op: Any
    weight: Array
    bias: Array | None = None
    bias_node: Any | None = None

    @property
    def per_channel(self) -> tuple[int, ...]:
        """The shape in which a vector over channels broadcasts with the weight."""
        axes = OPERATORS[self.op.op].channel_axes
        return tuple(size if axis in axes else 1 for axis, size in enumerate(self.weight.shape))

    @property
    def channels(self) -> Channels:
        """Output channels."""
        rank = OPERATORS[self.op.op].rank
        axis = 1 - (rank or 0) if channels_first(self.op) else -1
        return Channels(int(np.prod(self.per_channel)), axis, rank)

    def fold(self, graph: Graph, scale: Array, shift: Array, name: str) -> Change | None:
        """The operator with a scaled weight, and a BiasAdd behind it. In float64, rounded once to float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            weight = (self.weight.astype(np.float64) * scale.reshape(self.per_channel)).astype(np.float32)
            bias = ((0.0 if self.bias is None else self.bias.astype(np.float64)) * scale + shift).astype(np.float32)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            return None
        index = OPERATORS[self.op.op].weight or 0
        weight_node = make_const(own_name(graph, self.op, index, "weight"), weight)
        bias_node = make_const(graph.free_name(f"{name}/bias"), bias)
        op = with_inputs(self.op, {index: weight_node.name})
        added = make_node(
            name,
            "BiasAdd",
            [op.name, bias_node.name],
            T=AttrValue(type=FLOAT),
            data_format=b"NCHW" if channels_first(op) else b"NHWC",  # for 5-D data too
        )
        gone = [] if self.bias_node is None else [self.bias_node.name]
        return Change((weight_node, bias_node, op, added), dict.fromkeys([op.name, *gone], name))


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """A FusedBatchNorm in inference mode with a constant gamma and beta, of shape (channels,)."""

    node: Any
    gamma: Array
    beta: Array

    @property
    def channels(self) -> Channels:
        """The axis that it normalizes along."""
        return Channels(self.gamma.size, channel_axis(self.node), len(data_format(self.node)))

    def fold(self, graph: Graph, scale: Array, shift: Array, name: str) -> Change | None:
        """The batch norm with another gamma and beta. In float64, rounded once to float32."""
        with np.errstate(over="ignore", invalid="ignore"):
            gamma = (self.gamma.astype(np.float64) * scale).astype(np.float32)
            beta = (self.beta.astype(np.float64) * scale + shift).astype(np.float32)
        if not (np.isfinite(gamma).all() and np.isfinite(beta).all()):
            return None
        consts = [
            make_const(own_name(graph, self.node, 1, "gamma"), gamma),
            make_const(own_name(graph, self.node, 2, "beta"), beta),
        ]
        node = changed_node(with_inputs(self.node, {1: consts[0].name, 2: consts[1].name}), name=name)
        return Change((*consts, node), {self.node.name: name})


def channel_axis(node: Any) -> int:
    """The axis along which a BiasAdd or FusedBatchNorm has its vectors: -1, or 1 of a BiasAdd with channels first.

    A BiasAdd says NCHW whatever the rank of its data; a batch norm says the rank with it, and counts from the end.
    """
    if not channels_first(node):
        return -1
    return 1 if node.op == "BiasAdd" else 1 - len(data_format(node))


def linear_of(graph: Graph, node: Any) -> Linear | None:
    """The operator and its bias, given the last of them; None where it is not an operator with a constant weight."""
    if node.op != "BiasAdd":
        return _operator(graph, node)
    bias, op = graph.constant(node.input[1]), graph.nodes[node_of(node.input[0])]
    linear = _operator(graph, op)
    if bias is None or linear is None or not read_once(graph, op.name):
        return None
    return Linear(op, linear.weight, bias, node) if linear.channels.lie_on(channel_axis(node)) else None


def batch_norm_of(graph: Graph, node: Any) -> BatchNorm | None:
    """A batch norm whose gamma and beta can be changed."""
    if node.op not in BATCH_NORMS or attr_of(node, "T").type != FLOAT:
        return None
    gamma, beta = (graph.constant(edge) for edge in node.input[1:3])
    return None if gamma is None or beta is None else BatchNorm(node, gamma, beta)


def read_once(graph: Graph, name: str) -> bool:
    """Whether the values of a node, which is no output, are read at one place; readers of its shape do not count."""
    readers = (graph.nodes[reader] for reader in graph.consumers[name])
    edges = [edge for reader in readers if reader.op != "Shape" for edge in reader.input if node_of(edge) == name]
    return len(edges) == 1 and name not in graph.output_nodes


def _operator(graph: Graph, node: Any) -> Linear | None:
    operator = OPERATORS.get(node.op)
    if operator is None or operator.weight is None or attr_of(node, "T").type != FLOAT:
        return None
    weight = graph.constant(node.input[operator.weight])
    if weight is None or (operator.rank is None and weight.ndim != 2):
        return None  # a stack of matrices has channels of its own for each
    return Linear(node, weight)


def own_name(graph: Graph, node: Any, index: int, kind: str) -> str:
    """The name of a constant input that nothing else reads, or a new one."""
    old = node_of(node.input[index])
    return old if graph.single_consumer(old) is not None else graph.free_name(f"{node.name}/{kind}")
