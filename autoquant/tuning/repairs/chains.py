"""Chains of layers between which factors of channels can move, and the constants that make channels alike.

In a form that both kinds of programs have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autoquant.array import Array
from autoquant.calibration.channels import Moments
from autoquant.errors import TrialError
from autoquant.quantization.equalize import LayerPair, Sizes, absorbable, absorbed, equalizing_factors, scaled

SIX = 6.0
"""Where Relu6 clips."""


MomentsOf = Callable[[Mapping[str, int]], Mapping[str, Moments]]
"""Moments of tensors of the model, each given with the axis that numbers its channels; of empty ones none."""
CONSTANT = 0.01
"""A channel whose values differ by less than that, relative to the largest, is one that training gave up."""
ROUNDING = 1e-5
"""How far beyond its bound, relative to it, float32 may take what a layer makes."""


@dataclass(frozen=True, eq=False)
class Constants:
    """The constants of a layer: weight (..., in, out), of a depthwise convolution (..., in, multiplier); bias (out,).

    A depthwise convolution has in * multiplier output channels, those of the first input channel first.
    """

    weight: Array
    bias: Array | None
    depthwise: bool = False

    @property
    def outputs(self) -> int:
        """Output channels."""
        return int(self.weight.shape[-1] * (self.weight.shape[-2] if self.depthwise else 1))


@dataclass(frozen=True, eq=False)
class Link:
    """The output channels of layer `first` are the input channels of `second`, which nothing else reads.

    A positive factor passes what lies between unchanged, in each channel by itself. Where `second` reads several values
    of a channel as inputs of their own, the channels come round again and again. `tensor` is what `first` makes, with
    its channels on `axis`. `shifts` says that also a constant passes that is subtracted from a channel, and that
    `second` can take it up: where `rectified`, a constant that is no less than 0 and no more than any value of the
    channel. `tops` are bounds (channels,) for what `first` makes, where a function between clips at SIX; else None.
    """

    first: str
    second: str
    channels: int
    tensor: str
    axis: int
    shifts: bool
    rectified: bool
    tops: Array | None = None


@dataclass(frozen=True)
class Chains:
    """All links of a program in the order of its layers, and the constants of the layers at their ends."""

    links: tuple[Link, ...]
    constants: Mapping[str, Constants]


def largest_results(constants: Constants, largest: float) -> Array:
    """Bounds (out,) for what a layer makes of values in [0, largest]: its bias and all its positive weights.

    >>> largest_results(Constants(np.array([[0.5, -1.0], [0.25, 2.0]]), np.array([1.0, 0.0])), 4.0)
    array([4., 8.])
    """
    positive = np.maximum(constants.weight.astype(np.float64), 0.0)
    taps = positive.reshape(-1, *positive.shape[-2:]).sum(axis=0)
    sums = taps.reshape(-1) if constants.depthwise else taps.sum(axis=0)
    if np.isinf(largest):
        return np.full(sums.shape, np.inf)
    return np.asarray(sums * largest + (0.0 if constants.bias is None else constants.bias.astype(np.float64)))


def equalized_constants(chains: Chains, moments_of: MomentsOf) -> Mapping[str, Constants]:
    """Constants, float32, of the layers in chains, with which the model computes what it did, and channels are alike.

    Factors are exact for all inputs, up to rounding. A bias that is absorbed behind a ReLU is exact where values are no
    smaller than what was seen of their channel, elsewhere for all. Raises TrialError where a constant would not be
    finite.
    """
    names = list(chains.constants)
    sizes = [Sizes.of(own.weight, depthwise=own.depthwise) for own in chains.constants.values()]
    seen = moments_of({link.tensor: link.axis for link in chains.links}) if chains.links else {}
    pairs = [_pair(link, chains, names, seen.get(link.tensor)) for link in chains.links]
    factors = equalizing_factors(sizes, pairs)
    changed = dict(chains.constants)
    for link, factor in zip(chains.links, factors, strict=True):
        first = changed[link.first]
        weight = scaled(first.weight, depthwise=first.depthwise, outputs=1.0 / factor)
        changed[link.first] = replace(first, weight=weight, bias=None if first.bias is None else first.bias / factor)
        second = changed[link.second]
        weight = scaled(second.weight, depthwise=second.depthwise, inputs=factor)
        changed[link.second] = replace(second, weight=weight)
    for link, shift in _shifts(chains.links, factors, seen):
        first, second = changed[link.first], changed[link.second]
        assert first.bias is not None and second.bias is not None, link
        changed[link.first] = replace(first, bias=first.bias - shift)
        bias = absorbed(second.weight, second.bias, shift, depthwise=second.depthwise)
        changed[link.second] = replace(second, bias=bias)
    return {name: _float32(name, own) for name, own in changed.items()}


def _pair(link: Link, chains: Chains, names: Sequence[str], seen: Moments | None) -> LayerPair:
    """The link by numbers; where a function clips, only what never comes to be clipped has another factor than 1."""
    least, most = np.zeros(link.channels), np.full(link.channels, np.inf)
    if link.tops is not None:
        below = link.tops * (1.0 + ROUNDING) / SIX
        least, most = np.minimum(below, 1.0), np.where(below <= 1.0, np.inf, 1.0)
    peaks, live = _peaks(link, chains.constants[link.first].bias, seen)
    return LayerPair(names.index(link.first), names.index(link.second), least, most, peaks, live)


def _peaks(link: Link, bias: Array | None, seen: Moments | None) -> tuple[Array, Array]:
    """The largest absolute values of each channel that is linked, or its bias, and which of them change at all."""
    peaks = np.zeros(link.channels) if bias is None else np.abs(bias.astype(np.float64))
    if seen is None:
        return peaks, np.zeros(link.channels, np.bool_)
    low, high = np.nan_to_num(seen.low), np.nan_to_num(seen.high)
    if link.rectified:
        low, high = np.maximum(low, 0.0), np.maximum(high, 0.0)
    peaks = np.maximum(peaks, np.maximum(-low, high))
    return peaks, high - low > CONSTANT * peaks


def _shifts(
    links: Sequence[Link], factors: Sequence[Array], seen: Mapping[str, Moments]
) -> Iterator[tuple[Link, Array]]:
    """What is absorbed behind each link, in units of the equalized model; links where that is nothing are left out."""
    for link, factor in zip(links, factors, strict=True):
        if link.shifts and link.tensor in seen:
            shift = absorbable(seen[link.tensor].low, seen[link.tensor].high, rectified=link.rectified)
            if link.tops is not None:  # what is clipped at 6 would be clipped above that
                shift = np.where(link.tops * (1.0 + ROUNDING) <= SIX, shift, 0.0)
            if shift.any():
                yield link, shift / factor


def _float32(name: str, own: Constants) -> Constants:
    with np.errstate(over="ignore", invalid="ignore"):
        weight = own.weight.astype(np.float32)
        bias = None if own.bias is None else own.bias.astype(np.float32)
    if not (np.isfinite(weight).all() and (bias is None or np.isfinite(bias).all())):
        raise TrialError(name, "equalized, it is beyond float32", hint="set equalize to false")
    return replace(own, weight=weight, bias=bias)
