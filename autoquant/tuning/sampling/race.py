"""Which settings of the whole model are best, found on few samples: all, or by descent from two starts.

Of few combinations all are compared. Of more, every setting is judged on top of the preferred ones; then comes a second
start, all of the best other settings together; and then every setting is judged on top of the best found so far, as
long as that gets better. So none is judged only on top of another that ruins what it is for. All are compared on the
same samples. The best few are compared once more, on four times as many.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from autoquant.evaluation.scoring.stopping import PROBE_SIZES
from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.problem import COSTLY, globals_of, unit_of
from autoquant.tuning.study.space import Choice, Parameters, Suggestion, setting_words

PART, LARGEST = 24, 64
"""A point is compared on a PARTth of all samples, LARGEST at most."""
MORE = 4
"""The best few are compared on so many times as many."""
ALL, MOST = 8, 14
"""Of so few combinations all are compared; of more so many at most, the start included.

All together take (MOST - 1) LARGEST + FEW MORE LARGEST samples at most, 1,600, and of few samples 0.9 of them.
"""
SHARE = 1.0 / 3.0
"""Of few trials no more than this share are for such comparisons."""
CLOSE, FEW = 1.2, 3
"""The best few: within this factor of the best, and so many."""
NEAR = 2.0
"""Plans within this factor of the best are as good as it where a tolerance is so small that chance decides."""

Whole = Mapping[str, tuple[Choice, ...]]
"""The dimensions of the whole model, with their choices."""


@dataclass(frozen=True)
class Race:
    """Where a race stands: what to try next, None at its end; the best of what was raced; and all that come near them.

    The best comes first in both.
    """

    next: Suggestion | None
    ranked: Sequence[Parameters]
    near: Sequence[Parameters]


def race(history: History, reference: Parameters, *, share: float = SHARE) -> Race:
    """The race around `reference`, which is not repeated, for a share of all trials. Those that run count as losers."""
    few, more = samples_of(history.problem.total)
    dimensions = history.problem.dimensions
    whole = {name: choices for name, choices in dimensions.items() if not unit_of(name) and name not in COSTLY}
    raced, following = _compared(history, reference, whole, few, share * history.problem.max_trials)
    if following is not None:
        best = [history.best(raced)]
        return Race(_raced(following, reference, few), best, best)
    raced = _distinct(history, raced)
    ranked = _ranked(history, raced)
    near = [point for point in _within(history, raced, NEAR) if point not in ranked]
    return Race(_among_the_best(history, reference, raced, more), ranked, [*ranked, *near])


def samples_of(total: int) -> tuple[int, int]:
    """On how many samples of the probe set points are compared, and the best few: sizes for which means are told.

    The best few are scored on everything, which decides, where that is not even twice as much.
    """
    few = max(size for size in PROBE_SIZES if size <= max(min(total // PART, LARGEST), PROBE_SIZES[0]))
    return few, MORE * few if 2 * MORE * few <= total else total


def _compared(
    history: History, reference: Parameters, whole: Whole, samples: int, most: float
) -> tuple[list[Parameters], Parameters | None]:
    """The points that were compared so far, and the next one, None where there is none, or there are `most`."""
    raced: list[Parameters] = [reference]
    most = min(math.inf if prod(map(len, whole.values())) <= ALL else MOST, max(most, 2.0))
    for point in _points(history, reference, whole, raced):
        if point in raced:
            continue
        if len(raced) >= most:
            break
        if not _measured(history, point, samples):
            return raced, point
        raced.append(point)
    return raced, None


def _points(history: History, reference: Parameters, whole: Whole, raced: Sequence[Parameters]) -> Iterator[Parameters]:
    """The points to compare, in order, given those `raced` so far, which grow as these are taken."""
    yield from _changed(reference, whole)
    whole = _effective(history, reference, whole)
    if prod(map(len, whole.values())) <= ALL:
        every = [{**reference, **dict(zip(whole, chosen, strict=True))} for chosen in product(*whole.values())]
        yield from sorted(every, key=lambda point: sum(point[name] != reference[name] for name in whole))
        return
    opposite = dict(reference)
    for name in whole:
        others = [point for point in raced if point[name] != reference[name] and point[name] in whole[name]]
        opposite[name] = history.best(others)[name]
    yield opposite
    yield from _descent(history, whole, raced, history.best(raced))


def _effective(history: History, reference: Parameters, whole: Whole) -> Whole:
    """The dimensions without choices that change nothing, as of repairs that find nothing to repair."""
    before = history.divergences(reference)
    found = {}
    for name, choices in whole.items():
        own = [choice for choice in choices if choice != reference[name]]
        differ = [one for one in own if not _equal(history.divergences({**reference, name: one}), before)]
        if differ:
            found[name] = (reference[name], *differ)
    return found


def _equal(some: Sequence[float], others: Sequence[float]) -> bool:
    """Whether two plans are as far from FP32 to the last bit, as far as it is known of both."""
    return bool(some and others) and all(map(operator.eq, some, others))


def _distinct(history: History, points: Sequence[Parameters]) -> list[Parameters]:
    """The points without those that give the same outputs as one before them."""
    found: list[Parameters] = []
    for point in points:
        own = history.divergences(point)
        if not any(_equal(history.divergences(other), own) for other in found):
            found.append(point)
    return found


def _descent(history: History, whole: Whole, raced: Sequence[Parameters], start: Parameters) -> Iterator[Parameters]:
    """Single changes of a point, then of the best of these, until there is no better one."""
    while True:
        changes = list(_changed(start, whole))
        yield from changes
        best = history.best([start, *(point for point in changes if point in raced)])
        if best is start:
            return
        start = best


def _changed(point: Parameters, whole: Whole) -> Iterator[Parameters]:
    """The point with one other choice for one of the settings of the whole model."""
    for name, choices in whole.items():
        yield from ({**point, name: choice} for choice in choices if choice != point[name])


def _among_the_best(
    history: History, reference: Parameters, raced: Sequence[Parameters], samples: int
) -> Suggestion | None:
    """What is not yet measured on as many samples as it takes to choose among the best few."""
    few = _within(history, raced, CLOSE)[:FEW]
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
    most = max(factor * min(found), min(found))  # a drop may be negative
    return [points[place] for measured, place in pairs if measured <= most]


def _measured(history: History, point: Parameters, samples: int) -> bool:
    """Whether a point was measured on so many samples, or is running."""
    compared = any(trial.divergence_samples >= samples for trial in history.trials_of(point))
    return compared or history.already_known(point, samples)


def _raced(point: Parameters, reference: Parameters, samples: int) -> Suggestion:
    return Suggestion(point, f"race {changed_words(point, reference)} ({samples} samples)", "race", samples)


def changed_words(point: Parameters, reference: Parameters) -> str:
    """The settings of the whole model that are others, in words."""
    changed = globals_of({name: value for name, value in point.items() if reference[name] != value})
    return ", ".join(setting_words(*item) for item in changed.items()) or "as it was"
