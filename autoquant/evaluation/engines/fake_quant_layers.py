"""The layers of a saved INT8 graph, dequantized: what its integers stand for, in real units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.quantization.affine import Affine
from autoquant.quantization.weights import spread
from autoquant.targets.int8_layers import Int8Layer, int8_layers
from autoquant.targets.saved_graph import SavedGraph

OTHER_ENGINE = "choose --engine tensorflow"


@dataclass(frozen=True)
class DequantizedLayer:
    """A layer as its INT8 values have it, in real units: its weight, in TensorFlow's layout, and its bias, float32.

    What it reads is rounded as `activations` say, after each channel was multiplied by its own of `factors`, where
    there are any; one in float has no activations. The operator's sum over data * weight, plus the bias, is what the
    saved graph has behind AscendDequant.
    """

    layer: Layer
    activations: tuple[Affine, ...] = ()
    factors: Array | None = None
    weight: Array | None = None
    bias: Array | None = None


def dequantized_layers(saved: SavedGraph, graph: Graph) -> list[DequantizedLayer]:
    """The layers that are quantized in a saved graph. `graph` is the float graph that it was made from.

    Raises PlanError where the file is not whole, TrialError where its layers have a form that real numbers cannot say.
    """
    return [_dequantized(saved, graph, found) for found in int8_layers(saved).values()]


def changed_layers(saved: SavedGraph, graph: Graph, layers: Iterable[Layer]) -> Iterator[DequantizedLayer]:
    """Those of layers, in float in a saved graph, that have another weight or bias in it than in the float graph.

    Raises PlanError where a constant is none.
    """
    for layer in layers:
        node, place = saved.graph.nodes.get(layer.name), layer.operator.weight
        if node is None or place is None or layer.weight is None:
            continue
        weight, bias = saved.constant(node, place, np.float32), None
        was = [graph.constant(layer.weight)]
        if layer.bias is not None:
            bias = saved.constant(saved.graph.nodes[layer.bias], 1, np.float32)
            was.append(graph.constant(graph.nodes[layer.bias].input[1]))
        now = [weight] if bias is None else [weight, bias]
        if not all(value is not None and np.array_equal(value, new) for value, new in zip(was, now, strict=True)):
            yield DequantizedLayer(layer, weight=weight, bias=bias)


def _dequantized(saved: SavedGraph, graph: Graph, found: Int8Layer) -> DequantizedLayer:
    layer = found.layer
    quants = [saved.graph.nodes[name] for name in layer.activations]
    activations = tuple(Affine(step_of(quant.attr["scale"].f), int(quant.attr["offset"].f)) for quant in quants)
    if layer.tensor_only:  # AscendAntiQuant has the scale as it was
        return DequantizedLayer(layer, (replace(activations[0], scale=found.end.attr["scale"].f),))
    scales = _scales(saved, found)
    if layer.weight is None:
        return DequantizedLayer(layer, activations)
    quant = saved.source(found.operator, layer.operator.weight or 0)
    integers = saved.constant(quant, 0, np.int8).astype(np.float64) - saved.constant(quant, 1, np.int8)
    # The data come in steps of their own scale, so only the rest of the product is left for the weight.
    steps = spread(scales / activations[0].scale, integers.ndim, integers.shape, layer.channel_axes)
    bias = None if found.bias is None else _float32(_bias(saved, found.bias) * scales)
    return DequantizedLayer(layer, activations, _factors(saved, graph, quants[0]), _float32(integers * steps), bias)


def _factors(saved: SavedGraph, graph: Graph, quant: Any) -> Array | None:
    """What the channels of a balanced layer's data are multiplied by before they are quantized."""
    before = saved.source(quant, 0) if ":" not in quant.input[0] else None
    balanced = before is not None and before.op == "Mul" and before.name not in graph.nodes
    return saved.constant(before, 1, np.float32).reshape(-1) if balanced else None


def step_of(inverse: float) -> float:
    """The float32 scale whose inverse, in float32, is this number; the closest one where there is none.

    >>> step_of(4.0)
    0.25
    """
    wanted = np.float32(inverse)
    near = np.float32(1.0) / wanted
    around = (near, np.nextafter(near, np.float32(0.0)), np.nextafter(near, np.float32(np.inf)))
    return float(next((step for step in around if np.float32(1.0) / step == wanted), near))


def _scales(saved: SavedGraph, found: Int8Layer) -> Array:
    """The products of the scales of data and weight, for each channel or one for all, float64."""
    packed = saved.constant(found.end, 1, np.uint64)
    if (packed >> np.uint64(32)).any():
        raise TrialError(found.layer.name, "its shift_bit has no counterpart on LiteRT", hint=OTHER_ENGINE)
    return packed.astype(np.uint32).view(np.float32).astype(np.float64)


def _bias(saved: SavedGraph, adding: Any) -> Array:
    return saved.constant(saved.source(adding, 1), 0, np.int32).astype(np.float64)


def _float32(values: Array) -> Array:
    return np.asarray(values, np.float32)
