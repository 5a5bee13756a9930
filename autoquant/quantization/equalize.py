"""Equalization and bias correction: repairs of a float model before it is quantized.

Channels of neighbouring layers are made alike: factors move from one weight into the next, high biases likewise. What
quantization adds to the mean of a layer's result is taken off its bias. Nagel et al., Data-Free Quantization Through
Weight Equalization and Bias Correction, ICCV 2019, arXiv:1906.04721; for biases section 4.2, and Finkelstein et al.
2019, Fighting Quantization Bias With Bias, arXiv:1906.03193.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.quantization.affine import by_channel

VERSION = 1
"""Version of what is computed here; part of the digests of equalized models."""
SWEEPS = 200
"""Most passes over all pairs."""
STEADY = 1e-4
"""Factors that change by no more than this, relative to 1, are done."""
HIGHEST = 1.5
"""Values of no channel are to be so many times as large as those of the median one."""
LIMIT = 2.0**20
"""No factor is larger, and none smaller than its inverse."""


@dataclass(frozen=True, eq=False)
class Sizes:
    """The largest absolute weight for each pair of channels: (in, out), of a depthwise convolution (in, multiplier)."""

    largest: Array
    depthwise: bool

    @classmethod
    def of(cls, weight: Array, *, depthwise: bool) -> Sizes:
        """Of a weight (..., in, out), or (..., in, multiplier)."""
        pairs = np.abs(weight.astype(np.float64)).reshape(-1, *weight.shape[-2:])
        return cls(pairs.max(axis=0), depthwise)

    @property
    def of_inputs(self) -> Array:
        """The largest of each input channel, (in,)."""
        return np.asarray(self.largest.max(axis=1))

    @property
    def of_outputs(self) -> Array:
        """The largest of each output channel, (out,); those of a depthwise one are in * multiplier."""
        return self.largest.reshape(-1) if self.depthwise else np.asarray(self.largest.max(axis=0))

    def scaled(self, *, inputs: Array | float = 1.0, outputs: Array | float = 1.0) -> Sizes:
        """With channels multiplied by factors: those of inputs come round again where there are more channels."""
        return Sizes(scaled(self.largest, depthwise=self.depthwise, inputs=inputs, outputs=outputs), self.depthwise)


@dataclass(frozen=True, eq=False)
class LayerPair:
    """Output channels of layer number `first` are the input channels of number `second`, perhaps several times over.

    Factors of the channels, (channels,), stay in [`least`, `most`], where 1 lies. `peaks`, (channels,), are the largest
    absolute values that `first` makes in each channel; the `live` ones are not the same for all that it reads.
    """

    first: int
    second: int
    least: Array
    most: Array
    peaks: Array
    live: Array

    def clipped(self, factors: Array) -> Array:
        """The nearest factors that may be, given that live channels are to be like each other, others no larger.

        Channels that training gave up have weights of next to nothing and a bias: made as large as others are, their
        values would be larger than everything else.
        """
        median = _median((self.peaks / factors)[self.live]) or np.inf
        least = np.maximum(self.peaks / (np.where(self.live, HIGHEST, 1.0) * median), 1.0 / LIMIT)
        bounded = np.minimum(np.maximum(factors, least), LIMIT)
        return np.asarray(np.minimum(np.maximum(bounded, self.least), self.most))


def _median(values: Array) -> float:
    """0 without any. `np.median` takes most of the time of `equalizing_factors`, which asks for many."""
    ordered, count = np.sort(values), values.size
    return float(ordered[(count - 1) // 2] + ordered[count // 2]) / 2.0 if count else 0.0


def equalizing_factors(layers: Sequence[Sizes], pairs: Sequence[LayerPair]) -> list[Array]:
    """For each pair s, (channels,): `first` is divided by it, and `second` multiplied, in float64.

    s = (1 / r2) sqrt(r1 r2), r1 and r2 the largest absolute weights of the channel in the two layers, so that both
    become sqrt(r1 r2) (equations 9 to 11); all pairs in turn, over and over, since each layer but the ends is in two.
    A channel that one of the two does not have, with weights of 0, keeps its size: nothing is gained by another.
    """
    now = list(layers)
    factors = [np.ones(pair.least.shape) for pair in pairs]
    for _ in range(SWEEPS):
        moved = 0.0
        for number, pair in enumerate(pairs):
            step = _step(now[pair.first].of_outputs, now[pair.second].of_inputs)
            wanted = pair.clipped(factors[number] * step)
            step = wanted / factors[number]
            now[pair.first] = now[pair.first].scaled(outputs=1.0 / step)
            now[pair.second] = now[pair.second].scaled(inputs=step)
            factors[number] = wanted
            moved = max(moved, float(np.abs(step - 1.0).max(initial=0.0)))
        if moved <= STEADY:
            break
    return factors


def _step(outputs: Array, inputs: Array) -> Array:
    """What makes both ranges of each channel alike, 1 where either is 0."""
    folded = inputs.reshape(-1, len(outputs)).max(axis=0)
    both = (outputs > 0.0) & (folded > 0.0)
    return np.sqrt(np.where(both, outputs, 1.0) / np.where(both, folded, 1.0))


def scaled(weight: Array, *, depthwise: bool, inputs: Array | float = 1.0, outputs: Array | float = 1.0) -> Array:
    """A weight (..., in, out), or (..., in, multiplier), its channels multiplied by factors, float64.

    Factors of inputs come round again where there are more input channels.
    """
    rows, columns = weight.shape[-2:]
    result = weight.astype(np.float64)
    if np.ndim(inputs):
        result = result * np.tile(inputs, rows // np.size(inputs))[:, None]
    if np.ndim(outputs):
        result = result * (np.reshape(outputs, (rows, columns)) if depthwise else outputs)
    return result


def absorbed(weight: Array, bias: Array, shift: Array, *, depthwise: bool) -> Array:
    """The bias (out,) that makes up for `shift` (channels,) subtracted from each value of an input channel, float64.

    b + W c (section 4.1.3), W summed over all positions, each of which must hold a value: where zeros are padded, it
    is wrong. Shifts come round again where there are more input channels.
    """
    rows, columns = weight.shape[-2:]
    sums = weight.astype(np.float64).reshape(-1, rows, columns).sum(axis=0)
    parts = sums * np.tile(shift, rows // len(shift))[:, None]
    return np.asarray(bias + (parts.reshape(-1) if depthwise else parts.sum(axis=0)))


def absorbable(low: Array, high: Array, *, rectified: bool) -> Array:
    """What of each channel (channels,) the next layer may take up, given the smallest and largest value seen of it.

    Behind a ReLU relu(x - c) = relu(x) - c for all x >= c, where c >= 0: c = max(0, low) is exact for all that was
    seen (the paper's mean less 3 standard deviations is not). Without, any c is exact, and the middle of the channel
    makes the range of all channels together the smallest. 0 where nothing finite was seen.
    """
    with np.errstate(invalid="ignore"):
        shift = np.maximum(low, 0.0) if rectified else (low + high) / 2.0
    return np.where(np.isfinite(shift), shift, 0.0)


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
