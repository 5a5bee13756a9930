"""Where factors for channels can move between the layers of a .tflite, and the file with other constants.

As `graph_chains` does it for graphs of TensorFlow: operators of other kinds, and functions in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from autoquant.array import Array
from autoquant.model.layer import Layer
from autoquant.model.litert.balance import HOMOGENEOUS, PRODUCERS, Way, channelwise, way_back
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import laid_out
from autoquant.tuning.repairs.chains import SIX, Chains, Constants, Link, largest_results

WEIGHT, BIAS = 1, 2
"""Inputs of a layer: convolutions and fully connected ones have the same."""
WINDOWS = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D"})
WITHIN = frozenset({"MEAN", "PAD", "RELU", "RESHAPE", *WINDOWS})
"""Operators whose results lie where their data do, if those are from 0 up."""
FUNCTIONS = schema.ActivationFunctionType
CLIPPING = FUNCTIONS.RELU6


def find_chains(lite: LiteGraph, layers: Mapping[str, Layer]) -> Chains:
    """All links between layers of a float .tflite; for RELU6 see `find_chains` for graphs."""
    names = {lite.layers[name]: name for name, layer in layers.items() if layer.weight is not None}
    links = tuple(link for index in sorted(names) for link in _link_to(lite, names, index))
    ends = {name for link in links for name in (link.first, link.second)}
    return Chains(links, {name: constants_of(lite, lite.layers[name]) for name in layers if name in ends})


def with_constants(lite: LiteGraph, changed: Mapping[str, Constants]) -> LiteGraph:
    """The same program with other constants of layers, float32."""
    builder = LiteBuilder(lite)
    for name, own in changed.items():
        kind, index, _ = lite.operator(name)
        op = lite.operators[index]
        builder.replace_constant(int(op.inputs[WEIGHT]), laid_out(own.weight, kind))
        if own.bias is not None:
            builder.replace_constant(int(op.inputs[BIAS]), own.bias)
    return replace(lite, content=builder.write())


def constants_of(lite: LiteGraph, index: int) -> Constants:
    """The weight and the bias of the operator of a layer."""
    op, kind = lite.operators[index], lite.kind(index)
    there = len(op.inputs) > BIAS and op.inputs[BIAS] >= 0
    return Constants(
        _read(_constant(lite, op.inputs[WEIGHT]), kind, lite.channels_of(op.inputs[0])),
        _constant(lite, op.inputs[BIAS]) if there else None,
        kind == "DEPTHWISE_CONV_2D",
    )


def _read(weight: Array, kind: str, inputs: int | None) -> Array:
    """A weight in the layout of `Constants`, of a layer with so many input channels."""
    if kind == "CONV_2D":
        return weight.transpose(1, 2, 3, 0)
    if kind == "FULLY_CONNECTED":
        return weight.T
    return weight.reshape(*weight.shape[1:3], inputs or weight.shape[3], -1)


def _constant(lite: LiteGraph, tensor: int) -> Array:
    value = lite.value_of(tensor)
    assert value is not None, tensor
    return value


def _link_to(lite: LiteGraph, names: Mapping[int, str], index: int) -> Iterator[Link]:
    """The link that ends with the layer of an operator, if there is one."""
    way = _way(lite, index)
    if way is None or way.source not in names:
        return
    first, second = constants_of(lite, way.source), constants_of(lite, index)
    if first.outputs != way.channels:
        return
    op = lite.operators[way.source]
    clips = op.builtinOptions.fusedActivationFunction == CLIPPING or "RELU6" in _kinds(lite, way)
    shifts = first.bias is not None and second.bias is not None and _never_padded(lite, index, way)
    yield Link(
        names[way.source],
        names[index],
        way.channels,
        tensor=lite.name_of(op.outputs[0]),
        axis=-1,
        shifts=shifts,
        rectified=_rectified(lite, way),
        tops=largest_results(first, _top(lite, int(op.inputs[0]))) if clips else None,
    )


def _way(lite: LiteGraph, index: int) -> Way | None:
    """How channels come to a layer from the one before it, where factors pass that nothing else would see."""
    op, kind = lite.operators[index], lite.kind(index)
    channels = lite.channels_of(int(op.inputs[0]))
    if kind not in PRODUCERS or channels is None or constants_of(lite, index).weight.shape[-2] % channels:
        return None
    way = way_back(lite, int(op.inputs[0]), channels, _before)
    fitting = (*HOMOGENEOUS, CLIPPING)
    return way if way and lite.operators[way.source].builtinOptions.fusedActivationFunction in fitting else None


def _before(lite: LiteGraph, operator: int, channels: int) -> int | None:
    """The channels of an operator's data that come round again and again in those of its result."""
    if lite.kind(operator) == "RELU6":
        return channels
    if lite.kind(operator) != "RESHAPE":
        return channelwise(lite, operator, channels)
    before = lite.channels_of(lite.operators[operator].inputs[0])
    return before if before is not None and channels % before == 0 else None


def _kinds(lite: LiteGraph, way: Way) -> set[str]:
    return set(map(lite.kind, way.between))


def _rectified(lite: LiteGraph, way: Way) -> bool:
    """Whether anything between is other than linear."""
    fusing = [way.source, *(index for index in way.between if lite.kind(index) in WINDOWS)]
    ops = [lite.operators[index] for index in fusing]
    fused = any(op.builtinOptions.fusedActivationFunction != FUNCTIONS.NONE for op in ops)
    return fused or bool(_kinds(lite, way) & {"LEAKY_RELU", "RELU", "RELU6"})


def _never_padded(lite: LiteGraph, index: int, way: Way) -> bool:
    """Whether a layer sees no zeros beside what the layer before it makes."""
    op, kind = lite.operators[index], lite.kind(index)
    if "PAD" in _kinds(lite, way):
        return False
    if kind == "FULLY_CONNECTED":
        return True
    return op.builtinOptions.padding == schema.Padding.VALID or _constant(lite, op.inputs[WEIGHT]).shape[1:3] == (1, 1)


def _top(lite: LiteGraph, tensor: int) -> float:
    """A bound for values from 0 up; infinite where it is not known that they are."""
    while (maker := lite.makers.get(tensor)) is not None:
        op, kind = lite.operators[maker], lite.kind(maker)
        if kind == "RELU6" or (kind in PRODUCERS and op.builtinOptions.fusedActivationFunction == CLIPPING):
            return SIX
        if kind not in WITHIN:
            break
        tensor = int(op.inputs[0])
    return np.inf
