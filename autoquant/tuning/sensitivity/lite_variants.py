"""Candidates of the layers of a .tflite, as the LiteRT target would quantize them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from autoquant.calibration.plan import Plan, check_plan
from autoquant.calibration.statistics import Statistics
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.quantization.affine import QMAX, Array
from autoquant.targets.litert_balance import Balancer
from autoquant.targets.litert_ranges import Ranges
from autoquant.targets.litert_weights import Weights
from autoquant.tuning.sensitivity.result import Candidates
from autoquant.tuning.sensitivity.variants import Variant


def lite_variants(
    lite: LiteGraph, layers: Mapping[str, Layer], candidates: Candidates, statistics: Statistics, batch_num: int
) -> Mapping[tuple[str, int], Variant]:
    """A variant of each candidate, by layer and number; those that cannot be calibrated are left out.

    Raises PlanError where a layer cannot have the settings, or the statistics lack what they want.
    """
    ranges, weights = Ranges(lite, statistics), Weights(lite)
    balancer = Balancer(lite, layers, statistics)

    found = {}
    for name, each in candidates.items():
        for number, settings in enumerate(each):
            plan = Plan({name: settings}, batch_num)
            check_plan(plan, layers)
            try:
                found[name, number] = _variant(lite, layers[name], plan, ranges, weights, balancer)
            except TrialError:
                continue
    return found


def _variant(
    lite: LiteGraph, layer: Layer, plan: Plan, ranges: Ranges, weights: Weights, balancer: Balancer
) -> Variant:
    index = lite.layers[layer.name]
    kind = KINDS[flatbuffer.op_name(lite.model, lite.subgraph.operators[index])]
    balance = balancer.balance(plan)
    found = ranges.affines(plan, [index], "float32", balance.seen)
    affines = tuple(found[tensor] for tensor in layer.activations)
    factors = balance.factors.get(layer.name)
    weight = None
    if layer.weight is not None and kind.weight is not None:
        scales = weights.scales(layer, plan.int8[layer.name], affines[0].scale, balance.constants)
        value = balance.constants.get(layer.weight, lite.constant(layer.weight))
        assert value is not None, layer.weight
        weight = kind.weight, partial(_real, value, scales)
    return Variant(
        layer.name,
        index,
        tuple(range(kind.data, kind.data + len(affines))),
        affines,
        weight,
        None if factors is None else np.float32(1.0) / np.array(factors, np.float32),
    )


def _real(weight: Array, scales: Array) -> Array:
    """The weight as LiteRT's kernels have it, -127..127 steps, in real units."""
    return np.asarray(np.clip(np.rint(weight / scales), -QMAX, QMAX) * scales, np.float32)
