"""The drop against the tolerance: a row for each measurement, with what is claimed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoquant.reports.charts.scale import Scale, Tick, padded

ROW, TOP, AXIS = 46, 22, 24
"""Pixels of a row, above the first, and below the last."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A drop, and what is known of it: an interval, whose `low` is None where it is open to that side.

    `shape` is that of the mark; `words` say what the row shows.
    """

    name: str
    drop: float
    low: float | None
    high: float | None
    shape: str
    words: str


@dataclass(frozen=True, slots=True)
class DropRow:
    """Where a row is drawn: x in percent, y in pixels."""

    measured: Measured
    y: float
    x: float
    left: float | None
    right: float | None
    open_left: bool


@dataclass(frozen=True, slots=True)
class DropChart:
    """All of the picture."""

    rows: tuple[DropRow, ...]
    ticks: tuple[Tick, ...]
    tolerance: float
    zero: float
    height: int


def drop_chart(rows: Sequence[Measured], max_drop: float) -> DropChart:
    """Rows from top to bottom, on an axis that has FP32 and the tolerance in it."""
    known = [0.0, max_drop, *(row.drop for row in rows)]
    known += [end for row in rows for end in (row.low, row.high) if end is not None]
    scale = Scale(*padded(min(known), max(known)), 1.0, 99.0)
    drawn = tuple(
        DropRow(
            measured=row,
            y=TOP + place * ROW + 28,
            x=scale(row.drop),
            left=None if row.high is None else scale(scale.low if row.low is None else row.low),
            right=None if row.high is None else scale(row.high),
            open_left=row.low is None,
        )
        for place, row in enumerate(rows)
    )
    height = TOP + ROW * len(rows) + AXIS
    return DropChart(drawn, tuple(scale.ticks(5)), scale(max_drop), scale(0.0), height)
