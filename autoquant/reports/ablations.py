"""What settings and float layers bought: differences measured between trials that differ in nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from autoquant.calibration.plan import Plan
from autoquant.reports.plan_changes import (
    Change,
    changes,
    distance,
    offered,
    same_layers,
    same_settings,
    value_of,
)
from autoquant.tuning.study.trial import State, Trial

NEAREST = 100
"""Trials, the closest to the best plan, that are compared with each other: all pairs of more take long to look at."""
TOGETHER = 3
"""The most settings that are told of together where none was changed alone."""


@dataclass(frozen=True, slots=True)
class Divergences:
    """The mean divergence from FP32 (evaluation/metrics/divergence.py) of two trials, over the same samples."""

    before: float
    after: float
    samples: int


@dataclass(frozen=True, slots=True)
class Gain:
    """By how much a drop became smaller, with the ends of its interval; the three are one where both are exact."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Pair:
    """Two trials, neither of which failed."""

    before: Trial
    after: Trial

    @property
    def divergence(self) -> Divergences | None:
        """Their divergences on the most samples of which both are known, None where there are none."""
        one, other = self.before, self.after
        common = min(len(one.divergences), len(other.divergences))
        if not common:
            return None
        fewer = one if len(one.divergences) == common else other
        return Divergences(one.divergences[common - 1], other.divergences[common - 1], fewer.divergence_samples)

    @property
    def gain(self) -> Gain | None:
        """What the drop gained, None where one is not known. Its interval holds where those of both drops hold."""
        one, other = self.before, self.after
        if one.drop is None or other.drop is None:
            return None
        (one_low, one_high), (other_low, other_high) = ends(one), ends(other)
        return Gain(one.drop - other.drop, one_low - other_high, one_high - other_low)

    @property
    def measured(self) -> bool:
        """Whether there is anything to compare."""
        return self.divergence is not None or self.gain is not None

    @property
    def reversed(self) -> Pair:
        """The same the other way round."""
        return Pair(self.after, self.before)

    @property
    def order(self) -> tuple[bool, float]:
        """How much better the second is: by the divergence where that is known, which is finer than the drop."""
        if self.divergence is not None:
            return True, self.divergence.before - self.divergence.after
        return False, self.gain.estimate if self.gain else 0.0


@dataclass(frozen=True)
class Bought:
    """What settings bought: one change, or several where the search made none of these alone."""

    changes: tuple[Change, ...]
    pair: Pair


@dataclass(frozen=True)
class Retreat:
    """What it bought that `layers` went back to float; what it cost is in the trials' objectives and shares."""

    layers: tuple[str, ...]
    pair: Pair


def ends(trial: Trial) -> tuple[float, float]:
    """The ends (low, high) of the interval of a drop that is known; no limits where an estimate came without."""
    assert trial.drop is not None
    unknown = (trial.drop, trial.drop) if trial.state is State.DONE else (-float("inf"), float("inf"))
    return unknown[0] if trial.low is None else trial.low, unknown[1] if trial.high is None else trial.high


def ranked_pairs(trials: Sequence[Trial], best: Trial | None) -> list[Pair]:
    """Pairs of trials that can be compared, those first whose difference tells most about the best plan.

    That is the closest to it, then what was measured on most samples.
    """
    alive = [trial for trial in trials if trial.state is not State.FAILED]
    far = {trial.number: distance(trial.plan, best.plan) if best else 0 for trial in alive}
    nearest = sorted(alive, key=lambda trial: (far[trial.number], trial.number))[:NEAREST]
    pairs = [Pair(*two) for two in combinations(sorted(nearest, key=lambda trial: trial.number), 2)]

    def rank(pair: Pair) -> tuple[int, int, int, int, int]:
        one, other = pair.before, pair.after
        exact = sum(trial.state is State.DONE for trial in (one, other))
        samples = pair.divergence.samples if pair.divergence else 0
        return min(far[one.number], far[other.number]), -exact, -samples, one.number, other.number

    return sorted((pair for pair in pairs if pair.measured), key=rank)


