"""Ranges from order statistics."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoquant.calibration.distribution import Distribution
from autoquant.quantization.affine import Range


@dataclass(frozen=True, slots=True)
class MinMax:
    """Cover everything that was seen."""

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """From the smallest to the largest value."""
        return with_zero(distribution.low, distribution.high)


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip the tails: keep the central `fraction` of the values seen, in (0.5, 1]."""

    fraction: float = 0.99999

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """Leave out the same number of values, (1 - fraction) / 2 of all, at either end."""
        k = 1 + math.floor((1.0 - self.fraction) / 2.0 * distribution.count)
        return with_zero(distribution.smallest(k), distribution.largest(k))


def with_zero(low: float, high: float) -> Range:
    """The interval, widened to contain zero."""
    return Range(min(low, 0.0), max(high, 0.0))


def check_fraction(name: str, value: float) -> None:
    """Raise ValueError where `value` is not in (0.5, 1]."""
    if not 0.5 < value <= 1.0:  # NaN fails too
        raise ValueError(f"{name} must be greater than 0.5 and less than or equal to 1.0, got {value}")
