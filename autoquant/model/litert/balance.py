"""Where factors for the channels of a layer's input can go in a .tflite: into the layer that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS

PRODUCERS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})
HOMOGENEOUS = frozenset({schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU})
"""Functions with f(a x) = a f(x) for every a > 0."""
CHANNELWISE = frozenset({"AVERAGE_POOL_2D", "LEAKY_RELU", "MAX_POOL_2D", "MEAN", "PAD", "RELU", "RESHAPE"})
"""Operators that can treat each channel by itself, and pass a positive factor of it on."""


@dataclass(frozen=True, slots=True)
class Way:
    """From the data of a layer back to the layer that makes them: the index of its operator, and its channels.

    `between` are the indices of the operators on the way, last first. A layer may read several of each channel.
    """

    source: int
    channels: int
    between: tuple[int, ...]


def way_back(
    lite: LiteGraph, tensor: int, channels: int, passes: Callable[[LiteGraph, int, int], int | None]
) -> Way | None:
    """The way from a tensor of so many channels back to a layer, where nothing else reads what lies on it.

    `passes` gives how many channels are before an operator, given those behind it; None where it is no part of a way.
    """
    between: list[int] = []
    while (maker := lite.makers.get(tensor)) is not None:
        if len(lite.readers.get(tensor, ())) != 1 or tensor in lite.subgraph.outputs:
            return None
        if lite.kind(maker) in PRODUCERS:
            return Way(maker, channels, tuple(between))
        before = passes(lite, maker, channels)
        if before is None:
            return None
        between.append(maker)
        tensor, channels = int(lite.operators[maker].inputs[0]), before
    return None


def balance_way(lite: LiteGraph, layer: int) -> Way | None:
    """The way to the operator into whose output channels factors of a layer's input channels can be folded exactly.

    `layer` is the index of the layer's operator. Its data come from a convolution or fully connected layer with a
    constant weight and an activation that is NONE or RELU, perhaps through operators that treat each channel by
    itself, and nothing else reads what lies between. None where that is not so, and for convolutions with groups.
    """
    reader, kind = lite.operators[layer], lite.kind(layer)
    if kind not in KINDS or KINDS[kind].weight is None or kind == "BATCH_MATMUL":
        return None
    tensor = int(reader.inputs[KINDS[kind].data])
    channels = lite.channels_of(tensor)
    if channels is None or (kind == "CONV_2D" and lite.channels_of(reader.inputs[1]) != channels):
        return None
    way = way_back(lite, tensor, channels, channelwise)
    return way if way is not None and _takes_factors(lite, lite.operators[way.source]) else None


def _takes_factors(lite: LiteGraph, op: Any) -> bool:
    constant = all(lite.value_of(index) is not None for index in op.inputs[1:] if index >= 0)
    return constant and op.builtinOptions.fusedActivationFunction in HOMOGENEOUS


def channelwise(lite: LiteGraph, operator: int, channels: int) -> int | None:
    """The channels, where an operator's result is f times as large in one where its data are, for every f > 0."""
    op, kind = lite.operators[operator], lite.kind(operator)
    if kind not in CHANNELWISE or any(lite.channels_of(t) != channels for t in (op.inputs[0], op.outputs[0])):
        return None
    if kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        return channels if op.builtinOptions.fusedActivationFunction in HOMOGENEOUS else None
    if kind == "PAD":  # with zeros; channels that are only moved would still be as many
        sizes = lite.value_of(op.inputs[1])
        return channels if sizes is not None and not sizes[-1].any() else None
    if kind == "MEAN":
        axes = lite.value_of(op.inputs[1])
        rank = len(lite.shape_of(op.inputs[0]))
        return channels if axes is not None and rank - 1 not in axes.reshape(-1) % rank else None
    return channels