def settings_bought(pairs: Sequence[Pair], best: Trial | None) -> list[Bought]:
    """For every kind of change the first pair that isolates it; for those that none isolates, the fewest together.

    The second of each pair is the one with what the best plan has, or where that has neither, the better one.
    """
    plan = best.plan if best else None
    known = offered({id(plan): plan for pair in pairs for plan in (pair.before.plan, pair.after.plan)}.values())
    alone: dict[object, Bought] = {}
    several: list[Bought] = []
    for pair in pairs:
        before, after = pair.before.plan, pair.after.plan
        found = changes(before, after, known, most=TOGETHER) if same_layers(before, after) else None
        if found and len(found) == 1:
            alone.setdefault(found[0].kind, Bought(found, pair))
        elif found:
            several.append(Bought(found, pair))
    together = _together(sorted(several, key=lambda one: len(one.changes)), set(alone), plan)
    every = [_oriented(one, plan) for one in (*_of_the_best(list(alone.values()), plan), *together)]
    return sorted(every, key=lambda one: one.pair.order, reverse=True)


def retreats(pairs: Sequence[Pair], best: Trial | None) -> list[Retreat]:
    """For every layer the first pair that differs in nothing but that it went back to float.

    Those float layers of the best plan that no pair isolates are told of together where a pair isolates that.
    """
    found: dict[str, Retreat] = {}
    several: list[Retreat] = []
    for pair in pairs:
        layers = _retreated(pair) or _retreated(pair := pair.reversed)
        if len(layers) == 1:
            found.setdefault(layers[0], Retreat(layers, pair))
        elif layers and best is not None and pair.after.number == best.number:
            several.append(Retreat(layers, pair))
    smallest = sorted(several, key=lambda one: len(one.layers))[:1]
    together = [one for one in smallest if not found.keys() >= set(one.layers)]
    return sorted([*found.values(), *together], key=lambda one: one.pair.order, reverse=True)


def _retreated(pair: Pair) -> tuple[str, ...]:
    """The layers that the second has in float and the first in INT8, if that is all; none otherwise."""
    before, after = pair.before.plan, pair.after.plan
    mine, others = before.int8, after.int8
    if len(mine) <= len(others) or not mine.keys() > others.keys() or not same_settings(before, after):
        return ()
    return tuple(name for name in mine if name not in others)


def _of_the_best(alone: Sequence[Bought], plan: Plan | None) -> list[Bought]:
    """Of the changes of a setting those from or to what the best plan has, where there are any."""
    if plan is None:
        return list(alone)
    about = {one.changes[0].setting for one in alone if _favours(one.changes[0], plan)}
    return [one for one in alone if one.changes[0].setting not in about or _favours(one.changes[0], plan)]


def _together(several: Sequence[Bought], told: set[object], plan: Plan | None) -> Iterator[Bought]:
    """Those that tell of a setting of the best plan of which nothing was told yet."""
    for one in several:
        kinds = {change.kind for change in one.changes if plan is None or _favours(change, plan)}
        if kinds - told:
            told |= kinds
            yield one


def _oriented(one: Bought, plan: Plan | None) -> Bought:
    favour = sum(_favours(change, plan) for change in one.changes) if plan else 0
    if favour > 0 or (favour == 0 and one.pair.order[1] >= 0.0):
        return one
    return replace(one, changes=tuple(change.reversed for change in one.changes), pair=one.pair.reversed)


def _favours(change: Change, plan: Plan) -> int:
    """1 where the plan has what is after the change, in most of its layers, -1 what is before it, 0 for neither."""
    held = [plan.int8[name] for name in change.layers if name in plan.int8] if change.layers else [plan]
    values = Counter(value_of(settings, change.setting) for settings in held)
    if not values:
        return 0
    ((most, _),) = values.most_common(1)
    return (most == change.after) - (most == change.before)
