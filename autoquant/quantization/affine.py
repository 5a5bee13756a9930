"""Affine INT8 arithmetic of ranges, weights and biases: real = (q - offset) * scale, with q in -128..127.

The rules are those of AMCT's uniform quantization: zero is always representable, scales are float32, a range too
small to have a scale gets scale 1, one too large is an error. Ties round to even. The balancer moves factors from a
layer's input into its weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.errors import IN_FLOAT, TrialError

QMIN, QMAX = -128, 127
ALIKE = 2e-3
"""LiteRT takes a scale for a power of two where its binary logarithm is within half of this of a whole number."""
QMAX16 = 32767
"""Of INT16, which is symmetric: -32768 is not used."""
EPSILON = float(np.finfo(np.float32).eps)
"""Scales lie in [EPSILON, 1 / EPSILON]: hardware multiplies by 1 / scale."""
INT32 = np.iinfo(np.int32)
CLIPS = np.concatenate([np.linspace(0.2, 0.9, 15), np.linspace(0.91, 1.0, 19)])
"""Shares of the min-max scale that are tried where the squared error is to be least; near 1 half a step of 127 apart.

Where a channel has few weights it matters how each of them rounds: further from 1 clipping alone outweighs that.
"""
BLOCK = 1 << 15
"""Weights whose errors are computed at once: few enough to stay near the processor."""


@dataclass(frozen=True, slots=True)
class Range:
    """The real interval that INT8 shall cover; it always contains zero, because convolutions pad with it."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not -math.inf < self.low <= 0.0 <= self.high < math.inf:  # NaN fails too
            raise ValueError(f"a range is finite and contains zero, got [{self.low}, {self.high}]")

    @classmethod
    def covering(cls, low: float, high: float) -> Range:
        """The interval [low, high], widened to contain zero."""
        return cls(min(low, 0.0), max(high, 0.0))


@dataclass(frozen=True, slots=True)
class Affine:
    """A scale (real units a step, exact in float32) and the integer, of 8 bits, that stands for zero; of 16 it is 0."""

    scale: float
    offset: int
    bits: int = 8

    def __post_init__(self) -> None:
        if not EPSILON <= self.scale <= 1.0 / EPSILON:
            raise ValueError(f"scale must be in [{EPSILON:.3g}, {1.0 / EPSILON:.3g}], got {self.scale}")
        if float(np.float32(self.scale)) != self.scale:
            raise ValueError(f"scale must be a float32 number, got {self.scale!r}")
        if not QMIN <= self.offset <= QMAX:
            raise ValueError(f"offset must be in [{QMIN}, {QMAX}], got {self.offset}")
        if self.bits != 8 and (self.bits != 16 or self.offset):
            raise ValueError(f"there are 8 bits, or 16 without an offset, got {self.bits} with {self.offset}")

    @property
    def low(self) -> float:
        """The real number of the lowest integer."""
        return (-float(2 ** (self.bits - 1)) - self.offset) * self.scale

    @property
    def high(self) -> float:
        """The real number of the highest integer."""
        return (float(2 ** (self.bits - 1)) - 1.0 - self.offset) * self.scale


def asymmetric(interval: Range, *, power_of_two: bool = False) -> Affine:
    """Map [low, high] onto -128..127. Raises ValueError when the scale is beyond 1 / EPSILON.

    >>> asymmetric(Range(0.0, 255.0))
    Affine(scale=1.0, offset=-128, bits=8)
    """
    scale = _legal((interval.high - interval.low) / (QMAX - QMIN), power_of_two)
    return Affine(scale, int(np.clip(QMIN - np.rint(interval.low / scale), QMIN, QMAX)))


def symmetric(interval: Range, *, power_of_two: bool = False) -> Affine:
    """Map zero onto 0, and the side that reaches further onto 127 or -128. Raises ValueError as `asymmetric`.

    >>> symmetric(Range(-1.0, 0.5)).scale
    0.0078125
    """
    scale = float(symmetric_scales(np.array(interval.low), np.array(interval.high)))
    return Affine(_legal(scale, power_of_two), 0)


