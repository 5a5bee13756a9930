"""Candidates of layers: what they would be in INT8, in real units; of a TensorFlow graph, and of a .tflite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import ACTIVATION_BITS, WEIGHT_ALGORITHMS, WEIGHT_BITS, LayerPlan, Plan, check_plan
from autoquant.calibration.record import Calibrator, LayerRecord, float_weight
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized
from autoquant.model.layer import Abilities, Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.model import Program, known_constant
from autoquant.quantization.affine import QMAX, by_channel, powers_of_two, quantize_weight, spread
from autoquant.targets.litert_calibration import LiteCalibrator, LiteScales
from autoquant.tuning.sensitivity.request import CandidateKey, SensitivityRequest

if TYPE_CHECKING:  # which loads TensorFlow
    from autoquant.evaluation.engines.fake_quant_places import Places


@dataclass(frozen=True, slots=True)
class QuantizedLayer:
    """One candidate of a layer, by its entries in a record, one for each activation."""

    layer: Layer
    records: tuple[LayerRecord, ...]

    @property
    def balance(self) -> tuple[float, ...]:
        """The factors that its activation is divided by, and its weight multiplied; empty without."""
        return self.records[0].balance

    @property
    def weight_key(self) -> tuple[object, ...]:
        """What decides its weight."""
        first = self.records[0]
        return self.layer.name, first.scale_w, first.balance, first.weight_bits

    def real_weight(self, graph: Program) -> Array:
        """Its weight as INT8 has it, in real units, float32, of the graph's layout."""
        first, axes = self.records[0], self.layer.channel_axes
        weight, scales = float_weight(graph, self.layer, first.balance), np.array(first.scale_w, np.float32)
        steps = quantize_weight(weight, scales, axes, bits=first.weight_bits)
        return np.asarray(steps * spread(scales, weight.ndim, weight.shape, axes), np.float32)


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
            asymmetric = settings.asymmetric and not layers[name].symmetric_only  # which it may be on the target alone
            plan = Plan({name: replace(settings, weight_algorithm="minmax", asymmetric=asymmetric)}, request.batches)
            try:
                record = calibrator.record(plan)
            except TrialError:
                continue
            first, *others = (record[entry] for entry in layers[name].records)
            own = _with_algorithm(graph, layers[name], settings, first)
            found[name, number] = QuantizedLayer(layers[name], (own, *others))
    return found


def converted_layers(
    request: SensitivityRequest, lite: LiteGraph, places: Places
) -> Iterator[tuple[CandidateKey, FakeQuantized]]:
    """Each candidate that can be calibrated, as an operator of the .tflite in which layers have these places.

    Raises ModelError where the converter left no operator of a layer, and as `quantized_layers`.
    """
    graph = request.model.graph
    for name, reason in places.reasons.items():
        raise ModelError(name, f"cannot be measured on LiteRT: {reason}", hint="leave the layer in float")
    for key, one in quantized_layers(request).items():
        place = places.found[one.layer.name]
        factors = np.float32(1.0) / np.array(one.balance, np.float32) if one.balance else None
        constants = place.constants(lite, one.real_weight(graph)) if one.layer.weight else {}
        data = {number: record.activation for number, record in zip(place.data, one.records, strict=True)}
        yield key, FakeQuantized(one.layer.name, place.operator, data, constants, factors)


def _able(layer: Layer) -> Layer:
    """A layer that can have whatever some target can give it."""
    balanceable = layer.weight is not None and layer.groups == 1
    return replace(
        layer,
        abilities=Abilities(bool(layer.channel_axes), balanceable, WEIGHT_BITS, WEIGHT_ALGORITHMS, ACTIVATION_BITS),
    )


def _with_algorithm(graph: Program, layer: Layer, settings: LayerPlan, record: LayerRecord) -> LayerRecord:
    """The entry of a layer with the scales of its weight by the algorithm of its settings."""
    if layer.weight is None or settings.weight_algorithm == "minmax":
        return record
    from autoquant.targets.litert_weights import clipped_scales

    rows = by_channel(float_weight(graph, layer, record.balance), layer.channel_axes if settings.channel_wise else None)
    scales = clipped_scales(rows, settings.weight_algorithm)
    return replace(record, scale_w=tuple(map(float, powers_of_two(scales) if settings.power_of_two else scales)))


def fake_quantized_layers(request: SensitivityRequest) -> Iterator[tuple[CandidateKey, FakeQuantized]]:
    """Each candidate that can be calibrated, as its operator.

    Raises PlanError where a layer cannot have the settings, or the statistics lack what they want.
    """
    lite = request.model.program
    assert isinstance(lite, LiteGraph)
    calibrator = LiteCalibrator(lite, request.layers, request.statistics)
    for name, each in request.candidates.items():
        for number, settings in enumerate(each):
            plan = Plan({name: settings}, request.batches)
            check_plan(plan, request.layers)
            try:
                scales = calibrator.scales(plan, {lite.layers[name]: settings.activation_bits}, "float32")
            except TrialError:
                continue
            yield (name, number), _fake_quantized(lite, request.layers[name], scales, settings.activation_bits)


def _fake_quantized(lite: LiteGraph, layer: Layer, scales: LiteScales, bits: int) -> FakeQuantized:
    kind, index, _ = lite.operator(layer.name)
    known, balance = KINDS[kind], scales.balance
    own = scales.activations if bits == 8 else scales.wide
    data = {known.data + number: own[tensor] for number, tensor in enumerate(layer.activations)}
    factors, constants = balance.factors.get(layer.name), {}
    if layer.weight is not None and known.weight is not None:
        steps = scales.weights[layer.weight]
        value = balance.constants.get(layer.weight, known_constant(lite, layer.weight))
        # LiteRT's kernels take -127..127 steps.
        constants[known.weight] = np.asarray(np.clip(np.rint(value / steps), -QMAX, QMAX) * steps, np.float32)
    inverse = None if factors is None else np.float32(1.0) / np.array(factors, np.float32)
    return FakeQuantized(layer.name, index, data, constants, inverse)
