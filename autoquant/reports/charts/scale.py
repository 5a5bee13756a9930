"""Scales: from values to places on an axis, and the round values that are written beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)
"""Steps of an axis, times a power of ten."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear scale: `low` is at `start`, `high` at `end`, in percent of a width or pixels of a height."""

    low: float
    high: float
    start: float
    end: float

    def __post_init__(self) -> None:
        if not self.low < self.high:  # NaN fails too
            raise ValueError(f"an axis has an extent, got {self.low} to {self.high}")

    def __call__(self, value: float) -> float:
        """The place of a value, rounded to a hundredth; beyond the ends of the scale that of the end.

        >>> Scale(0.0, 4.0, 100.0, 0.0)(1.0), Scale(0.0, 4.0, 100.0, 0.0)(5.0)
        (75.0, 0.0)
        """
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, most: int) -> list[Tick]:
        """At most so many round values, with their places."""
        values = round_values(self.low, self.high, most)
        decimals = decimals_of(values)
        return [Tick(self(value), f"{value + 0.0:.{decimals}f}") for value in values]


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis, and what is written there."""

    at: float
    text: str


def round_values(low: float, high: float, most: int) -> list[float]:
    """At most so many multiples of a round step within `low`..`high`, as many as there can be.

    >>> round_values(-0.003, 0.021, 4)
    [0.0, 0.01, 0.02]
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (*ROUND, 20.0, 25.0, 50.0, 100.0):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return [round(number * step, 12) for number in range(first, last + 1)]


def decimals_of(values: list[float]) -> int:
    """The decimals with which all values can be written, 6 at most.

    >>> decimals_of([0.0, 0.25]), decimals_of([1.0, 20.0])
    (2, 0)
    """
    return next((count for count in range(6) if all(abs(round(v, count) - v) < 1e-9 for v in values)), 6)


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """A range with room at both ends; one without extent gets some."""
    room = (high - low) * share or max(abs(high), 1e-6) * 0.5
    return low - room, high + room
