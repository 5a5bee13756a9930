"""Which settings of the whole model are best, found on few samples: first one by one, then together, then the best few.

As many points as there are choices, not combinations of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.problem import globals_of, unit_of
from autoquant.tuning.study.space import Parameters, Suggestion, setting_words

SAMPLES = (64, 128, 256)
"""Samples for each single change, for combinations, for the best few."""
BETTER = 0.98
"""A change is one for the better where what is measured is below this share of what it was."""
CLOSE, FEW = 1.2, 3
"""The best few: within this factor of the best, and so many."""
NEAR = 2.0
"""Plans within this factor of the best are as good as it where a tolerance is so small that chance decides."""


@dataclass(frozen=True)
class Race:
    """Where a race stands: what to try next, None at its end; the best of what was raced; and all that come near them.

    The best comes first in both.
    """

    next: Suggestion | None
    ranked: Sequence[Parameters]
    near: Sequence[Parameters]


def race(history: History, reference: Parameters) -> Race:
    """The race around `reference`, which is not repeated. Running trials are treated as losers."""
    few, more, most = (min(samples, history.problem.total) for samples in SAMPLES)
    whole = {name: choices for name, choices in history.problem.dimensions.items() if not unit_of(name)}
    singles = [{**reference, name: c} for name, choices in whole.items() for c in choices if c != reference[name]]
    for point in singles:
        if not _measured(history, point, few):
            best = [history.best([reference, *singles])]
            return Race(_raced(point, reference, few), best, best)
    tried, following = _combined(history, reference, singles, more)
    if following is None:
        following = _among_the_best(history, reference, tried, most)
    raced = list({history.coding.key(point): point for point in [reference, *singles, *tried]}.values())
    ranked = _ranked(history, raced)
    near = [point for point in _within(history, raced, NEAR) if point not in ranked]
    return Race(following, ranked, [*ranked, *near])


def _combined(
    history: History, reference: Parameters, singles: Sequence[Parameters], samples: int
) -> tuple[list[Parameters], Suggestion | None]:
    """The changes for the better put together, the best first, as long as each still is one; what was tried for it."""
    start, *found = history.compared([reference, *singles])
    better = sorted((measured, place) for place, measured in enumerate(found) if measured < BETTER * start)
    tried, current = [reference], reference
    for _, place in better:
        point = {**current, **_difference(singles[place], reference)}
        if _difference(current, reference).keys() & _difference(singles[place], reference).keys():
            continue
        if not _measured(history, point, samples):
            return tried, _raced(point, reference, samples)
        tried.append(point)
        before, after = history.compared([current, point])
        if after < BETTER * before:
            current = point
    return tried, None


def _among_the_best(
    history: History, reference: Parameters, tried: Sequence[Parameters], samples: int
) -> Suggestion | None:
    """What is not yet measured on as many samples as it takes to choose among the best few."""
    few = _within(history, tried, CLOSE)[:FEW]
    for point in few if len(few) > 1 else ():
        if not _measured(history, point, samples):
            return _raced(point, reference, samples)
    return None


def _ranked(history: History, points: Sequence[Parameters]) -> list[Parameters]:
    """Plans within CLOSE of the best, on samples that all have in common; the best by the most samples comes first."""
    close = _within(history, points, CLOSE)
    best = history.best(close[:FEW]) if close else points[0]
    return [best, *(point for point in close if point is not best)]


def _within(history: History, points: Sequence[Parameters], factor: float) -> list[Parameters]:
    """Plans within a factor of the best, the best first."""
    found = history.compared(points)
    pairs = sorted(zip(found, range(len(points)), strict=True))
    return [points[place] for measured, place in pairs if measured <= factor * min(found)]


def _difference(point: Parameters, reference: Parameters) -> Parameters:
    return {name: value for name, value in point.items() if reference[name] != value}


def _measured(history: History, point: Parameters, samples: int) -> bool:
    """Whether a point was measured on so many samples, or is running."""
    compared = any(trial.divergence_samples >= samples for trial in history.trials_of(point))
    return compared or history.already_known(point, samples)


def _raced(point: Parameters, reference: Parameters, samples: int) -> Suggestion:
    return Suggestion(point, f"race {changed_words(point, reference)} ({samples} samples)", "race", samples)


def changed_words(point: Parameters, reference: Parameters) -> str:
    """The settings of the whole model that are others, in words."""
    changed = globals_of(_difference(point, reference))
    return ", ".join(setting_words(*item) for item in changed.items()) or "as it was"
