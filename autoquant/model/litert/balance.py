"""Where factors for the channels of a layer's input can go in a .tflite: into the layer that makes them."""

from __future__ import annotations

from typing import Any

from ai_edge_litert.schema_py_generated import ActivationFunctionType

from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS

PRODUCERS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
HOMOGENEOUS = frozenset({ActivationFunctionType.NONE, ActivationFunctionType.RELU})
"""Functions with f(a x) = a f(x) for every a > 0."""
APART = frozenset({"AVERAGE_POOL_2D", "LEAKY_RELU", "MAX_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE"})
"""Operators that can leave channels apart and pass a positive factor of each of them on."""


def balance_source(lite: LiteGraph, layer: int) -> int | None:
    """Index of the operator into whose output channels the factors of a layer's input channels can be folded exactly.

    `layer` is the index of the layer's operator. Its data come from a convolution or fully connected layer with a
    constant weight and an activation that is NONE or RELU, perhaps through operators that leave channels apart, and
    nothing else reads what lies between. None where that is not so, and for convolutions with groups.
    """
    graph = lite.subgraph
    reader = graph.operators[layer]
    kind = flatbuffer.op_name(lite.model, reader)
    if kind not in KINDS or KINDS[kind].weight is None or kind == "BATCH_MATMUL":
        return None
    tensor = int(reader.inputs[KINDS[kind].data])
    channels = _channels(lite, tensor)
    if channels is None or (kind == "CONV_2D" and size_of(lite, reader.inputs[1], -1) != channels):
        return None
    while True:
        source = lite.makers.get(tensor)
        if source is None or len(lite.readers.get(tensor, ())) != 1 or tensor in graph.outputs:
            return None
        op = graph.operators[source]
        if flatbuffer.op_name(lite.model, op) in PRODUCERS:
            return source if _takes_factors(lite, op) else None
        if not keeps_apart(lite, op, channels):
            return None
        tensor = int(op.inputs[0])


def _takes_factors(lite: LiteGraph, op: Any) -> bool:
    constant = all(
        flatbuffer.value_of(lite.model, lite.subgraph.tensors[index]) is not None
        for index in op.inputs[1:]
        if index >= 0
    )
    return constant and op.builtinOptions.fusedActivationFunction in HOMOGENEOUS


def keeps_apart(lite: LiteGraph, op: Any, channels: int) -> bool:
    """Whether an operator's result is f times as large in a channel where its data are, for every f > 0."""
    kind = flatbuffer.op_name(lite.model, op)
    if kind not in APART or size_of(lite, op.inputs[0], -1) != channels or size_of(lite, op.outputs[0], -1) != channels:
        return False
    if kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        return op.builtinOptions.fusedActivationFunction in HOMOGENEOUS
    if kind == "PAD":  # with zeros; channels that are only moved would still be as many
        sizes = flatbuffer.value_of(lite.model, lite.subgraph.tensors[op.inputs[1]])
        return sizes is not None and not sizes[-1].any()
    if kind == "MEAN":
        axes = flatbuffer.value_of(lite.model, lite.subgraph.tensors[op.inputs[1]])
        rank = len(flatbuffer.shape_of(lite.subgraph.tensors[op.inputs[0]]))
        return axes is not None and rank - 1 not in axes.reshape(-1) % rank
    return True


def _channels(lite: LiteGraph, tensor: int) -> int | None:
    return size_of(lite, tensor, -1)


def size_of(lite: LiteGraph, tensor: int, axis: int) -> int | None:
    """A size in the shape that the file states for a tensor; None where that is open or there is no such axis."""
    shape = flatbuffer.shape_of(lite.subgraph.tensors[tensor])
    return shape[axis] if shape else None
