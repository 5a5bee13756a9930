"""The layers in the order in which they run, side by side: as wide as they are costly, as tall as they lose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

STRIP, BARS = 36, 90
"""Heights of the strip and of the bars above it, in pixels."""
SHADES = 5
"""Shades of the predicted loss."""
LEAST = 0.35
"""The width of a layer that costs next to nothing, in shares of what all would have if they cost the same."""


class Place(StrEnum):
    """Where a layer is."""

    INT8 = "INT8"
    FLOAT = "float"
    CANNOT = "cannot be INT8"


@dataclass(frozen=True, slots=True)
class Cell:
    """A layer, by its position in the list: x and width in percent, bar in pixels, and its shade, 0 the lightest.

    Without a predicted loss it has neither bar nor shade.
    """

    index: int
    x: float
    width: float
    place: Place
    bar: float | None
    shade: int | None


@dataclass(frozen=True, slots=True)
class LayerStrip:
    """All cells, and the losses at the ends of the shades, SHADES + 1 of them; none where nothing was predicted."""

    cells: tuple[Cell, ...]
    limits: tuple[float, ...]
    strip: int
    bars: int


def layer_strip(costs: Sequence[int], places: Sequence[Place], losses: Sequence[float | None]) -> LayerStrip:
    """Of layers in network order: costs in any unit, predicted losses in nats or None where nobody predicted one.

    Widths are proportional to costs, but for layers that would be too thin to be seen. Bars and shades are of the
    logarithm of the loss, from the largest down to a thousandth of it.
    """
    total, least = sum(costs) or 1, LEAST / max(len(costs), 1)
    wide = [max(cost / total, least) for cost in costs]
    scale = 100.0 / (sum(wide) or 1.0)
    known = [loss for loss in losses if loss is not None and loss > 0.0]
    top = max(known, default=0.0)
    bottom = max(min(known, default=0.0), top / 1000.0)
    cells, x = [], 0.0
    for index, (width, place, loss) in enumerate(zip(wide, places, losses, strict=True)):
        level = None if loss is None or top == 0.0 else _level(loss, bottom, top)
        shade = None if level is None else min(int(level * SHADES), SHADES - 1)
        bar = None if level is None else round(4 + level * (BARS - 8), 1)
        cells.append(Cell(index, round(x, 3), round(width * scale, 3), place, bar, shade))
        x += width * scale
    limits = () if top == 0.0 else tuple(bottom * (top / bottom) ** (step / SHADES) for step in range(SHADES + 1))
    return LayerStrip(tuple(cells), limits, STRIP, BARS)


def _level(loss: float, bottom: float, top: float) -> float:
    """Where a loss lies between bottom and top, 0 to 1, by its logarithm."""
    if loss <= bottom:
        return 0.0 if bottom < top else 1.0
    return min(math.log(loss / bottom) / math.log(top / bottom), 1.0)