def wide(interval: Range, *, power_of_two: bool = False) -> Affine:
    """Map zero onto 0 of INT16, and the side that reaches further onto half of 32767: so many steps are plenty.

    So what lies beyond the range that was seen is not clipped. At least EPSILON, and no power of two by chance: where
    all scales of an ADD seem to be some, LiteRT's kernel takes a way that not all such scales have. Raises ValueError
    when it is beyond 1 / EPSILON.

    >>> wide(Range(-1.0, 1.5 * 32767.0))
    Affine(scale=3.0, offset=0, bits=16)
    """
    scale = max(2.0 * max(interval.high, -interval.low) / QMAX16, EPSILON)
    exponent = math.log2(scale)
    if not power_of_two and abs(exponent - round(exponent)) < ALIKE:
        scale *= 2.0**ALIKE
    return Affine(_legal(scale, power_of_two), 0, 16)


def symmetric_scales(low: Array, high: Array, *, bits: int = 8) -> Array:
    """Scale of each channel, float64: high / 127 where the positive side dominates, else -low / 128.

    With fewer bits the divisors are 2^(bits - 1) - 1 and 2^(bits - 1).
    """
    steps = 2 ** (bits - 1)
    return np.asarray(np.where(high > -low, high / (steps - 1), low / -steps))


def powers_of_two(scales: Array) -> Array:
    """The smallest powers of two that are no smaller, for positive finite scales, of the same type and shape.

    >>> powers_of_two(np.array([0.25, 0.3, 1.0], np.float32)).tolist()
    [0.25, 0.5, 1.0]
    """
    fractions, exponents = np.frexp(scales)  # fractions in [0.5, 1)
    return np.asarray(np.ldexp(np.ones_like(scales), exponents - (fractions == 0.5)))


def in_float16(scale: float) -> float:
    """A scale in the precision of float16: infinite or 0 where it is beyond that."""
    with np.errstate(over="ignore"):
        return float(np.float16(scale))


def _legal(scale: float, power_of_two: bool) -> float:
    with np.errstate(over="ignore"):  # infinity is refused by Affine
        rounded = np.float32(scale)
    if rounded < EPSILON:
        return 1.0
    return float(powers_of_two(np.array(rounded))) if power_of_two and np.isfinite(rounded) else float(rounded)


def weight_scales(
    layer: str,
    weight: Array,
    channel_axes: Sequence[int] | None,
    *,
    bits: int = 8,
    algorithm: str = "minmax",
    power_of_two: bool = False,
) -> Array:
    """Symmetric scales of a weight, float32: one per channel, channels in row-major order of `channel_axes`.

    `channel_axes` None gives one scale for the whole tensor. The full range -2^(bits - 1)..2^(bits - 1) - 1 is used
    (AMCT's ARQ); a channel too small to have a scale gets 1. With `algorithm` "mse" a channel is clipped where that
    makes its squared error the least (as in Banner et al. 2019, arXiv:1810.05723, but searched among CLIPS). Powers of
    two are no smaller than that. Raises TrialError where the weight is not finite or a scale is beyond 1 / EPSILON.
    """
    if not np.isfinite(weight).all():
        raise TrialError(
            layer, "its weights hold NaN or infinity", hint="repair the model, or leave the layer in float"
        )
    rows = by_channel(weight, channel_axes).astype(np.float64)
    scales = symmetric_scales(rows.min(axis=1), rows.max(axis=1), bits=bits).astype(np.float32)
    if scales.max() > 1.0 / EPSILON:
        raise TrialError(
            layer, f"weight scale {scales.max():.3g} is too large for INT8", hint="leave the layer in float"
        )
    if algorithm == "mse":
        scales = _least_error(rows, scales, bits)
    scales = np.where(scales < EPSILON, np.float32(1.0), scales)
    return powers_of_two(scales) if power_of_two else scales


