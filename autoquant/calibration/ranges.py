"""Range algorithms: which real interval INT8 should cover, by the distribution of a tensor.

To add one: a frozen dataclass of its parameters that can be called with a distribution, and a row in RANGES, or an
entry point of a package. Here are those that order statistics decide: all values, all but the tails, and IFMR, which
then moves the upper bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import Distribution
from autoquant.calibration.entropy import Entropy
from autoquant.calibration.hfmg import Hfmg
from autoquant.calibration.squared_error import Levels, Mse, best_range, first_least, squared_errors
from autoquant.errors import PlanError
from autoquant.extensions import Table
from autoquant.quantization.affine import Range

__all__ = ["RANGES", "Entropy", "Hfmg", "Ifmr", "MinMax", "Mse", "Percentile", "RangeAlgorithm", "range_name"]

MOST_STEPS = 100_000
"""Most candidates that IFMR tries."""


class RangeAlgorithm(Protocol):
    """Chooses the real range that INT8 should cover, from the distribution of one tensor.

    A frozen dataclass of its parameters, so that two of equal parameters are equal.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """The range; `symmetric` says that it will be used with offset 0. `distribution` holds at least one value."""
        ...


@dataclass(frozen=True, slots=True)
class MinMax:
    """Cover all values."""

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """From the smallest to the largest value."""
        return Range.covering(distribution.low, distribution.high)


@dataclass(frozen=True, slots=True)
class Percentile:
    """Clip the tails: keep the central `fraction` of the values, in (0.5, 1]."""

    fraction: float = 0.99999

    def __post_init__(self) -> None:
        _check_fraction("fraction", self.fraction)

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """Leave out the same number of values, (1 - fraction) / 2 of all, at either end."""
        k = 1 + math.floor((1.0 - self.fraction) / 2.0 * distribution.count)
        return Range.covering(distribution.smallest(k), distribution.largest(k))


@dataclass(frozen=True, slots=True)
class Ifmr:
    """AMCT's default: start from percentiles, then move the upper bound to where the squared error is least.

    Candidates are r * max for r = search_start, search_start + search_step, ..., search_end; min stays, except with
    offset 0, where both bounds move together. The error is that of clipping and rounding, without the rounding of the
    offset, as AMCT computes it. AMCT lets a candidate without a legal scale win, which then fails; here it never does.
    """

    max_percentile: float = 0.999999
    min_percentile: float = 0.999999
    search_start: float = 0.7
    search_end: float = 1.3
    search_step: float = 0.01

    def __post_init__(self) -> None:
        _check_fraction("max_percentile", self.max_percentile)
        _check_fraction("min_percentile", self.min_percentile)
        bounds = f"[{self.search_start}, {self.search_end}]"
        if not self.search_start > 0.0:  # NaN fails too, here and below
            raise ValueError(f"search_range[0] must be greater than zero, got {bounds}")
        if not self.search_start < self.search_end < math.inf:
            raise ValueError(f"search_range[0] must be less than search_range[1], got {bounds}")
        if not self.search_step > 0.0:
            raise ValueError(f"search_step must be greater than zero, got {self.search_step}")
        if self._steps < 1.0:
            most = "(search_range[1] - search_range[0])"
            raise ValueError(f"search_step must be less than or equal to {most}, got {self.search_step} of {bounds}")
        if self._steps > MOST_STEPS:
            what = f"search_step {self.search_step} divides {bounds} into more than {MOST_STEPS:,} steps"
            raise ValueError(f"{what}: to try them all takes too long")

    def __call__(self, distribution: Distribution, *, symmetric: bool) -> Range:
        """The candidate of least squared error, the first of equals; the percentiles where none has a legal scale."""
        count = distribution.count
        start = Range.covering(
            distribution.smallest(_kth(self.min_percentile, count)),
            distribution.largest(_kth(self.max_percentile, count)),
        )
        ratios = self.ratios
        lows, highs = start.low * (ratios if symmetric else np.ones(len(ratios))), start.high * ratios

        def best(lows: Array, highs: Array, scales: Array) -> int:
            reach = np.maximum(-lows, highs)  # with offset 0 a candidate clips at both sides of its larger bound
            levels = _between(*((-reach, reach) if symmetric else (lows, highs)), scales)
            return first_least(squared_errors(distribution, levels), levels, count)

        return best_range(lows, highs, best, symmetric=symmetric) or start

    @property
    def ratios(self) -> Array:
        """The candidates, as multiples of the bound that moves."""
        return self.search_start + self.search_step * np.arange(math.floor(self._steps) + 1)

    @property
    def _steps(self) -> float:
        """From start to end; a whole number can come out a hair short in binary, hence the small allowance."""
        return (self.search_end - self.search_start) / self.search_step + 1e-6


def _between(lows: Array, highs: Array, scales: Array) -> Levels:
    """What clipping to [low, high] and then rounding to multiples of the scale can give."""
    first, last = np.rint(lows / scales), np.rint(highs / scales)
    return Levels(first * scales, scales, (last - first + 1).astype(np.intp))


def _kth(fraction: float, count: int) -> int:
    return 1 if fraction == 1.0 else max(count - math.floor(fraction * count), 1)


def _check_fraction(name: str, value: float) -> None:
    """Raise ValueError where `value` is not in (0.5, 1]."""
    if not 0.5 < value <= 1.0:  # NaN fails too
        raise ValueError(f"{name} must be greater than 0.5 and less than or equal to 1.0, got {value}")


def _checked(name: str, distribution: str, found: Any) -> Callable[..., RangeAlgorithm]:
    """A row of another distribution. Raises TypeError."""
    if not (isinstance(found, type) and is_dataclass(found) and found.__dataclass_params__.frozen):  # type: ignore[attr-defined]
        raise TypeError("must be a frozen dataclass")
    for entry in fields(found):
        if type(entry.default) not in (bool, int, float, str):
            raise TypeError(f"its parameter '{entry.name}' must have a default that is a bool, int, float or str")
    if not callable(found()):
        raise TypeError("must have a method __call__(distribution, *, symmetric)")
    return cast("Callable[..., RangeAlgorithm]", found)


RANGES: Table[Callable[..., RangeAlgorithm]] = Table(
    "autoquant.range_algorithms",
    "range algorithm",
    {
        "entropy": Entropy,
        "hfmg": Hfmg,
        "ifmr": Ifmr,
        "minmax": MinMax,
        "mse": Mse,
        "percentile": Percentile,
    },
    _checked,
)


def range_name(setting: RangeAlgorithm) -> str:
    """The word for a setting's algorithm. Raises PlanError where it is none of ours or of an installed package."""
    found = RANGES.name_of(type(setting))
    if found is None:
        hint = "let its package name it as an entry point of autoquant.range_algorithms"
        raise PlanError(type(setting).__name__, "is no range algorithm that is known by name", hint=hint)
    return found
