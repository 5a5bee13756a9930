"""AMCT's DMQ balancer: channels of unequal size are made alike by moving a factor from the input into the weight."""

from __future__ import annotations

import numpy as np

from autoquant.array import Array
from autoquant.quantization.affine import EPSILON


def balance_factors(inputs: Array, weights: Array, strength: float) -> Array:
    """By what to divide each channel of the input and multiply that of the weight, (channels,), float32.

    `inputs` and `weights` are the largest absolute values of each input channel, (channels,). The factor is
    inputs^strength / weights^(1 - strength), as in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4). Where
    only one of the two is 0, the factor takes the other to the largest that the ordinary channels come to; where both
    are, it is 1; without any ordinary channel all are 1. Factors are clipped to [EPSILON, 1 / EPSILON].
    """
    inputs, weights = inputs.astype(np.float64), weights.astype(np.float64)
    ordinary = (inputs > 0.0) & (weights > 0.0)
    factors = np.ones(inputs.shape)
    if not ordinary.any():
        return factors.astype(np.float32)
    factors[ordinary] = inputs[ordinary] ** strength / weights[ordinary] ** (1.0 - strength)
    no_input, no_weight = (inputs == 0.0) & (weights > 0.0), (inputs > 0.0) & (weights == 0.0)
    factors[no_input] = (weights * factors)[ordinary].max() / weights[no_input]
    factors[no_weight] = inputs[no_weight] / (inputs / factors)[ordinary].max()
    return np.clip(factors, EPSILON, 1.0 / EPSILON).astype(np.float32)


def input_maxima(weight: Array, input_axis: int) -> Array:
    """The largest absolute value of each input channel of a weight, over all else, (channels,)."""
    others = tuple(axis for axis in range(weight.ndim) if axis != input_axis)
    return np.asarray(np.abs(weight).max(axis=others))


def balanced_weight(weight: Array, factors: Array, input_axis: int) -> Array:
    """The weight, each input channel multiplied by its factor, float32, same shape; infinite beyond float32."""
    shape = [-1 if axis == input_axis else 1 for axis in range(weight.ndim)]
    with np.errstate(over="ignore"):
        return np.asarray(weight * factors.reshape(shape), np.float32)
