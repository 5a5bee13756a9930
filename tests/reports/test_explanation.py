"""What is explained of a run as a whole, and why layers are in float.

Float layers are those of a best plan with a, b, c and d in INT8 and x, y in float; 0.125 is the largest drop.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.reports.explanation import Reason, RunTrials, explain_trials, float_layers
from autoquant.tuning.study.trial import State, Terms, Trial

TERMS = Terms("top1", 0.75, 0.125, "litert", "litert", "macs")
PLAIN = Plan({"a": LayerPlan(), "b": LayerPlan()})
EQUALIZED = Plan({"a": LayerPlan(), "b": LayerPlan()}, equalize=True)
BEST = Plan({"a": LayerPlan(), "b": None}, equalize=True)


def run_of(trials: Any, best: Any) -> RunTrials:
    return RunTrials(Path("run"), TERMS, tuple(trials), best)


def test_the_story_of_a_small_run(ended: Any) -> None:
    trials = [
        ended(0, PLAIN, drop=0.5, divergence_samples=64, divergences=(2.0,)),
        ended(1, EQUALIZED, score=0.5, divergence_samples=64, divergences=(0.25,)),
        ended(2, BEST, score=0.75, divergence_samples=64, divergences=(0.125,)),
    ]
    found = explain_trials(run_of(trials, trials[2]))
    (setting,), (fallback,), (layer,) = found.settings, found.float_fallbacks, found.float_layers
    assert [change.setting for change in setting.changes] == ["equalize"]
    assert (setting.pair.before, setting.pair.after) == (trials[0], trials[1])
    assert fallback.pair.gain is not None
    assert (fallback.layers, fallback.pair.gain.estimate) == (("b",), 0.25)
    assert (fallback.pair.before.int8_share, fallback.pair.after.int8_share) == (1.0, 0.5)
    assert layer.name == "b"
    assert layer.reason == Reason.NOT_WITHIN
    assert layer.trial == trials[1]
    assert layer.isolated is True


@pytest.mark.parametrize("facts", [{"state": State.FAILED, "failure": "overflow"}, {"divergences": ()}])
def test_without_a_best_no_layer_is_explain_trials(ended: Callable[..., Trial], facts: Any) -> None:
    found = explain_trials(run_of([ended(0, BEST, **facts), ended(1, PLAIN, **facts)], None))
    assert (found.settings, found.float_fallbacks, found.float_layers) == ((), (), ())


def test_many_trials_are_no_more_work_than_the_closest(ended: Any) -> None:
    """Of 300 trials the one that isolates the setting is told of, as it is close to the best."""
    layers = [f"layer{number}" for number in range(40)]
    far = [
        ended(n, Plan({name: None if (n >> k % 9) & 1 else LayerPlan() for k, name in enumerate(layers)}), drop=0.5)
        for n in range(300)
    ]
    whole = dict.fromkeys(layers, LayerPlan())
    pair = [ended(300, Plan(whole, batch_num=2), drop=0.5), ended(301, Plan(whole, batch_num=3), score=0.75)]
    found = explain_trials(run_of([*far, *pair], pair[1])).settings
    assert (300, 301) in {(one.pair.before.number, one.pair.after.number) for one in found}


OUT = {"drop": 0.5}
WITHIN = {"score": 0.75}
OPEN = {"within": None, "max_samples": 64}
UNDECIDED = {"drop": 0.5, "within": None}
FAILED = {"state": State.FAILED, "failure": "x: overflow", "at_fault": "x"}
BALANCED = LayerPlan(dmq=0.5)


def plan(int8: str, settings: LayerPlan | None = None) -> Plan:
    return Plan({name: (settings or LayerPlan()) if name in int8 else None for name in "abcdxy"})


@pytest.mark.parametrize(
    ("others", "why", "number"),
    [
        ([], Reason.NEVER, None),
        ([("abcdy", OUT)], Reason.NEVER, None),
        ([("abcdx", OUT)], Reason.NOT_WITHIN, 1),
        ([("abcdxy", OUT), ("abcdx", OUT)], Reason.NOT_WITHIN, 2),  # the smaller difference
        ([("abcdxy", OUT), ("acdx", {"score": 0.5})], Reason.NOT_WITHIN, 1),
        ([("acdx", OUT)], Reason.NOT_WITHIN, 1),  # beside most of them
        ([("ax", OUT)], Reason.UNTRIED, None),  # beside few
        ([("abcdx", OPEN)], Reason.UNTRIED, None),
        ([("abcdx", UNDECIDED)], Reason.NOT_WITHIN, 1),
        ([("abcdx", UNDECIDED), ("abcdx", {"score": 0.5})], Reason.NOT_WITHIN, 2),
        ([("abcdx", UNDECIDED), ("abcdx", WITHIN)], Reason.NO_BETTER, 2),
        ([("abcdx", {"state": State.FAILED, "failure": "y: overflow", "at_fault": "y"})], Reason.UNTRIED, None),
        ([("abcdxy", FAILED)], Reason.FAILED, 1),
        ([("abcdxy", OUT), ("abcdxy", FAILED)], Reason.FAILED, 2),
        ([("abcdxy", FAILED), ("abcdx", OUT)], Reason.NOT_WITHIN, 2),  # it alone makes the difference
        ([("abcdx", WITHIN)], Reason.NO_BETTER, 1),
        ([("acdx", WITHIN)], Reason.UNTRIED, None),  # says nothing of x beside b
    ],
)
def test_the_trial_that_shows_it(ended: Any, others: Any, why: Any, number: Any) -> None:
    best = ended(0, plan("abcd"), score=0.75)
    trials = [best, *(ended(n, plan(int8), **facts) for n, (int8, facts) in enumerate(others, start=1))]
    found, _ = float_layers(trials, best, 0.125)
    assert (found.name, found.reason, found.trial.number if found.trial else None) == ("x", why, number)


def test_how_that_trial_differs(ended: Any) -> None:
    best = ended(0, plan("abcd"), score=0.75)
    x, y = float_layers([best, ended(1, plan("acdxy"), **OUT)], best, 0.125)
    assert x.int8_only_in_best == ("b",)
    assert x.int8_only_in_trial == ("y",)
    assert x.same_settings is True
    assert x.isolated is False
    assert (y.name, y.int8_only_in_trial) == ("y", ("x",))
    x, _ = float_layers([best, ended(1, plan("abcdx"), **OUT)], best, 0.125)
    assert (x.int8_only_in_best, x.int8_only_in_trial, x.isolated) == ((), (), True)
    x, _ = float_layers([best, ended(1, plan("abcdx", BALANCED), **OUT)], best, 0.125)
    assert (x.same_settings, x.isolated) == (False, False)


def test_inputs_of_operators_are_no_layers_and_a_plan_all_in_int8_has_none(ended: Any) -> None:
    best = ended(0, Plan({"a": LayerPlan(), "add:0": None}), score=0.75)
    assert float_layers([best], best, 0.125) == ()
