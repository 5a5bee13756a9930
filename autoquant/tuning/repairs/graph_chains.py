"""Where factors for channels can move between the layers of a TensorFlow graph, and the graph with other constants.

From layer to layer through what READ_THROUGH names. A tensor with several readers ends a chain, even where all of them
are layers; so does an output, and a convolution with groups of input channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.model import known_constant
from autoquant.model.nodes import attr_of, changed_node, channels_first, make_const, sizes
from autoquant.model.operators import node_of
from autoquant.model.sources import Channels, Linear, linear_of, read_once
from autoquant.tuning.repairs.chains import SIX, Chains, Constants, Link, largest_results

LAYERS = frozenset({"Conv2D", "DepthwiseConv2dNative", "MatMul"})
RECTIFIERS = frozenset({"LeakyRelu", "Relu", "Relu6"})


def find_chains(graph: Graph, layers: Mapping[str, Layer]) -> Chains:
    """All links between layers of a normalized graph.

    Relu6 is not homogeneous: min(relu(x), 6) / s is min(relu(x / s), 6) only where x reaches 6 for no input at
    all, or s is 1. Its link has bounds for that, finite where `first` itself reads what a Relu6 made.
    """
    found = [link for layer in layers.values() if layer.op in LAYERS for link in _link_to(graph, layers, layer)]
    names = {name for link in found for name in (link.first, link.second)}
    return Chains(tuple(found), {name: constants_of(graph, layers[name]) for name in layers if name in names})


def with_constants(graph: Graph, layers: Mapping[str, Layer], changed: Mapping[str, Constants]) -> Graph:
    """The graph with other constants of layers, float32; all that has a name keeps it."""
    return graph.edit(put=[node for name, own in changed.items() for node in _nodes(graph, layers[name], own)])


def constants_of(graph: Graph, layer: Layer) -> Constants:
    """The weight and the bias of a layer."""
    weight = known_constant(graph, layer.weight)
    bias = graph.constant(graph.nodes[layer.bias].input[1]) if layer.bias else None
    return Constants(weight, bias, layer.op == "DepthwiseConv2dNative")


def _nodes(graph: Graph, layer: Layer, own: Constants) -> Iterator[Any]:
    assert layer.weight is not None, layer.name
    yield make_const(layer.weight, np.asarray(own.weight, np.float32))
    if layer.bias is not None and own.bias is not None:
        adding = graph.nodes[layer.bias]
        value = np.asarray(own.bias, np.float32)
        if graph.single_consumer(node_of(adding.input[1])) is not None:
            yield make_const(node_of(adding.input[1]), value)
            return
        own_bias = graph.free_name(f"{layer.bias}/bias")  # others read its constant too
        yield from (make_const(own_bias, value), changed_node(adding, inputs=[adding.input[0], own_bias]))


def _link_to(graph: Graph, layers: Mapping[str, Layer], layer: Layer) -> Iterator[Link]:
    """The link that ends with a layer, if there is one."""
    passed = list(_before(graph, layer.activations[0]))
    source = linear_of(graph, passed.pop()) if passed else None
    first = None if source is None else layers.get(source.op.name)
    if source is None or first is None or first.op not in LAYERS or layer.weight is None:
        return
    channels: Channels | None = source.channels
    for node in reversed(passed):
        channels = READ_THROUGH[node.op](graph, node, channels) if channels is not None else None
    inputs = layer.weight_shape[layer.operator.input_axis]
    axis = -3 if channels_first(graph.nodes[layer.name]) else -1
    if channels is None or channels.axis != axis or inputs % channels.count or layer.groups > 1:
        return
    yield Link(
        first.name,
        layer.name,
        channels.count,
        tensor=first.bias or first.name,
        axis=first.data_axis,
        shifts=_shifts(graph, first, layer, passed, source),
        rectified=any(node.op in RECTIFIERS for node in passed),
        tops=_tops(graph, first) if any(node.op == "Relu6" for node in passed) else None,
    )


def _before(graph: Graph, tensor: str) -> Iterator[Any]:
    """The nodes before a layer that factors pass, nearest first, and the last of the layer that they come to; or none.

    What only one node reads, and nothing else but that.
    """
    nodes = []
    while ":" not in tensor and read_once(graph, tensor):
        node = graph.nodes[tensor]
        nodes.append(node)
        if linear_of(graph, node) is not None:
            yield from nodes
            return
        if node.op not in READ_THROUGH:
            return
        tensor = node.input[0]


def _shifts(graph: Graph, first: Layer, second: Layer, passed: list[Any], source: Linear) -> bool:
    """Whether constants that are subtracted in `first` can be taken up by `second`: both have a bias, no zeros join."""
    if source.bias is None or second.bias is None or any(node.op in ("Pad", "PadV2") for node in passed):
        return False
    if any(attr_of(node, "padding").s == b"EXPLICIT" for node in passed):
        return False
    padding = attr_of(graph.nodes[second.name], "padding").s
    return second.op == "MatMul" or padding == b"VALID" or (padding == b"SAME" and second.weight_shape[:2] == (1, 1))


def _tops(graph: Graph, first: Layer) -> Any:
    tensor = first.activations[0]
    while (node := graph.nodes[node_of(tensor)]).op in READ_THROUGH and node.op not in ("LeakyRelu", "PadV2", "Relu6"):
        tensor = node.input[0]
    return largest_results(constants_of(graph, first), SIX if node.op == "Relu6" else np.inf)


def _same(graph: Graph, node: Any, channels: Channels) -> Channels:
    return channels


def _pooled(graph: Graph, node: Any, channels: Channels) -> Channels | None:
    """The same where the windows are of height and width alone."""
    axis = 1 if channels_first(node) else 3
    plain = (
        all(attr_of(node, name).list.i[axis] == 1 for name in ("ksize", "strides")) and len(sizes(node, "ksize")) == 2
    )
    return channels if plain and channels.lie_on(axis) else None


def _padded(graph: Graph, node: Any, channels: Channels) -> Channels | None:
    """The same where zeros are put beside height and width."""
    widths = graph.constant(node.input[1])
    filled = graph.constant(node.input[2]) if node.op == "PadV2" else None
    if widths is None or len(widths) != channels.rank or widths[channels.axis].any():
        return None
    return channels if node.op == "Pad" or (filled is not None and not filled.any()) else None


def _mean(graph: Graph, node: Any, channels: Channels) -> Channels | None:
    axes = graph.constant(node.input[1])
    if axes is None or channels.rank is None or {int(a) % channels.rank for a in axes.reshape(-1)} & {_place(channels)}:
        return None
    return channels if attr_of(node, "keep_dims").b else _without(channels, axes.reshape(-1).tolist())


def _squeezed(graph: Graph, node: Any, channels: Channels) -> Channels | None:
    axes = list(attr_of(node, "squeeze_dims").list.i)
    return _without(channels, axes) if axes and channels.rank is not None else None


def _without(channels: Channels, axes: list[int]) -> Channels | None:
    """Where the channels are when axes, of which theirs is none, are gone."""
    rank, place = channels.rank or 0, _place(channels)
    gone = {axis % rank for axis in axes}
    if place in gone:
        return None
    return replace(channels, axis=channels.axis + sum(axis > place for axis in gone), rank=rank - len(gone))


def _place(channels: Channels) -> int:
    """The axis of the channels, from the front."""
    return channels.axis + (channels.rank or 0)


def _reshaped(graph: Graph, node: Any, channels: Channels) -> Channels | None:
    """Channels that came last come round again and again in what is last now; whoever reads it knows how often."""
    return replace(channels, rank=None) if channels.axis == -1 else None


READ_THROUGH: Mapping[str, Callable[[Graph, Any, Channels], Channels | None]] = MappingProxyType(
    {
        "AvgPool": _pooled,
        "LeakyRelu": _same,
        "MaxPool": _pooled,
        "Mean": _mean,
        "Pad": _padded,
        "PadV2": _padded,
        "Relu": _same,
        "Relu6": _same,
        "Reshape": _reshaped,
        "Squeeze": _squeezed,
    }
)
"""Operator -> where its result has the channels of its data, given where that has them; None where they mix.

All but Relu6 make f * y of f * x for every f > 0 of a channel.
"""
