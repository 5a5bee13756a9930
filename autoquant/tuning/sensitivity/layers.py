"""Layers of a TensorFlow graph as they would be in INT8, in real units, by the records of their candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from autoquant.calibration.plan import WEIGHT_ALGORITHMS, WEIGHT_BITS, LayerPlan, Plan
from autoquant.calibration.record import Calibrator, LayerRecord
from autoquant.calibration.statistics import Statistics
from autoquant.errors import TrialError
from autoquant.model.graph import Graph
from autoquant.model.layer import Abilities, Layer
from autoquant.quantization.affine import QMAX, QMIN, Affine, Array
from autoquant.quantization.balance import balanced_weight
from autoquant.quantization.weights import by_channel, quantize_weight, spread
from autoquant.tuning.sensitivity.result import Candidates


@dataclass(frozen=True, slots=True)
class WeightKey:
    """What decides a quantized weight."""

    layer: str
    scales: tuple[float, ...]
    balance: tuple[float, ...]
    bits: int


@dataclass(frozen=True, slots=True)
class Quantized:
    """One candidate of a layer: scale and offset of each activation, divided by `balance` before, and its weight."""

    layer: Layer
    activations: tuple[Affine, ...]
    balance: tuple[float, ...]
    weight: WeightKey | None


def quantized_layers(
    graph: Graph, layers: Mapping[str, Layer], candidates: Candidates, statistics: Statistics, batch_num: int
) -> Mapping[tuple[str, int], Quantized]:
    """What becomes of each candidate, by layer and number; those that cannot be calibrated are left out.

    Settings may be those of any target: weights by channel wherever there are channels, and by any algorithm. Raises
    PlanError where the statistics lack what they want.
    """
    calibrator = Calibrator(graph, {name: _able(layers[name]) for name in candidates}, statistics)
    found = {}
    for name, each in candidates.items():
        for number, settings in enumerate(each):
            plan = Plan({name: replace(settings, weight_algorithm="minmax")}, batch_num)
            try:
                record = calibrator.record(plan)
            except TrialError:
                continue
            one = _quantized(layers[name], [record[entry] for entry in layers[name].records])
            found[name, number] = one if one.weight is None else replace(one, weight=_clipped(graph, one, settings))
    return found


def real_weight(graph: Graph, layer: Layer, key: WeightKey) -> Array:
    """The weight as INT8 has it, in real units, float32, of the graph's layout."""
    weight = _balanced(graph, layer, key.balance)
    scales = np.array(key.scales, np.float32)
    steps = quantize_weight(weight, scales, layer.channel_axes, bits=key.bits)
    return np.asarray(steps * spread(scales, weight.ndim, weight.shape, layer.channel_axes), np.float32)


def limits_of(affine: Affine) -> tuple[float, float]:
    """The real numbers that become -128 and 127."""
    return (QMIN - affine.offset) * affine.scale, (QMAX - affine.offset) * affine.scale


def data_places(layer: Layer) -> tuple[int, ...]:
    """Which inputs of the layer's operator are quantized, one for each activation."""
    if layer.tensor_only:
        return (int(layer.name.rpartition(":")[2]),)
    return (layer.operator.data,) if len(layer.activations) == 1 else tuple(range(len(layer.activations)))


def _able(layer: Layer) -> Layer:
    """A layer that can have whatever some target can give it."""
    balanceable = layer.weight is not None and layer.groups == 1
    return replace(layer, abilities=Abilities(bool(layer.channel_axes), balanceable, WEIGHT_BITS, WEIGHT_ALGORITHMS))


def _quantized(layer: Layer, entries: list[LayerRecord]) -> Quantized:
    first = entries[0]
    key = WeightKey(layer.name, first.scale_w, first.balance, first.weight_bits) if layer.weight else None
    return Quantized(layer, tuple(entry.activation for entry in entries), first.balance, key)


def _clipped(graph: Graph, one: Quantized, settings: LayerPlan) -> WeightKey:
    """What decides the weight, with the scales of its algorithm where that is not the largest value."""
    assert one.weight is not None, one.layer.name
    if settings.weight_algorithm == "minmax":
        return one.weight
    from autoquant.targets.litert_weights import clipped_scales

    axes = one.layer.channel_axes if settings.channel_wise else None
    rows = by_channel(_balanced(graph, one.layer, one.balance), axes)
    return replace(one.weight, scales=tuple(map(float, clipped_scales(rows, settings.weight_algorithm))))


def _balanced(graph: Graph, layer: Layer, balance: tuple[float, ...]) -> Array:
    """A layer's weight in float, balanced."""
    weight = graph.constant(layer.weight) if layer.weight else None
    assert weight is not None, layer.name
    if not balance:
        return weight
    return balanced_weight(weight, np.array(balance, np.float32), layer.operator.input_axis)
