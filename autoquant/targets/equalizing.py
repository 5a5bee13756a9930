"""Equalization of a float model, whatever kind of program it is: other constants, the same operators and names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from autoquant.calibration.moments import Moments
from autoquant.errors import TrialError
from autoquant.model.chains import SIX, Array, Chains, Constants, Link
from autoquant.quantization.equalize import Joint, Sizes, absorbable, absorbed, equalizing_factors, scaled

MomentsOf = Callable[[Mapping[str, int]], Mapping[str, Moments]]
"""Moments of tensors of the model, each given with the axis that numbers its channels; of empty ones none."""
CONSTANT = 0.01
"""A channel whose values differ by less than that, relative to the largest, is one that training gave up."""
ROUNDING = 1e-5
"""How far beyond its bound, relative to it, float32 may take what a layer makes."""


def equalized_constants(chains: Chains, moments_of: MomentsOf) -> Mapping[str, Constants]:
    """Constants, float32, of the layers in chains, with which the model computes what it did, and channels are alike.

    Factors are exact for all inputs, up to rounding. A bias that is absorbed behind a ReLU is exact where values are no
    smaller than what was seen of their channel, elsewhere for all. Raises TrialError where a constant would not be
    finite.
    """
    names = list(chains.constants)
    sizes = [Sizes.of(own.weight, depthwise=own.depthwise) for own in chains.constants.values()]
    seen = moments_of({link.tensor: link.axis for link in chains.links}) if chains.links else {}
    joints = [_joint(link, chains, names, seen.get(link.tensor)) for link in chains.links]
    factors = equalizing_factors(sizes, joints)
    changed = dict(chains.constants)
    for link, factor in zip(chains.links, factors, strict=True):
        changed[link.first] = _divided(changed[link.first], factor)
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


def _joint(link: Link, chains: Chains, names: Sequence[str], seen: Moments | None) -> Joint:
    """The link by numbers; where a function clips, only what never comes to be clipped has another factor than 1."""
    least, most = np.zeros(link.channels), np.full(link.channels, np.inf)
    if link.tops is not None:
        below = link.tops * (1.0 + ROUNDING) / SIX
        least, most = np.minimum(below, 1.0), np.where(below <= 1.0, np.inf, 1.0)
    peaks, live = _peaks(link, chains.constants[link.first].bias, seen)
    return Joint(names.index(link.first), names.index(link.second), least, most, peaks, live)


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


def _divided(own: Constants, factors: Array) -> Constants:
    """A layer whose output channels are divided by factors."""
    weight = scaled(own.weight, depthwise=own.depthwise, outputs=1.0 / factors)
    return replace(own, weight=weight, bias=None if own.bias is None else own.bias / factors)


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
