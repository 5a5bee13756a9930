"""Which settings of the whole model are best, found on few samples: first one by one, then together, then the best few.

As many points as there are choices, not combinations of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoquant.tuning.guided.past import History, Step
from autoquant.tuning.guided.problem import unit_of
from autoquant.tuning.space import Choice, Parameters

LIMITS = (64, 128, 256)
"""Samples for each single change, for combinations, for the best few."""
BETTER = 0.98
"""A change is one for the better where the loss is below this share of what it was."""
CLOSE, FEW = 1.2, 3
"""The best few: within this factor of the best, and so many."""


@dataclass(frozen=True)
class Race:
    """Where a race stands: what to try next, None at its end; and what has won so far."""

    step: Step | None
    winner: Parameters


def race(history: History, reference: Parameters) -> Race:
    """The race around `reference`, which is not repeated. What is pending is taken to have lost."""
    limits = [min(limit, history.problem.total) for limit in LIMITS]
    singles: list[tuple[Parameters, str, Choice]] = [
        ({**reference, name: value}, name, value) for name, value in _changes(history, reference)
    ]
    winner = min([reference, *(point for point, _, _ in singles)], key=history.measure)
    for point, name, value in singles:
        if not _seen(history, point, limits[0]):
            return Race(_step(point, word(name, value), limits[0]), winner)
    winner, tried, step = _combined(history, reference, singles, limits[1])
    if step is not None:
        return Race(step, winner)
    best = history.measure(winner)
    few = sorted((point for point in tried if history.measure(point) <= CLOSE * best), key=history.measure)[:FEW]
    for point in few if len(few) > 1 else ():
        if point != reference and not _seen(history, point, limits[2]):
            changed = [word(name, value) for name, value in point.items() if reference[name] != value]
            return Race(_step(point, ", ".join(changed), limits[2]), winner)
    return Race(None, min(few, key=history.measure, default=reference))


def _combined(
    history: History, reference: Parameters, singles: list[tuple[Parameters, str, Choice]], limit: int
) -> tuple[Parameters, list[Parameters], Step | None]:
    """The changes for the better put together, the best first, as long as each still is one; what was tried for it."""
    start = history.measure(reference)
    better = [change for change in singles if history.measure(change[0]) < BETTER * start]
    tried, current = [reference], reference
    changed: dict[str, Choice] = {}
    for _, name, value in sorted(better, key=lambda change: history.measure(change[0])):
        if name in changed:
            continue
        point = {**current, name: value}
        if not _seen(history, point, limit):
            words = ", ".join(word(*item) for item in {**changed, name: value}.items())
            return current, tried, _step(point, words, limit)
        tried.append(point)
        if history.measure(point) < BETTER * history.measure(current):
            current, changed = point, {**changed, name: value}
    return current, tried, None


def _changes(history: History, reference: Parameters) -> Iterator[tuple[str, Choice]]:
    for name, choices in history.problem.dimensions.items():
        if not unit_of(name):
            yield from ((name, value) for value in choices if value != reference[name])


def _seen(history: History, point: Parameters, limit: int) -> bool:
    """Whether a point was measured on so many samples, or somebody is at it."""
    trial = history.measured(point)
    return (trial is not None and trial.loss_samples >= limit) or history.settled(point, limit)


def _step(point: Parameters, words: str, limit: int) -> Step:
    return Step(point, "race", f"race: {words}, on {limit} samples", limit)


def word(name: str, value: Choice) -> str:
    """A setting of the whole model in words.

    >>> word("equalize", True), word("batch_num", 8)
    ('equalize', 'batch_num 8')
    """
    words = name.replace("act_algo", "ranges")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value}" if not isinstance(value, str) or words not in value else value
