"""Range algorithms: which real interval INT8 should cover, decided from a sketch.

To add one: a frozen dataclass of its parameters that can be called with a sketch, and a row in RANGES.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import numpy as np

from autoquant.calibration.sketch import Sketch
from autoquant.quantization.affine import EPSILON, QMAX, QMIN, Array, Range


class RangeAlgorithm(Protocol):
    """Chooses the real range that INT8 should cover, from what calibration saw of one tensor.

    A frozen dataclass of its parameters, so that two of equal parameters are equal.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, seen: Sketch, *, symmetric: bool) -> Range:
        """The range; `symmetric` says that it will be used with offset 0."""
        ...


@dataclass(frozen=True, slots=True)
class MinMax:
    """Cover everything that was seen."""

    def __call__(self, seen: Sketch, *, symmetric: bool) -> Range:
        """From the smallest to the largest value."""
        return _with_zero(seen.low, seen.high)


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip the tails: keep the central `fraction` of the values seen, in (0.5, 1]."""

    fraction: float = 0.99999

    def __post_init__(self) -> None:
        _check_fraction("fraction", self.fraction)

    def __call__(self, seen: Sketch, *, symmetric: bool) -> Range:
        """Leave out the same number of values, (1 - fraction) / 2 of all, at either end."""
        k = 1 + math.floor((1.0 - self.fraction) / 2.0 * seen.count)
        return _with_zero(seen.smallest(k), seen.largest(k))


@dataclass(frozen=True, slots=True)
class Ifmr:
    """AMCT's default: start from percentiles, then move the upper bound to where the squared error is least.

    Candidates are r * max for r = start, start + step, ..., end; min stays, except with offset 0, where both bounds
    move together. The error is that of rounding and clipping, without the rounding of the offset, as AMCT computes it.
    """

    max_percentile: float = 0.999999
    min_percentile: float = 0.999999
    search_start: float = 0.7
    search_end: float = 1.3
    search_step: float = 0.01

    def __post_init__(self) -> None:
        _check_fraction("max_percentile", self.max_percentile)
        _check_fraction("min_percentile", self.min_percentile)
        if not 0.0 < self.search_start < self.search_end < math.inf:
            raise ValueError(f"search_range must be 0 < start < end, got [{self.search_start}, {self.search_end}]")
        if not 0.0 < self.search_step <= self.search_end - self.search_start:
            raise ValueError(f"search_step must be in (0, end - start], got {self.search_step}")

    def __call__(self, seen: Sketch, *, symmetric: bool) -> Range:
        """The candidate of least mean squared error; the first of equals."""
        start = _with_zero(
            seen.smallest(_kth(self.min_percentile, seen.count)), seen.largest(_kth(self.max_percentile, seen.count))
        )
        values, counts = seen.values()
        best, least = start, math.inf
        for ratio in self._ratios():
            candidate = Range(start.low * ratio if symmetric else start.low, start.high * ratio)
            loss = _squared_error(values, counts, candidate, symmetric=symmetric)
            if loss < least:
                best, least = candidate, loss
        return best

    def _ratios(self) -> Array:
        # A whole number of steps can come out a hair short in binary, hence the small allowance.
        steps = math.floor((self.search_end - self.search_start) / self.search_step + 1e-6)
        return self.search_start + self.search_step * np.arange(steps + 1)


RANGES: Mapping[str, Callable[..., RangeAlgorithm]] = MappingProxyType(
    {"ifmr": Ifmr, "minmax": MinMax, "percentile": Percentile}
)


def range_name(setting: RangeAlgorithm) -> str:
    """The word for a setting's algorithm."""
    return next(name for name, kind in RANGES.items() if type(setting) is kind)


def _squared_error(values: Array, counts: Array, candidate: Range, *, symmetric: bool) -> float:
    """Sum over all values of (quantized - value)^2, infinite where the candidate has no legal scale."""
    if symmetric:
        scale = candidate.high / QMAX if candidate.high > -candidate.low else candidate.low / QMIN
        low, high = QMIN * scale, QMAX * scale
    else:
        scale = (candidate.high - candidate.low) / (QMAX - QMIN)
        low, high = candidate.low, candidate.high
    if not EPSILON <= scale <= 1.0 / EPSILON:
        return math.inf
    rounded = np.rint(np.clip(values, low, high) / scale) * scale
    return float(np.dot((rounded - values) ** 2, counts))


def _kth(fraction: float, count: int) -> int:
    return 1 if fraction == 1.0 else max(count - math.floor(fraction * count), 1)


def _with_zero(low: float, high: float) -> Range:
    return Range(min(low, 0.0), max(high, 0.0))


def _check_fraction(name: str, value: float) -> None:
    if not 0.5 < value <= 1.0:  # NaN fails too
        raise ValueError(f"{name} must be greater than 0.5 and at most 1, got {value}")
