"""Differences between trials; 0.75 is the score of FP32, and a drop of 0.125 is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import MinMax
from autoquant.reports.ablations import Divergences, Gain, Pair, float_fallback_effects, ranked_pairs, setting_effects
from autoquant.tuning.study.trial import State, Trial

PLAIN, BALANCED, MINMAX = LayerPlan(), LayerPlan(dmq=0.5), LayerPlan(MinMax())
NAMES = ("a", "b", "c")


def plan(settings: LayerPlan = PLAIN, *, float_layers: str = "", **whole: Any) -> Plan:
    return Plan({name: None if name in float_layers else settings for name in NAMES}, **whole)


def told(trials: Any, best: Any = None) -> Any:
    """Of settings: what changed to what, and the numbers of the trials."""
    found = setting_effects(ranked_pairs(trials, best), best)
    return [({c.setting: c.after for c in one.changes}, one.pair.before.number, one.pair.after.number) for one in found]


def left(trials: Any, best: Any = None) -> Any:
    """The same of layers that went back to float."""
    found = float_fallback_effects(ranked_pairs(trials, best), best)
    return [("".join(one.layers), one.pair.before.number, one.pair.after.number) for one in found]


def test_divergences_are_compared_over_the_same_samples_alone(ended: Any) -> None:
    """The most that both have seen."""
    less, same = (ended(number, plan(), divergences=(2.0 - number,), divergence_samples=64) for number in (0, 1))
    more, most = (ended(number, plan(), divergences=(0.5, 0.25 * number), divergence_samples=128) for number in (2, 3))
    assert Pair(less, same).divergence == Divergences(2.0, 1.0, 64)
    assert Pair(less, more).divergence == Divergences(2.0, 0.5, 64)
    assert Pair(more, less).divergence == Divergences(0.5, 2.0, 64)
    assert Pair(more, most).divergence == Divergences(0.5, 0.75, 128)
    unknown = Pair(less, ended(4, plan()))
    assert unknown.divergence is None
    assert unknown.gain is None
    assert ranked_pairs([unknown.before, unknown.after], None) == []


@pytest.mark.parametrize(
    ("before", "after", "gain"),
    [
        ({"score": 0.25}, {"score": 0.625}, Gain(0.375, 0.375, 0.375)),
        ({"drop": 0.5}, {"score": 0.625}, Gain(0.375, 0.125, 0.625)),
        ({"drop": 0.5}, {"drop": 1.0}, Gain(-0.5, -1.0, 0.0)),
        ({"drop": 0.5, "low": None, "high": None}, {"score": 0.625}, Gain(0.375, -float("inf"), float("inf"))),
        ({}, {"score": 0.625}, None),
    ],
)
def test_the_gain_in_drop_is_as_uncertain_as_both(ended: Any, before: Any, after: Any, gain: Any) -> None:
    assert Pair(ended(0, plan(), **before), ended(1, plan(), **after)).gain == gain


def test_a_pair_that_differs_in_one_setting_shows_its_effect(ended: Any) -> None:
    trials = [
        ended(0, plan(), drop=0.5, divergences=(2.0,), divergence_samples=64),
        ended(1, plan(BALANCED), score=0.5, divergences=(0.5,), divergence_samples=64),
        ended(2, plan(BALANCED, equalize=True), score=0.75, divergences=(0.25,), divergence_samples=64),
    ]
    assert told(trials, trials[2]) == [({"dmq": 0.5}, 0, 1), ({"equalize": True}, 1, 2)]


def test_the_best_plan_has_the_second_even_where_that_is_worse(ended: Any) -> None:
    trials = [ended(0, plan(), score=0.7), ended(1, plan(BALANCED), score=0.5)]
    assert told(trials, trials[1]) == [({"dmq": 0.5}, 0, 1)]
    assert told(trials, trials[0]) == [({"dmq": None}, 1, 0)]
    assert told(trials) == [({"dmq": None}, 1, 0)]  # without a best, the better one


def test_of_several_pairs_the_one_closest_to_the_best_plan(ended: Any) -> None:
    far: dict[str, Any] = {"batch_num": 2}
    near: dict[str, Any] = {"batch_num": 1}
    trials = [
        ended(0, plan(**far), drop=0.5),
        ended(1, plan(BALANCED, **far), drop=0.25),
        ended(2, plan(**near), drop=0.5),
        ended(3, plan(BALANCED, **near), score=0.75),
    ]
    assert told(trials, trials[3]) == [({"dmq": 0.5}, 2, 3), ({"batch_num": 1}, 1, 3)]


def test_of_trials_of_one_plan_those_that_saw_most(ended: Any) -> None:
    trials = [
        ended(0, plan(), divergences=(2.0,), divergence_samples=64),
        ended(1, plan(BALANCED), divergences=(1.0,), divergence_samples=64),
        ended(2, plan(), divergences=(2.0, 2.5), divergence_samples=128),
        ended(3, plan(BALANCED), divergences=(1.0, 0.5), divergence_samples=128),
    ]
    assert told(trials, trials[3]) == [({"dmq": 0.5}, 2, 3)]


def test_alternatives_are_compared_with_what_the_best_plan_has_and_not_with_each_other(ended: Any) -> None:
    kinds = (PLAIN, MINMAX, LayerPlan(channel_wise=False))
    percent = [LayerPlan(dmq=strength) for strength in (0.25, 0.5, 0.75)]
    trials = [ended(n, plan(settings), score=0.1 * n) for n, settings in enumerate([*kinds, *percent])]
    assert sorted(before for _, before, after in told(trials, trials[0])) == [1, 2, 3, 4, 5]
    assert {after for _, _, after in told(trials, trials[0])} == {0}


def test_settings_that_only_changed_together_share_an_effect(ended: Any) -> None:
    trials = [ended(0, plan(), drop=0.5), ended(9, plan(BALANCED, equalize=True), score=0.75)]
    assert told(trials, trials[1]) == [({"dmq": 0.5, "equalize": True}, 0, 9)]
    alone = ended(4, plan(equalize=True), drop=0.25)
    assert told([*trials, alone], trials[1]) == [({"dmq": 0.5}, 4, 9), ({"equalize": True}, 0, 4)]


@pytest.mark.parametrize("facts", [{"state": State.FAILED, "failure": "overflow"}, {"divergences": ()}])
def test_failures_and_trials_without_any_measurement_are_compared_with_nothing(
    ended: Callable[..., Trial], facts: Any
) -> None:
    trials = [
        ended(0, plan(), **facts),
        ended(1, plan(BALANCED), score=0.75),
        ended(2, plan(float_layers="a"), **facts),
    ]
    assert told(trials, trials[1]) == left(trials, trials[1]) == []
    assert told([]) == left([]) == []


def test_a_layer_that_went_back_to_float_between_plans_that_are_otherwise_equal(ended: Any) -> None:
    trials = [
        ended(0, plan(), score=0.25),
        ended(1, plan(float_layers="b"), score=0.5),
        ended(2, plan(float_layers="bc"), score=0.75),
        ended(3, plan(BALANCED, float_layers="a"), score=0.75),
    ]
    assert left(trials, trials[2]) == [("c", 1, 2), ("b", 0, 1)]
    assert left([trials[2], trials[1]], trials[1]) == [("c", 1, 2)]  # whichever was tried first


def test_float_layers_that_no_pair_isolates_are_told_of_together(ended: Any) -> None:
    best = ended(5, plan(float_layers="ac"), score=0.75)
    assert left([ended(0, plan(), drop=0.5), best], best) == [("ac", 0, 5)]
    assert left([ended(0, plan(MINMAX), drop=0.5), best], best) == []
