"""Folding of per-channel multiplications and additions, so of batch norms too, into the operator before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from tensorflow.core.framework import attr_value_pb2, types_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Array, Graph, attr_of, canonical, data_format, make_const, make_node, node_of
from autoquant.model.layers import CHANNEL_AXES


@dataclass(frozen=True, slots=True)
class PerChannel:
    """What a node does to tensor `data`: data * scale + shift, broadcast; None stands for 1 and 0."""

    data: str
    scale: Array | None = None
    shift: Array | None = None


@dataclass(frozen=True, slots=True)
class Linear:
    """An operator with a constant weight, and the BiasAdd that alone reads it, if there is one.

    `weight` as the operator has it, `bias` of shape (channels,) in float64; `rank` is that of the output,
    `channel_axis` which of its axes numbers channels.
    """

    op: Any
    weight: Array
    bias: Array | None
    bias_node: Any | None
    rank: int
    channel_axis: int

    @property
    def per_channel(self) -> tuple[int, ...]:
        """The shape in which a vector over channels broadcasts with the weight."""
        axes = (0,) if attr_of(self.op, "transpose_b").b else CHANNEL_AXES[self.op.op]
        return tuple(size if axis in axes else 1 for axis, size in enumerate(self.weight.shape))

    @property
    def channels(self) -> int:
        """Output channels."""
        return int(np.prod(self.per_channel))


def fold_affine(graph: Graph, node: Any) -> Graph | None:
    """Fold a per-channel Mul, RealDiv, Add, AddV2, Sub, BiasAdd or FusedBatchNorm into the operator before it.

    What is left is the operator and a BiasAdd that has the name of the node. In float64, rounded once to float32.
    """
    for affine in READERS[node.op](graph, node):
        linear = _linear_before(graph, affine.data)
        if linear is None or (node.op == "BiasAdd" and linear.bias_node is None):
            continue
        if data_format(node) != data_format(linear.op) and node.op.startswith(("FusedBatchNorm", "BiasAdd")):
            continue
        scale, shift = _vector(affine.scale, linear, 1.0), _vector(affine.shift, linear, 0.0)
        if scale is not None and shift is not None:
            return _folded(graph, node, linear, scale, shift)
    return None


def _folded(graph: Graph, node: Any, linear: Linear, scale: Array, shift: Array) -> Graph | None:
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (linear.weight.astype(np.float64) * scale.reshape(linear.per_channel)).astype(np.float32)
        old_bias = 0.0 if linear.bias is None else linear.bias
        bias = (old_bias * scale + shift).astype(np.float32)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return None
    old = node_of(linear.op.input[1])
    private = len(graph.consumers[old]) == 1 and old not in graph.output_nodes
    weight_node = make_const(old if private else graph.free_name(f"{linear.op.name}/weight"), weight)
    bias_node = make_const(graph.free_name(f"{node.name}/bias"), bias)
    op = type(linear.op)()
    op.CopyFrom(linear.op)
    op.input[1] = weight_node.name
    added = make_node(
        node.name,
        "BiasAdd",
        [op.name, bias_node.name],
        T=attr_value_pb2.AttrValue(type=types_pb2.DT_FLOAT),
        data_format=data_format(op),
    )
    gone = [] if linear.bias_node is None else [linear.bias_node.name]
    return graph.edit(put=[weight_node, bias_node, op, added], drop=gone)


def _linear_before(graph: Graph, tensor: str) -> Linear | None:
    """The operator that makes the tensor, directly or through a BiasAdd, when nothing else reads what is between."""
    made_by = graph.nodes[node_of(tensor)]
    if ":" in tensor or graph.single_consumer(made_by.name) is None:
        return None
    bias_node, bias = None, None
    if made_by.op == "BiasAdd":
        bias_node, bias = made_by, graph.constant(made_by.input[1])
        made_by = graph.nodes[node_of(made_by.input[0])]
        if bias is None or graph.single_consumer(made_by.name) is None:
            return None
        if data_format(bias_node) != data_format(made_by):
            return None
    if made_by.op not in CHANNEL_AXES or attr_of(made_by, "T").type != types_pb2.DT_FLOAT:
        return None
    weight = graph.constant(made_by.input[1])
    if weight is None:
        return None
    rank = 2 if made_by.op == "MatMul" else 4
    channel_axis = 1 if data_format(made_by) == b"NCHW" else rank - 1
    return Linear(made_by, weight, None if bias is None else bias.astype(np.float64), bias_node, rank, channel_axis)


def _vector(value: Array | None, linear: Linear, default: float) -> Array | None:
    """The constant as a float64 vector over the channels, or None where it does not broadcast along them alone."""
    channels = linear.channels
    if value is None:
        return np.full(channels, default)
    if value.size == 1 and value.ndim <= linear.rank:
        return np.full(channels, value.astype(np.float64).reshape(()))
    shape = (1,) * (linear.rank - value.ndim) + value.shape
    wanted = tuple(channels if axis == linear.channel_axis else 1 for axis in range(linear.rank))
    return value.astype(np.float64).reshape(channels) if shape == wanted else None


def _either_order(graph: Graph, node: Any) -> list[tuple[str, Array]]:
    """(data, constant) of a commutative operator."""
    first, second = node.input
    pairs = [(first, graph.constant(second)), (second, graph.constant(first))]
    return [(data, value) for data, value in pairs if value is not None]


def _mul(graph: Graph, node: Any) -> list[PerChannel]:
    return [PerChannel(data, scale=value) for data, value in _either_order(graph, node)]


def _add(graph: Graph, node: Any) -> list[PerChannel]:
    return [PerChannel(data, shift=value) for data, value in _either_order(graph, node)]


def _div(graph: Graph, node: Any) -> list[PerChannel]:
    value = graph.constant(node.input[1])
    if value is None:
        return []
    with np.errstate(divide="ignore"):
        return [PerChannel(node.input[0], scale=1.0 / value.astype(np.float64))]


def _sub(graph: Graph, node: Any) -> list[PerChannel]:
    first, second = map(graph.constant, node.input)
    if second is not None:
        return [PerChannel(node.input[0], shift=-second.astype(np.float64))]
    return [] if first is None else [PerChannel(node.input[1], scale=np.array(-1.0), shift=first)]


def _bias_add(graph: Graph, node: Any) -> list[PerChannel]:
    value = graph.constant(node.input[1])
    return [] if value is None else [PerChannel(node.input[0], shift=_along_channels(node, value))]


def _batch_norm(graph: Graph, node: Any) -> list[PerChannel]:
    if "is_training" not in node.attr or node.attr["is_training"].b:  # true is the operator's default
        raise ModelError(
            node.name, "this batch norm is in training mode", hint="export the model in inference mode (training=False)"
        )
    tensors = [graph.constant(edge) for edge in node.input[1:5]]
    others = {canonical(edge) for reader in graph.consumers[node.name] for edge in graph.nodes[reader].input}
    side_outputs = {name for name in others.union(graph.outputs) if node_of(name) == node.name and ":" in name}
    if side_outputs or any(tensor is None for tensor in tensors):
        return []
    gamma, beta, mean, variance = (np.asarray(tensor, np.float64) for tensor in tensors)
    epsilon = node.attr["epsilon"].f if "epsilon" in node.attr else 1e-4
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
        shift = beta - mean * scale
    return [PerChannel(node.input[0], _along_channels(node, scale), _along_channels(node, shift))]


def _along_channels(node: Any, vector: Array) -> Array:
    return vector.reshape(-1, 1, 1) if data_format(node) == b"NCHW" else vector


READERS: Mapping[str, Callable[[Graph, Any], list[PerChannel]]] = MappingProxyType(
    {
        "Add": _add,
        "AddV2": _add,
        "BiasAdd": _bias_add,
        "FusedBatchNorm": _batch_norm,
        "FusedBatchNormV2": _batch_norm,
        "FusedBatchNormV3": _batch_norm,
        "Mul": _mul,
        "RealDiv": _div,
        "Sub": _sub,
    }
)
"""Operator -> the ways to read it as an affine map of a tensor."""
