"""Bias correction: what quantization adds to the mean of a layer's result is taken off its bias.

Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv:1906.04721, section
4.2; Finkelstein et al. 2019, Fighting Quantization Bias With Bias, arXiv:1906.03193.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoquant.array import Array
from autoquant.quantization.weights import by_channel


def mean_shift(error: Array, means: Array, *, input_axis: int, channel_axes: Sequence[int]) -> Array:
    """E[(W_q - W) x] of each output channel, (channels,), float64, from the mean of each input channel, (inputs,).

    `error` is W_q - W; the axis `input_axis` numbers its input channels, `channel_axes` its output channels in
    row-major order; what is on both is a depthwise convolution. Fewer input channels than `means` has are those of one
    group. Every value of the result is taken to meet the whole weight: zeros that a convolution pads with are not
    told from data.

    >>> mean_shift(np.array([[0.5, 0.0], [0.0, 0.25]]), np.array([2.0, 4.0]), input_axis=0, channel_axes=(1,)).tolist()
    [1.0, 1.0]
    """
    axes, axis = [number % error.ndim for number in channel_axes], input_axis % error.ndim
    if axis in axes:
        sums = by_channel(error.astype(np.float64), axes).sum(axis=1, keepdims=True)
    else:
        others = tuple(number for number in range(error.ndim) if number not in (*axes, axis))
        summed = error.astype(np.float64).sum(axis=others, keepdims=True)
        sums = by_channel(summed, axes)  # what is left is the input channels
    groups = means.astype(np.float64).reshape(-1, sums.shape[1])
    return np.asarray((sums * np.repeat(groups, len(sums) // len(groups), axis=0)).sum(axis=1))