def _least_error(rows: Array, scales: Array, bits: int) -> Array:
    """Of each row, (channels, weights), the share of its scale with the least squared error, float32.

    The largest of those that are equally good. Scales below EPSILON stay as they are.
    """
    alive = np.flatnonzero(scales >= EPSILON)
    tried = np.maximum(scales[alive, None] * CLIPS[::-1].astype(np.float32), np.float32(EPSILON))
    errors = np.zeros(tried.shape)
    few = max(1, BLOCK // rows.shape[1])
    for start in range(0, len(alive), few):
        own = slice(start, start + few)
        for first in range(0, rows.shape[1], BLOCK):
            errors[own] += _squared_errors(rows[alive[own], first : first + BLOCK], tried[own], bits)
    found = scales.copy()
    found[alive] = tried[np.arange(len(alive)), errors.argmin(axis=1)]
    return found


def _squared_errors(rows: Array, tried: Array, bits: int) -> Array:
    """The sums of (w - quantized w)^2 of each row under each of its scales, both (channels, ...)."""
    steps = 2 ** (bits - 1)
    errors = np.empty(tried.shape)
    for number, scales in enumerate(tried.T.astype(np.float64)):
        error = rows / scales[:, None]
        np.rint(error, out=error)
        np.minimum(np.maximum(error, -steps, out=error), steps - 1, out=error)
        error *= scales[:, None]
        error -= rows
        errors[:, number] = np.einsum("ij,ij->i", error, error)
    return errors


def quantize_weight(weight: Array, scales: Array, channel_axes: Sequence[int] | None, *, bits: int = 8) -> Array:
    """The weight in INT8, same shape: round(w / scale), clipped to -2^(bits - 1)..2^(bits - 1) - 1."""
    divisor = spread(scales, weight.ndim, weight.shape, channel_axes).astype(np.float64)
    steps = 2 ** (bits - 1)
    return np.clip(np.rint(weight.astype(np.float64) / divisor), -steps, steps - 1).astype(np.int8)


def quantize_bias(layer: str, bias: Array, scale_d: float, scales: Array) -> Array:
    """The INT32 bias, shape (channels,): round(b / (scale_d * scale_w)). Raises TrialError beyond INT32."""
    steps = np.rint(bias.astype(np.float64) / (scale_d * scales.astype(np.float64)))
    outside = np.flatnonzero(~((steps >= INT32.min) & (steps <= INT32.max)))  # NaN too
    if outside.size:
        channel = outside[0]
        what = f"its quantized bias {steps[channel]:.10g} of channel {channel}, beyond [{INT32.min}, {INT32.max}],"
        raise TrialError(layer, f"{what} exceeds int32", hint=IN_FLOAT)
    return steps.astype(np.int32)


def by_channel(weight: Array, channel_axes: Sequence[int] | None) -> Array:
    """The weight as rows, one per channel; one row for the whole tensor."""
    if channel_axes is None:
        return weight.reshape(1, -1)
    front = np.moveaxis(weight, channel_axes, range(len(channel_axes)))
    return front.reshape(int(np.prod(front.shape[: len(channel_axes)])), -1)


def from_channels(rows: Array, shape: Sequence[int], channel_axes: Sequence[int]) -> Array:
    """The weight of this shape whose rows, one per channel, these are: the inverse of `by_channel`."""
    others = [size for axis, size in enumerate(shape) if axis not in channel_axes]
    front = rows.reshape(*(shape[axis] for axis in channel_axes), *others)
    return np.moveaxis(front, range(len(channel_axes)), channel_axes)


def spread(scales: Array, ndim: int, shape: Sequence[int], channel_axes: Sequence[int] | None) -> Array:
    """One value a channel (or one in all) as a tensor that broadcasts against the weight."""
    axes = channel_axes if channel_axes is not None and scales.size > 1 else ()
    return scales.reshape([shape[axis] if axis in axes else 1 for axis in range(ndim)])


def balance_factors(inputs: Array, weights: Array, strength: float) -> Array:
    """By what AMCT's DMQ balancer divides each channel of the input and multiplies that of the weight, (channels,).

    `inputs` and `weights` are the largest absolute values of each input channel, (channels,). The factor is
    inputs^strength / weights^(1 - strength), as in SmoothQuant (Xiao et al. 2022, arXiv:2211.10438, equation 4). Where
    only one of the two is 0, the factor takes the other to the largest that the ordinary channels come to; where both
    are, it is 1; without any ordinary channel all are 1. Factors are clipped to [EPSILON, 1 / EPSILON]; float32.
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
