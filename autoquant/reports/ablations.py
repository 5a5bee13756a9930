"""The measured effect of each setting and of each float layer, from pairs of trials that differ only in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from autoquant.calibration.plan import Plan
from autoquant.formats.codec import encode
from autoquant.reports.plan_changes import (
    Change,
    changes,
    distance,
    layers_by_value,
    same_settings,
    value_of,
)
from autoquant.tuning.study.trial import State, Trial

NEAREST = 100
"""Trials, the closest to the best plan, that are compared with each other: all pairs of more take long to look at."""
TOGETHER = 3
"""The most settings whose effect together is shown where none was changed alone."""


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
    low: float = -math.inf
    high: float = math.inf


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
        """The gain in drop, None where one is not known. Its interval holds where those of both drops hold."""
        one, other = self.before, self.after
        if one.drop is None or other.drop is None:
            return None
        (one_low, one_high), (other_low, other_high) = _interval(one), _interval(other)
        return Gain(one.drop - other.drop, one_low - other_high, one_high - other_low)

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

    def facts(self) -> dict[str, Any]:
        """Both trials and the differences, as JSON has it; what is not known is null."""
        trials = {"before": self.before.facts(), "after": self.after.facts()}
        return {**trials, "divergence": encode(self.divergence), "gain": encode(self.gain)}


@dataclass(frozen=True)
class SettingEffect:
    """The effect of a change of a setting, or of several changes where no two trials differ in one of these alone."""

    changes: tuple[Change, ...]
    pair: Pair

    def facts(self) -> dict[str, Any]:
        """As JSON has it: `layers` of a change are those it was made in, none for a setting of the whole plan."""
        names = ("setting", "before", "after", "layers")
        return {"changes": [{name: encode(one)[name] for name in names} for one in self.changes], **self.pair.facts()}


@dataclass(frozen=True)
class FloatFallbackEffect:
    """The effect of `layers` being in float; the cost of that is in the trials' objectives and shares."""

    layers: tuple[str, ...]
    pair: Pair

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"layers": list(self.layers), **self.pair.facts()}


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

    return sorted((pair for pair in pairs if pair.divergence is not None or pair.gain is not None), key=rank)


def setting_effects(pairs: Sequence[Pair], best: Trial | None) -> list[SettingEffect]:
    """For every kind of change the first pair that isolates it; for those that none isolates, the fewest together.

    The second of each pair is the one with what the best plan has, or where that has neither, the better one.
    """
    plan = best.plan if best else None
    known = layers_by_value({id(plan): plan for pair in pairs for plan in (pair.before.plan, pair.after.plan)}.values())
    alone: dict[object, SettingEffect] = {}
    several: list[SettingEffect] = []
    for pair in pairs:
        before, after = pair.before.plan, pair.after.plan
        found = changes(before, after, known, most=TOGETHER) if before.int8.keys() == after.int8.keys() else None
        if found and len(found) == 1:
            alone.setdefault(found[0].kind, SettingEffect(found, pair))
        elif found:
            several.append(SettingEffect(found, pair))
    together = _together(sorted(several, key=lambda one: len(one.changes)), set(alone), plan)
    every = [_oriented(one, plan) for one in (*_of_the_best(list(alone.values()), plan), *together)]
    return sorted(every, key=lambda one: one.pair.order, reverse=True)


def float_fallback_effects(pairs: Sequence[Pair], best: Trial | None) -> list[FloatFallbackEffect]:
    """For every layer the first pair that differs only in its being in float.

    Those float layers of the best plan that no pair isolates are shown together where a pair isolates that.
    """
    found: dict[str, FloatFallbackEffect] = {}
    several: list[FloatFallbackEffect] = []
    for pair in pairs:
        layers = _fallen_back(pair) or _fallen_back(pair := pair.reversed)
        if len(layers) == 1:
            found.setdefault(layers[0], FloatFallbackEffect(layers, pair))
        elif layers and best is not None and pair.after.number == best.number:
            several.append(FloatFallbackEffect(layers, pair))
    smallest = sorted(several, key=lambda one: len(one.layers))[:1]
    together = [one for one in smallest if not found.keys() >= set(one.layers)]
    return sorted([*found.values(), *together], key=lambda one: one.pair.order, reverse=True)


def _interval(trial: Trial) -> tuple[float, float]:
    """The interval (low, high) of a drop that is known; without ends where an estimate came without."""
    assert trial.drop is not None
    unknown = (trial.drop, trial.drop) if trial.state is State.DONE else (-math.inf, math.inf)
    return unknown[0] if trial.low is None else trial.low, unknown[1] if trial.high is None else trial.high


def _fallen_back(pair: Pair) -> tuple[str, ...]:
    """The layers that the second has in float and the first in INT8, if that is all; none otherwise."""
    before, after = pair.before.plan, pair.after.plan
    mine, others = before.int8, after.int8
    if len(mine) <= len(others) or not mine.keys() > others.keys() or not same_settings(before, after):
        return ()
    return tuple(name for name in mine if name not in others)


def _of_the_best(alone: Sequence[SettingEffect], plan: Plan | None) -> list[SettingEffect]:
    """Of the changes of a setting those from or to what the best plan has, where there are any."""
    if plan is None:
        return list(alone)
    about = {one.changes[0].setting for one in alone if _favours(one.changes[0], plan)}
    return [one for one in alone if one.changes[0].setting not in about or _favours(one.changes[0], plan)]


def _together(several: Sequence[SettingEffect], shown: set[object], plan: Plan | None) -> Iterator[SettingEffect]:
    """Those with a setting of the best plan whose effect is not shown yet."""
    for one in several:
        kinds = {change.kind for change in one.changes if plan is None or _favours(change, plan)}
        if kinds - shown:
            shown |= kinds
            yield one


def _oriented(one: SettingEffect, plan: Plan | None) -> SettingEffect:
    favour = sum(_favours(change, plan) for change in one.changes) if plan else 0
    if favour > 0 or (favour == 0 and one.pair.order[1] >= 0.0):
        return one
    return replace(one, changes=tuple(change.reversed for change in one.changes), pair=one.pair.reversed)


def _favours(change: Change, plan: Plan) -> int:
    """1 where the plan has what is after the change, in most of its layers, -1 what is before it, 0 for neither."""
    affected = [plan.int8[name] for name in change.layers if name in plan.int8] if change.layers else [plan]
    values = Counter(value_of(settings, change.setting) for settings in affected)
    if not values:
        return 0
    ((most, _),) = values.most_common(1)
    return (most == change.after) - (most == change.before)
