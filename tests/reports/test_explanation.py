"""What is explained of a run as a whole; its parts are tested in test_ablations.py and test_float_layers.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.reports.explanation import Reason, RunTrials, explain_trials
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
    assert (layer.name, layer.reason, layer.trial, layer.isolated) == ("b", Reason.NOT_WITHIN, trials[1], True)


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
