"""Where the layers of a TensorFlow graph are in the float .tflite that it was converted to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.litert import matching
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS, laid_out
from autoquant.model.litert.matching import parts_of
from autoquant.model.litert.weight_index import WeightIndex
from autoquant.model.model import known_constant
from autoquant.model.operators import node_of

ROUNDING = 1e-6
"""Constants are the same where they differ by no more than this, relative to their largest."""
MADE_OF: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        **matching.MADE_OF,
        "Add": frozenset({"ADD"}),
        "AddV2": frozenset({"ADD"}),
        "MaxPool": frozenset({"MAX_POOL_2D"}),
    }
)
"""Operator of TensorFlow -> what the converter can make of it, also where only its inputs are quantized."""
BIAS_INPUT: Mapping[str, int | None] = MappingProxyType(
    {kind: own.bias for kind, own in KINDS.items()} | {"CONV_3D": 2}
)
"""Operator -> which of its inputs is its bias."""


@dataclass(frozen=True, slots=True)
class Place:
    """A layer in a .tflite: the index of its operator, and which of its inputs are what.

    `data` are the inputs that are quantized, one for each activation of the layer. `bias` is the operator that adds the
    bias, itself or an ADD behind it, and the input of that, which it may not have yet; None where no operator can.
    """

    operator: int
    data: tuple[int, ...]
    weight: int | None
    bias: tuple[int, int] | None

    def constants(self, lite: LiteGraph, weight: Array | None) -> Mapping[int, Array]:
        """The operator's input that is a weight of TensorFlow's layout, in the layout of the file."""
        return {} if self.weight is None or weight is None else {self.weight: _laid_out(lite, self.operator, weight)}


@dataclass(frozen=True, slots=True)
class Places:
    """The layers that were found, and for all others a reason, both by layer."""

    found: Mapping[str, Place]
    reasons: Mapping[str, str]


def convert_with_places(graph: Graph, layers: Sequence[Layer]) -> tuple[LiteGraph, Places]:
    """Convert a normalized graph to a float .tflite in which as many of these layers as can be have a place.

    Where the converter joins a layer with operators before or behind it, it is made to leave that. Raises ModelError
    where it refuses.
    """
    lite = convert(graph)
    places = find_places(graph, layers, lite)
    joined = [layer for layer in layers if layer.name in places.reasons and not layer.tensor_only]
    cuts = [tensor for layer in joined for tensor in (*layer.activations, layer.bias or layer.node)]
    if not cuts:
        return lite, places
    lite = convert(graph, cuts=cuts)
    return lite, find_places(graph, layers, lite)


def find_places(graph: Graph, layers: Iterable[Layer], lite: LiteGraph) -> Places:
    """Find layers: by their weight, by the names that results of operators carry where that leaves a choice.

    A layer has a place only where the operator's weight and bias are its own, unchanged. A bias that is all 0 may have
    been left out.
    """
    named: dict[str, list[int]] = {}
    for index, op in enumerate(lite.operators):
        for part in (part for output in op.outputs for part in parts_of(lite.subgraph.tensors[output])):
            named.setdefault(part, []).append(index)
    found, reasons, weights = {}, {}, _weight_index(lite)
    for layer in layers:
        place = _place(graph, layer, lite, named.get(layer.node, ()), weights)
        if isinstance(place, Place):
            found[layer.name] = place
        else:
            reasons[layer.name] = place
    return Places(MappingProxyType(found), MappingProxyType(reasons))


def _weight_index(lite: LiteGraph) -> WeightIndex:
    """Operators of a kind that can be a layer by how many values their weight has, and how large these are on average.

    Neither is changed by the layout.
    """
    kinds = frozenset[str]().union(*MADE_OF.values())
    able = (index for index, op in enumerate(lite.operators) if lite.kind(index) in kinds and len(op.inputs) > 1)
    weights = ((index, _value(lite, lite.operators[index].inputs[1])) for index in able)
    return WeightIndex.of(
        ((lite.kind(index), one.size), _mean_size(one), index) for index, one in weights if one is not None
    )


def _mean_size(weight: Array) -> float:
    """Infinite where a value is not finite: then it equals none."""
    return float(np.abs(weight.astype(np.float64)).mean()) if weight.size and np.isfinite(weight).all() else np.inf


def _place(graph: Graph, layer: Layer, lite: LiteGraph, named: Sequence[int], weights: WeightIndex) -> Place | str:
    """A layer's place, or why it has none; operators `named` carry its name."""
    weight = None if layer.weight is None else known_constant(graph, layer.weight)
    if weight is None:
        candidates = sorted({index for index in named if lite.kind(index) in MADE_OF[layer.op]})
    else:
        candidates = [index for index in _alike(layer, weight, weights) if _has_weight(lite, index, weight)]
    if len(candidates) > 1:
        candidates = [index for index in candidates if index in named]
    if len(candidates) != 1:
        return "the converter left no operator for it"
    (index,) = candidates
    if layer.tensor_only:
        return Place(index, (_operand(layer, lite, lite.operators[index]),), None, None)
    data = (layer.operator.data,) if len(layer.activations) == 1 else (0, 1)
    if weight is None:
        return Place(index, data, None, None)
    bias = None if layer.bias is None else known_constant(graph, graph.nodes[layer.bias].input[1])
    return _with_bias(Place(index, data, 1, None), lite, bias)


