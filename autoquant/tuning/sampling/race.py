"""Which settings of the whole model are best, found on few samples: first one by one, then together, then the best few.

As many points as there are choices, not combinations of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from autoquant.tuning.sampling.history import History, Step
from autoquant.tuning.sampling.problem import meaning, unit_of
from autoquant.tuning.study.space import Choice, Parameters, setting_words

LIMITS = (64, 128, 256)
"""Samples for each single change, for combinations, for the best few."""
BETTER = 0.98
"""A change is one for the better where the loss is below this share of what it was."""
CLOSE, FEW = 1.2, 3
"""The best few: within this factor of the best, and so many."""
NEAR = 2.0
"""Plans within this factor of the best are as good as it where a tolerance is so small that chance decides."""


@dataclass(frozen=True)
class Race:
    """Where a race stands: what to try next, None at its end; the best of what was raced; and all that come near them.

    The best comes first in both.
    """

    step: Step | None
    ranked: Sequence[Parameters]
    near: Sequence[Parameters]

    @property
    def winner(self) -> Parameters:
        """The best so far."""
        return self.ranked[0]


def race(history: History, reference: Parameters) -> Race:
    """The race around `reference`, which is not repeated. What is pending is taken to have lost."""
    limits = [min(limit, history.problem.total) for limit in LIMITS]
    singles = [{**reference, name: value} for name, value in _changes(history, reference)]
    for point in singles:
        if not _seen(history, point, limits[0]):
            best = [history.best([reference, *singles])]
            return Race(_step(point, reference, limits[0]), best, best)
    tried, step = _combined(history, reference, singles, limits[1])
    if step is None:
        step = _among_the_best(history, reference, tried, limits[2])
    raced = list({meaning(point, history.problem): point for point in [reference, *singles, *tried]}.values())
    ranked = _ranked(history, raced)
    near = [point for point in _within(history, raced, NEAR) if point not in ranked]
    return Race(step, ranked, [*ranked, *near])


def _combined(
    history: History, reference: Parameters, singles: Sequence[Parameters], limit: int
) -> tuple[list[Parameters], Step | None]:
    """The changes for the better put together, the best first, as long as each still is one; what was tried for it."""
    start, *losses = history.compared([reference, *singles])
    better = sorted((loss, place) for place, loss in enumerate(losses) if loss < BETTER * start)
    tried, current = [reference], reference
    for _, place in better:
        point = {**current, **_difference(singles[place], reference)}
        if _difference(current, reference).keys() & _difference(singles[place], reference).keys():
            continue
        if not _seen(history, point, limit):
            return tried, _step(point, reference, limit)
        tried.append(point)
        before, after = history.compared([current, point])
        if after < BETTER * before:
            current = point
    return tried, None


def _among_the_best(history: History, reference: Parameters, tried: Sequence[Parameters], limit: int) -> Step | None:
    """What is not yet measured on as many samples as it takes to choose among the best few."""
    few = _within(history, tried, CLOSE)[:FEW]
    for point in few if len(few) > 1 else ():
        if not _seen(history, point, limit):
            return _step(point, reference, limit)
    return None


def _ranked(history: History, points: Sequence[Parameters]) -> list[Parameters]:
    """Plans within CLOSE of the best, on samples that all have in common; the best by the most samples comes first."""
    close = _within(history, points, CLOSE)
    best = history.best(close[:FEW]) if close else points[0]
    return [best, *(point for point in close if point is not best)]


def _within(history: History, points: Sequence[Parameters], factor: float) -> list[Parameters]:
    """Plans within a factor of the best, the best first."""
    losses = history.compared(points)
    pairs = sorted(zip(losses, range(len(points)), strict=True))
    return [points[place] for loss, place in pairs if loss <= factor * min(losses)]


def _difference(point: Parameters, reference: Parameters) -> Parameters:
    return {name: value for name, value in point.items() if reference[name] != value}


def _changes(history: History, reference: Parameters) -> Iterator[tuple[str, Choice]]:
    for name, choices in history.problem.dimensions.items():
        if not unit_of(name):
            yield from ((name, value) for value in choices if value != reference[name])


def _seen(history: History, point: Parameters, limit: int) -> bool:
    """Whether a point was measured on so many samples, or somebody is at it."""
    return history.samples(point) >= limit or history.settled(point, limit)


def _step(point: Parameters, reference: Parameters, limit: int) -> Step:
    words = [setting_words(*item) for item in _difference(point, reference).items()] or ["as it was"]
    return Step(point, "race", f"race: {', '.join(words)}, on {limit} samples", limit)
