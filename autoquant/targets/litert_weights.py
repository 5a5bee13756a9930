"""Scales of weights in a .tflite, as LiteRT Quantizer chooses them, and raised where a bias asks for it."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import LayerPlan
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.quantization.affine import powers_of_two
from autoquant.targets.litert_library import operator_weight_scales, row_scales

LEAST = 1e-11
"""Weights with a smaller scale are all 0. LiteRT Quantizer has its own limit for that, just below."""
BIAS_STEPS = 2.0**30
"""Steps that a bias, INT32, may have: half of what there are, for the sums that are added."""


def scales_of(layer: Layer, weight: Array, lite: LiteGraph, settings: LayerPlan) -> Array:
    """Scales of a layer's weight as LiteRT Quantizer chooses them: float64 that float32 holds, of the weight's rank.

    Shape is 1 but for the output channels, where each has its own. Channels that are all 0 get the largest scale of the
    others, or 1. Raises TrialError where the weight holds NaN or infinity.
    """
    if not np.isfinite(weight).all():
        hint = "repair the model, or leave the layer in float"
        raise TrialError(layer.name, "its weights hold NaN or infinity", hint=hint)
    op = lite.operators[lite.layers[layer.name]]
    algorithm, channel_wise = settings.weight_algorithm, settings.channel_wise
    found = operator_weight_scales(lite.model, op, weight, algorithm, channel_wise=channel_wise)
    scales = found.astype(np.float64).reshape(_shape(layer, weight, settings))
    alive = scales > LEAST  # NaN fails too
    scales = np.where(alive, scales, scales[alive].max() if alive.any() else 1.0)
    return powers_of_two(scales) if settings.power_of_two else scales


def clipped_scales(rows: Array, algorithm: str) -> Array:
    """The scale of each row of a weight, (channels, values), by the same algorithms, (channels,) float32.

    Rows that are all 0 get 1.
    """
    scales = row_scales(rows, algorithm)
    return np.where(scales > LEAST, scales, np.float32(1.0))


def raised_for_bias(layer: Layer, scales: Array, bias: Array | None, scale_d: float) -> Array:
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
