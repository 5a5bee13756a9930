"""Candidates of the layers of a .tflite, as the LiteRT target would quantize them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autoquant.calibration.plan import Plan, check_plan
from autoquant.errors import TrialError
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.quantization.affine import QMAX
from autoquant.targets.litert_calibration import LiteCalibrator, LiteScales
from autoquant.tuning.sensitivity.request import CandidateKey, SensitivityRequest


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
                scales = calibrator.scales(plan, [lite.layers[name]], "float32")
            except TrialError:
                continue
            yield (name, number), _fake_quantized(lite, request.layers[name], scales)


def _fake_quantized(lite: LiteGraph, layer: Layer, scales: LiteScales) -> FakeQuantized:
    kind, index, _ = lite.operator(layer.name)
    known, balance = KINDS[kind], scales.balance
    data = {known.data + number: scales.activations[tensor] for number, tensor in enumerate(layer.activations)}
    factors, constants = balance.factors.get(layer.name), {}
    if layer.weight is not None and known.weight is not None:
        own = scales.weights[layer.weight]
        value = balance.constants.get(layer.weight, lite.constant(layer.weight))
        assert value is not None, layer.weight
        # LiteRT's kernels take -127..127 steps.
        constants[known.weight] = np.asarray(np.clip(np.rint(value / own), -QMAX, QMAX) * own, np.float32)
    inverse = None if factors is None else np.float32(1.0) / np.array(factors, np.float32)
    return FakeQuantized(layer.name, index, data, constants, inverse)