def _alike(layer: Layer, weight: Array, weights: WeightIndex) -> list[int]:
    """The operators that may have a layer's weight, in whatever layout."""
    number, within = _mean_size(weight), 2.0 * ROUNDING * float(np.abs(weight).max(initial=0.0))
    return sorted(index for kind in MADE_OF[layer.op] for index in weights.near((kind, weight.size), number, within))


def _has_weight(lite: LiteGraph, operator: int, weight: Array) -> bool:
    """Whether the weight of an operator is a layer's, unchanged."""
    there = _value(lite, lite.operators[operator].inputs[1])
    return there is not None and _equal(there, _laid_out(lite, operator, weight))


def _laid_out(lite: LiteGraph, operator: int, weight: Array) -> Array:
    """A weight of TensorFlow's layout in that of an operator."""
    kind = lite.kind(operator)
    transposed = kind == "BATCH_MATMUL" and bool(lite.operators[operator].builtinOptions.adjY)
    return laid_out(weight, kind, transposed=transposed)


def _with_bias(place: Place, lite: LiteGraph, bias: Array | None) -> Place | str:
    """The place with that of its bias, or why it has none."""
    op, own = lite.operators[place.operator], BIAS_INPUT.get(lite.kind(place.operator))
    there = _value(lite, op.inputs[own]) if own is not None and own < len(op.inputs) else None
    if there is not None and own is not None and bias is not None and _equal(there, bias):
        return replace(place, bias=(place.operator, own))
    if there is not None and there.any():
        return "the converter made a different bias"
    if bias is None or not bias.any():
        return place if own is None else replace(place, bias=(place.operator, own))
    readers = lite.readers.get(int(op.outputs[0]), ())
    for number, tensor in enumerate(lite.operators[readers[0]].inputs if len(readers) == 1 else ()):
        value = _value(lite, tensor)
        if value is not None and _equal(value.reshape(-1), bias):
            return replace(place, bias=(readers[0], number))
    return "its bias was not found"


def _operand(layer: Layer, lite: LiteGraph, op: Any) -> int:
    """The input of an operator that is one of its node: by number, unless another one has its name."""
    number, wanted = int(layer.name.rpartition(":")[2]), node_of(layer.activations[0])
    others = [place for place in range(len(op.inputs)) if wanted in parts_of(lite.subgraph.tensors[op.inputs[place]])]
    return number if number in others or not others else others[0]


def _value(lite: LiteGraph, tensor: int) -> Array | None:
    return None if tensor < 0 else lite.value_of(tensor)


def _equal(one: Array | None, other: Array) -> bool:
    if one is None or one.shape != other.shape:
        return False
    return bool(np.abs(one - other).max(initial=0.0) <= ROUNDING * np.abs(other).max(initial=0.0))
