"""Affine INT8 arithmetic: real = (q - offset) * scale, with q in -128..127.

The rules are those of AMCT's uniform quantization: zero is always representable, scales are float32, a range too
small to have a scale gets scale 1, one too large is an error. Ties round to even.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array

QMIN, QMAX = -128, 127
EPSILON = float(np.finfo(np.float32).eps)
"""Scales lie in [EPSILON, 1 / EPSILON]: hardware multiplies by 1 / scale."""


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
    """A scale (real units a step, exact in float32) and the INT8 value that stands for zero."""

    scale: float
    offset: int

    def __post_init__(self) -> None:
        if not EPSILON <= self.scale <= 1.0 / EPSILON:
            raise ValueError(f"scale must be in [{EPSILON:.3g}, {1.0 / EPSILON:.3g}], got {self.scale}")
        if float(np.float32(self.scale)) != self.scale:
            raise ValueError(f"scale must be a float32 number, got {self.scale!r}")
        if not QMIN <= self.offset <= QMAX:
            raise ValueError(f"offset must be in [{QMIN}, {QMAX}], got {self.offset}")


def asymmetric(interval: Range) -> Affine:
    """Map [low, high] onto -128..127. Raises ValueError when the scale is beyond 1 / EPSILON.

    >>> asymmetric(Range(0.0, 255.0))
    Affine(scale=1.0, offset=-128)
    """
    scale = _legal((interval.high - interval.low) / (QMAX - QMIN))
    return Affine(scale, int(np.clip(QMIN - np.rint(interval.low / scale), QMIN, QMAX)))


def symmetric(interval: Range) -> Affine:
    """Map zero onto 0, and the side that reaches further onto 127 or -128. Raises ValueError as `asymmetric`.

    >>> symmetric(Range(-1.0, 0.5)).scale
    0.0078125
    """
    return Affine(_legal(float(symmetric_scales(np.array(interval.low), np.array(interval.high)))), 0)


def symmetric_scales(low: Array, high: Array, *, bits: int = 8) -> Array:
    """Scale of each channel, float64: high / 127 where the positive side dominates, else -low / 128.

    With fewer bits the divisors are 2^(bits - 1) - 1 and 2^(bits - 1).
    """
    steps = 2 ** (bits - 1)
    return np.asarray(np.where(high > -low, high / (steps - 1), low / -steps))


def in_float16(scale: float) -> float:
    """A scale in the precision of float16: infinite or 0 where it is beyond that."""
    with np.errstate(over="ignore"):
        return float(np.float16(scale))


def _legal(scale: float) -> float:
    with np.errstate(over="ignore"):  # infinity is refused by Affine
        rounded = float(np.float32(scale))
    return 1.0 if rounded < EPSILON else rounded
