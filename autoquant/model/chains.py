"""Layers behind each other between which factors for channels can move, in a form that both kinds of programs have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SIX = 6.0
"""Where Relu6 clips."""


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
