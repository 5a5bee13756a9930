"""Grouped convolutions with a group for each input channel, as depthwise convolutions.

A Conv2D whose weight has fewer input channels than its data has groups of them. With one input channel in each it
computes what a DepthwiseConv2dNative does, which more tools know, and for which TensorFlow has gradients on a CPU.
"""

from __future__ import annotations

from typing import Any

from autoquant.model.graph import Graph
from autoquant.model.nodes import FLOAT, attr_of, changed_node, channels_first, const_shape, make_const, sizes
from autoquant.model.operators import node_of
from autoquant.model.shapes import import_shapes, static_shape, tensor_of
from autoquant.model.sources import own_name


def depthwise_convolutions(graph: Graph) -> Graph:
    """The graph with a DepthwiseConv2dNative, of the same name, for each Conv2D with a group for each input channel."""
    found = [node for node in graph.nodes.values() if _may_be_depthwise(graph, node)]
    if not found:
        return graph
    tf_graph = import_shapes(graph)
    for node in found:
        shape = static_shape(tensor_of(tf_graph, node.input[0]))
        channels = None if shape is None else shape[1 if channels_first(node) else -1]
        if channels is not None and channels > 1:
            graph = _depthwise(graph, node, channels)
    return graph


def _may_be_depthwise(graph: Graph, node: Any) -> bool:
    """Whether its weight has one input channel and several output channels, and a CPU runs the depthwise form."""
    if node.op != "Conv2D" or attr_of(node, "T").type != FLOAT or attr_of(node, "padding").s == b"EXPLICIT":
        return False
    weight = graph.nodes[node_of(node.input[1])]
    if weight.op != "Const" or const_shape(weight)[2] != 1 or const_shape(weight)[3] == 1:
        return False
    return len(set(sizes(node, "strides"))) == 1 and max(sizes(node, "dilations"), default=1) == 1


def _depthwise(graph: Graph, node: Any, channels: int) -> Graph:
    value = graph.constant(node.input[1])
    assert value is not None, node.name
    # Output channels of a group follow each other, as those of an input channel do in a depthwise weight.
    weight = make_const(own_name(graph, node, 1, "weight"), value.reshape(*value.shape[:2], channels, -1))
    changed = changed_node(node, op="DepthwiseConv2dNative", inputs=[node.input[0], weight.name])
    changed.attr.pop("use_cudnn_on_gpu", None)
    return graph.edit(put=[weight, changed])
