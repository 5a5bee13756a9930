"""Trials as marks: accuracy against the share in INT8 with the front, and the history of the search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from autoquant.reports.charts.scale import Scale, Tick, decimals_of, padded, round_values
from autoquant.tuning.study.pareto import pareto_front
from autoquant.tuning.study.trial import State, Trial

SHOWN = 5.0
"""Drops up to so many times the tolerance are drawn to scale; those beyond lie at the edge."""
TRADE_OFF, HISTORY, BARS = 280, 200, 72
"""Heights of plots, in pixels."""
TOP, EDGE = 18, 14
"""Pixels above a plot, and of the margin below, where trials beyond the scale are."""
LEFT, RIGHT = 7.0, 98.5
"""Where a plot begins and ends, in percent: the values of the other axis stand left of it."""


class Mark(StrEnum):
    """What a trial has shown, which is also the shape of its mark."""

    MET = "met"
    NEARLY = "met, estimated"
    MISSED = "missed"
    UNDECIDED = "undecided"
    FAILED = "failed"


def mark_of(trial: Trial, max_drop: float) -> Mark:
    """By all samples, or as far as the trial was scored."""
    if trial.state is State.FAILED:
        return Mark.FAILED
    if trial.state is State.DONE:
        return Mark.MET if trial.meets(max_drop) else Mark.MISSED
    if trial.undecided or trial.within is None:
        return Mark.UNDECIDED
    return Mark.NEARLY if trial.within else Mark.MISSED


@dataclass(frozen=True, slots=True)
class Point:
    """A trial at a place: x in percent, y in pixels. `beyond` says that it lies outside of the scale."""

    trial: int
    x: float
    y: float
    mark: Mark
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A straight line: x in percent, y in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar from the bottom of its plot: x and width in percent, y and height in pixels."""

    trial: int
    x: float
    width: float
    y: float
    height: float
    mark: Mark


@dataclass(frozen=True, slots=True)
class TradeOff:
    """Accuracy against the share in INT8. `front` joins the trials that no other beats in both, `best` is the best."""

    points: tuple[Point, ...]
    front: tuple[Line, ...]
    best: Point | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    tolerance: float
    baseline: float
    beyond: int
    height: int


@dataclass(frozen=True, slots=True)
class History:
    """Drop by trial above, samples of each below. `unknown` counts trials without any drop, at the bottom edge."""

    points: tuple[Point, ...]
    bars: tuple[Bar, ...]
    best: Point | None
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    tolerance: float
    beyond: int
    unknown: int
    height: int
    bars_height: int


@dataclass(frozen=True, slots=True)
class _Drops:
    """The vertical scale of both charts: less drop is higher."""

    scale: Scale
    height: int

    @classmethod
    def of(cls, trials: Sequence[Trial], best: Trial | None, max_drop: float, height: int) -> _Drops:
        drops = [one.drop for one in trials if one.drop is not None]
        reach = max([SHOWN * max_drop, 1.3 * best.drop if best and best.drop is not None else 0.0, 1e-9])
        shown = [drop for drop in drops if drop <= reach]
        low, high = padded(min([0.0, *shown]), max([max_drop, *shown]))
        return cls(Scale(low, high, TOP, height - EDGE), height)

    def __call__(self, drop: float) -> tuple[float, bool]:
        """The place, and whether it is the edge, below all that is drawn to scale."""
        beyond = drop > self.scale.high
        return (self.height - 5.0 if beyond else self.scale(drop)), beyond


def trade_off(
    trials: Sequence[Trial], best: Trial | None, *, baseline: float, max_drop: float, higher_is_better: bool
) -> TradeOff:
    """All trials with a drop. The axis shows scores: those of `baseline` less drop, or more where less is better."""
    known = [one for one in trials if one.drop is not None]
    drops = _Drops.of(known, best, max_drop, TRADE_OFF)
    low = min([one.int8_share for one in known], default=0.0)
    shares = Scale(*padded(max(low - 0.02, 0.0), 1.0, 0.02), LEFT, RIGHT)
    points = []
    for one in known:
        assert one.drop is not None
        y, beyond = drops(one.drop)
        points.append(Point(one.number, shares(one.int8_share), y, mark_of(one, max_drop), beyond))
    steps = [(shares(one.int8_share), drops.scale(one.drop)) for one in pareto_front(known) if one.drop is not None]
    lines = [line for (x1, y1), (x2, y2) in pairwise(steps) for line in (Line(x1, y1, x2, y1), Line(x2, y1, x2, y2))]
    return TradeOff(
        points=tuple(points),
        front=tuple(lines),
        best=next((one for one in points if best is not None and one.trial == best.number), None),
        x_ticks=tuple(Tick(shares(value), f"{100 * value:.4g}%") for value in round_values(shares.low, 1.0, 5)),
        y_ticks=tuple(_score_ticks(drops.scale, baseline, higher_is_better=higher_is_better)),
        tolerance=drops.scale(max_drop),
        baseline=drops.scale(0.0),
        beyond=sum(one.beyond for one in points),
        height=TRADE_OFF,
    )


def history(trials: Sequence[Trial], best: Trial | None, *, max_drop: float, samples: int) -> History:
    """All trials in the order of their numbers; `samples` are those of the search, of which each saw some."""
    drops = _Drops.of(trials, best, max_drop, HISTORY)
    places = Scale(-0.5, max(len(trials) - 0.5, 0.5), LEFT, RIGHT)
    most = max([samples, *(one.samples for one in trials), 1])
    depth = Scale(0.0, float(most), 0.0, float(BARS - 2))
    points, bars = [], []
    width = round(max((RIGHT - LEFT) / max(len(trials), 1) * 0.7, 0.04), 3)
    width = min(width, 4.0)
    for place, one in enumerate(trials):
        x, mark = places(place), mark_of(one, max_drop)
        y, beyond = (HISTORY - 5.0, False) if one.drop is None else drops(one.drop)
        points.append(Point(one.number, x, y, mark, beyond))
        tall = depth(one.samples)
        bars.append(Bar(one.number, round(x - width / 2, 3), width, BARS - tall, tall, mark))
    numbers = round_values(0.0, float(max(len(trials) - 1, 1)), 8)
    whole = [int(value) for value in numbers if value == int(value) and value < len(trials)]
    return History(
        points=tuple(points),
        bars=tuple(bars),
        best=next((one for one in points if best is not None and one.trial == best.number), None),
        x_ticks=tuple(Tick(places(value), str(trials[value].number)) for value in whole),
        y_ticks=tuple(drops.scale.ticks(5)),
        tolerance=drops.scale(max_drop),
        beyond=sum(one.beyond for one in points),
        unknown=sum(one.drop is None for one in trials),
        height=HISTORY,
        bars_height=BARS,
    )


def _score_ticks(scale: Scale, baseline: float, *, higher_is_better: bool) -> list[Tick]:
    """Round scores on a scale of drops."""
    sign = -1.0 if higher_is_better else 1.0
    low, high = sorted((baseline + sign * scale.low, baseline + sign * scale.high))
    values = round_values(low, high, 5)
    decimals = decimals_of(values)
    return [Tick(scale(sign * (value - baseline)), f"{value:.{decimals}f}") for value in values]
