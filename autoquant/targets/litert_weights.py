"""Scales of INT8 weights for LiteRT's kernels, which want -127..127 and offset 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from autoquant.calibration.plan import LayerPlan
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import Array
from autoquant.targets.litert_library import operator_weight_scales, row_scales

LEAST = 1e-11
"""Weights with a smaller scale are all 0. LiteRT Quantizer has its own limit for that, just below."""
BIAS_STEPS = 2.0**30
"""Steps that a bias, INT32, may have: half of what there are, for the sums that are added."""


class Weights:
    """Chooses what becomes -127 and 127 in each weight; what two plans have in common is computed once."""

    def __init__(self, lite: LiteGraph) -> None:
        self._lite = lite
        self._kept: dict[tuple[str, bool, str], Array] = {}

    def scales(self, layer: Layer, settings: LayerPlan, scale_d: float, changed: Mapping[str, Array]) -> Array:
        """Scales of a layer's weight, as `scales_of`, but with room for the bias.

        `scale_d` is the scale of the layer's input, `changed` are constants by name. Raises TrialError where the
        weight or the bias hold NaN or infinity.
        """
        bias = changed.get(layer.bias, self._lite.constant(layer.bias)) if layer.bias else None
        return with_room(layer, self._own_scales(layer, settings, changed), bias, scale_d)

    def _own_scales(self, layer: Layer, settings: LayerPlan, changed: Mapping[str, Array]) -> Array:
        assert layer.weight is not None, layer.name
        op = self._lite.subgraph.operators[self._lite.layers[layer.name]]
        if layer.weight in changed:
            return scales_of(layer, changed[layer.weight], self._lite.model, op, settings)
        key = layer.name, settings.channel_wise, settings.weight_algorithm
        if key not in self._kept:
            weight = self._lite.constant(layer.weight)
            assert weight is not None, layer.weight
            self._kept[key] = scales_of(layer, weight, self._lite.model, op, settings)
        return self._kept[key]


def scales_of(layer: Layer, weight: Array, model: Any, op: Any, settings: LayerPlan) -> Array:
    """Scales of a layer's weight as LiteRT Quantizer chooses them: float64 that float32 holds, of the weight's rank.

    Shape is 1 but for the output channels, where each has its own. `op` (OperatorT) is the layer's operator in the
    model (ModelT). Channels that are all 0 get the largest scale of the others, or 1. Raises TrialError where the
    weight holds NaN or infinity.
    """
    if not np.isfinite(weight).all():
        hint = "repair the model, or leave the layer in float"
        raise TrialError(layer.name, "its weights hold NaN or infinity", hint=hint)
    algorithm, channel_wise = settings.weight_algorithm, settings.channel_wise
    found = operator_weight_scales(model, op, weight, algorithm, channel_wise=channel_wise)
    scales = found.astype(np.float64).reshape(_shape(layer, weight, settings))
    alive = scales > LEAST  # NaN fails too
    return np.where(alive, scales, scales[alive].max() if alive.any() else 1.0)


def clipped_scales(rows: Array, algorithm: str) -> Array:
    """The scale of each row of a weight, (channels, values), by the same algorithms, (channels,) float32.

    Rows that are all 0 get 1.
    """
    scales = row_scales(rows, algorithm)
    return np.where(scales > LEAST, scales, np.float32(1.0))


def with_room(layer: Layer, scales: Array, bias: Array | None, scale_d: float) -> Array:
    """The scales, raised where the bias would have more than BIAS_STEPS steps of scale_d times them.

    That takes weights 2^30 times as small as the bias, which it makes no difference to round. Shape as it was. Raises
    TrialError where the bias holds NaN or infinity.
    """
    if bias is None:
        return scales
    if not np.isfinite(bias).all():
        raise TrialError(layer.name, "its bias holds NaN or infinity", hint="repair the model, or leave it in float")
    least = np.abs(bias.astype(np.float64)) / (scale_d * BIAS_STEPS)
    least = least.reshape(scales.shape) if scales.size == least.size else least.max()
    return np.asarray(np.maximum(scales, least), np.float32).astype(np.float64)


def _shape(layer: Layer, weight: Array, settings: LayerPlan) -> tuple[int, ...]:
    axes = layer.channel_axes if settings.channel_wise else ()
    return tuple(size if axis in axes else 1 for axis, size in enumerate(weight.shape))
