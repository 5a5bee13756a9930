"""How much worse than FP32 the INT8 model may be."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoquant.errors import UsageError

_ROUNDING = 1e-6
"""Added to a tolerance, as a share of it, for binary rounding: 0.7604 - 0.7554 is within 0.005."""


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The largest drop within tolerance, in units of the metric, or, `relative`, as a share of the baseline."""

    value: float
    relative: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.value < math.inf:  # NaN fails too
            raise ValueError(f"a tolerance must be a number of at least 0, got {self.value}")

    @classmethod
    def parse(cls, text: str | float | Tolerance) -> Tolerance:
        """Read '0.005' (absolute) or '1%' (relative). Raises UsageError.

        >>> Tolerance.parse("1%")
        Tolerance(value=0.01, relative=True)
        """
        if isinstance(text, Tolerance):
            return text
        words = str(text).strip()
        try:
            value = float(words.removesuffix("%"))
            return cls(value / 100.0, relative=True) if words.endswith("%") else cls(value)
        except ValueError:
            hint = "give a number of at least 0 such as 0.005, or a percentage of the baseline such as 1%"
            raise UsageError("--tolerance", f"cannot read '{text}'", hint=hint) from None

    def absolute(self, baseline: float) -> float:
        """The largest drop within tolerance, in units of the metric."""
        return self.value * abs(baseline) if self.relative else self.value

    def __str__(self) -> str:
        return f"{self.value * 100:.15g}%" if self.relative else f"{self.value:.15g}"


def drop_from(baseline: float, score: float, *, higher_is_better: bool) -> float:
    """How much worse `score` is than `baseline`; negative when it is better."""
    return baseline - score if higher_is_better else score - baseline


def worst_score(baseline: float, max_drop: float, *, higher_is_better: bool) -> float:
    """The worst score within tolerance, for the largest drop within it."""
    return baseline - max_drop if higher_is_better else baseline + max_drop


def within(drop: float, max_drop: float) -> bool:
    """Whether a drop is within tolerance, for the largest drop that is; never for NaN."""
    return drop <= max_drop * (1.0 + _ROUNDING)
