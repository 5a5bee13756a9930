"""Fusion: a per-channel multiplication or addition becomes part of what makes its data.

What AMCT fuses before it quantizes, and what does it here:

| AMCT                                               | here                                                           |
|----------------------------------------------------|----------------------------------------------------------------|
| 1 Conv + BN, also with BatchToSpace in between     | FusedBatchNorm* into Linear, by the carriers BatchToSpace*     |
| 2 Depthwise + BN                                   | FusedBatchNorm* into Linear                                    |
| 3 operator (+ BiasAdd) + Mul of a scalar           | Mul, also per channel, and RealDiv into Linear                 |
| 4 group convolution + BN                           | FusedBatchNorm* into each Linear, by the carrier Concat*       |
| 5 Relu6 + AscendQuant                              | not in the float graph, but by the target that knows the scale |
| 6 operator + Add becomes BiasAdd                   | Add, AddV2, Sub into Linear, which has its shift in a BiasAdd  |
| 7 MatMul + BN between two Reshapes                 | FusedBatchNorm* into Linear, by the carrier Reshape            |
| 8 BN of small operators                            | Mul, Add, Sub, RealDiv into Linear, one after the other        |
| 9 BN + Mul, BN + Add                               | Mul, RealDiv, Add, Sub into BatchNorm                          |

Linear and BatchNorm are in sources.py, the carriers in carriers.py. A node keeps its name only if it computes what it
did: what is left of an operator and a batch norm is the operator and a BiasAdd of the batch norm's name. The operator
alone keeps its name with another weight, because layers are called after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.carriers import carried, source_of
from autoquant.model.graph import Graph
from autoquant.model.model import Fusion
from autoquant.model.operators import canonical, node_of
from autoquant.model.shapes import static_shape, traced_tensor
from autoquant.model.sources import BATCH_NORMS, Channels, Linear, channel_axis


@dataclass(frozen=True, slots=True)
class PerChannel:
    """What a node does to tensor `data`: data * scale + shift; None stands for 1 and 0.

    Scale and shift are vectors over `axis` of the data, or, where that is None, broadcast with it as NumPy does.
    """

    data: str
    scale: Array | None = None
    shift: Array | None = None
    axis: int | None = None


def fold_affine(graph: Graph, node: Any, fusion: Fusion) -> Graph | None:
    """Fold a node that READERS knows into what makes its data; None where that cannot, or may not, take it up."""
    for affine in READERS[node.op](graph, node):
        source = source_of(graph, affine.data)
        if source is None or (isinstance(source, Linear) and source.bias is None and node.op == "BiasAdd"):
            continue
        if fusion.skip and not fusion.allows(node.name, *_chain(graph, affine.data)):
            continue
        channels = _ranked(graph, affine, source.channels)
        scale = _vector(affine.scale, affine.axis, channels, 1.0)
        shift = _vector(affine.shift, affine.axis, channels, 0.0)
        change = None if scale is None or shift is None else source.fold(graph, scale, shift, node.name)
        if change is not None:
            return change.applied(graph)
    return None


def _chain(graph: Graph, tensor: str) -> Iterator[str]:
    """The nodes that lead to this tensor, back to those that are neither folded nor carriers."""
    node = graph.nodes[node_of(tensor)]
    yield node.name
    before = [node.input[index] for index in carried(node)]
    if node.op in READERS:
        before = [affine.data for affine in READERS[node.op](graph, node)]
    for edge in before:
        yield from _chain(graph, edge)


def _ranked(graph: Graph, affine: PerChannel, channels: Channels) -> Channels:
    """The channels with the rank that TensorFlow tells, where a constant has so many axes that it matters."""
    values = [value for value in (affine.scale, affine.shift) if value is not None]
    if channels.rank or not any(v.ndim > channels.least_rank and v.size in (1, channels.count) for v in values):
        return channels
    shape = static_shape(traced_tensor(graph, affine.data))
    return channels if shape is None else replace(channels, rank=len(shape))


def _vector(value: Array | None, axis: int | None, channels: Channels, default: float) -> Array | None:
    """A scale or shift as a float64 vector over the channels, or None where it is not one value for each of them."""
    if value is None:
        return np.full(channels.count, default)
    if axis is None and value.ndim > channels.least_rank:
        return None
    if value.size == 1:
        return np.full(channels.count, value.astype(np.float64).reshape(()))
    if axis is None:
        fits = value.ndim >= -channels.axis and value.shape[channels.axis] == channels.count
    else:
        fits = channels.lie_on(axis)
    return value.astype(np.float64).reshape(-1) if fits and value.size == channels.count else None


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
    return [] if value is None else [PerChannel(node.input[0], shift=value, axis=channel_axis(node))]


def _batch_norm(graph: Graph, node: Any) -> list[PerChannel]:
    """Of one in inference mode: `normalize` refuses others."""
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
    return [PerChannel(node.input[0], scale, shift, channel_axis(node))]


READERS: Mapping[str, Callable[[Graph, Any], list[PerChannel]]] = MappingProxyType(
    {"Add": _add, "AddV2": _add, "BiasAdd": _bias_add, "Mul": _mul, "RealDiv": _div, "Sub": _sub}
    | dict.fromkeys(BATCH_NORMS, _batch_norm)
)
"""Operator -> the ways to read it as an affine map of a tensor."""
