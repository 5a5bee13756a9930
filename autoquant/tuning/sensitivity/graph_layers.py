"""Candidates of the layers of a TensorFlow graph: what they would be in INT8, in real units."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import WEIGHT_ALGORITHMS, WEIGHT_BITS, LayerPlan, Plan
from autoquant.calibration.record import Calibrator, LayerRecord
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized
from autoquant.evaluation.engines.fake_quant_places import find_places
from autoquant.model.graph import Graph
from autoquant.model.layer import Abilities, Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import QMAX, QMIN, Affine
from autoquant.quantization.balance import balanced_weight
from autoquant.quantization.weights import by_channel, quantize_weight, spread
from autoquant.tuning.sensitivity.request import CandidateKey, SensitivityRequest


@dataclass(frozen=True, slots=True)
class WeightKey:
    """What decides a quantized weight."""

    layer: str
    scales: tuple[float, ...]
    balance: tuple[float, ...]
    bits: int


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """One candidate of a layer: scale and offset of each activation, divided by `balance` before, and its weight."""

    layer: Layer
    activations: tuple[Affine, ...]
    balance: tuple[float, ...]
    weight: WeightKey | None


def quantized_layers(request: SensitivityRequest) -> Mapping[CandidateKey, QuantizedLayer]:
    """What becomes of each candidate; those that cannot be calibrated are left out.

    Settings may be those of any target: weights by channel wherever there are channels, and by any algorithm. Raises
    PlanError where the statistics lack what they want.
    """
    graph, layers = request.model.graph, request.layers
    calibrator = Calibrator(graph, {name: _able(layers[name]) for name in request.candidates}, request.statistics)
    found = {}
    for name, each in request.candidates.items():
        for number, settings in enumerate(each):
            plan = Plan({name: replace(settings, weight_algorithm="minmax")}, request.batches)
            try:
                record = calibrator.record(plan)
            except TrialError:
                continue
            found[name, number] = _quantized(graph, layers[name], settings, [record[n] for n in layers[name].records])
    return found


def converted_layers(request: SensitivityRequest, lite: LiteGraph) -> Iterator[tuple[CandidateKey, FakeQuantized]]:
    """Each candidate that can be calibrated, as an operator of the .tflite that the graph was converted to.

    Raises ModelError where the converter left no operator of a layer, and as `quantized_layers`.
    """
    graph = request.model.graph
    places = find_places(graph, [request.layers[name] for name in request.candidates], lite)
    for name, reason in places.reasons.items():
        raise ModelError(name, f"cannot be measured on LiteRT: {reason}", hint="leave the layer in float")
    for key, one in quantized_layers(request).items():
        place = places.found[one.layer.name]
        factors = np.float32(1.0) / np.array(one.balance, np.float32) if one.balance else None
        constants = {} if one.weight is None else place.constants(lite, real_weight(graph, one.layer, one.weight))
        data = dict(zip(place.data, one.activations, strict=True))
        yield key, FakeQuantized(one.layer.name, place.operator, data, constants, factors)


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


def _quantized(graph: Graph, layer: Layer, settings: LayerPlan, entries: list[LayerRecord]) -> QuantizedLayer:
    """The layer by its entries in a record, but the scales of its weight by the algorithm of its settings."""
    first, weight = entries[0], None
    if layer.weight is not None:
        weight = WeightKey(layer.name, first.scale_w, first.balance, first.weight_bits)
        if settings.weight_algorithm != "minmax":
            from autoquant.targets.litert_weights import clipped_scales

            axes = layer.channel_axes if settings.channel_wise else None
            rows = by_channel(_balanced(graph, layer, first.balance), axes)
            scales = clipped_scales(rows, settings.weight_algorithm)
            weight = replace(weight, scales=tuple(map(float, scales)))
    return QuantizedLayer(layer, tuple(entry.activation for entry in entries), first.balance, weight)


def _balanced(graph: Graph, layer: Layer, balance: tuple[float, ...]) -> Array:
    """A layer's weight in float, balanced."""
    weight = graph.constant(layer.weight) if layer.weight else None
    assert weight is not None, layer.name
    if not balance:
        return weight
    return balanced_weight(weight, np.array(balance, np.float32), layer.operator.input_axis)
