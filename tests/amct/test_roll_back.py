"""Rolling back as points of a study, chosen by strategies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from autoquant.amct.evaluator import Judgement
from autoquant.amct.strategy import BinarySearchStrategy, RollBackSpace, StrategySampler
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import MinMax
from autoquant.errors import UsageError
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.trial import State, Trial

PLAN = Plan({"a": LayerPlan(), "never": None, "b": LayerPlan(MinMax(), asymmetric=False), "x:0": LayerPlan()}, 3)
RANKING = {"c": 0.1, "a": 0.2, "b": 0.3, "d": 0.4}
SPACE = RollBackSpace(Plan({name: LayerPlan() for name in RANKING}, 3))


def test_the_space_of_a_plan() -> None:
    space = RollBackSpace(PLAN)
    assert space.dimensions == dict.fromkeys(["a:quant_enable", "b:quant_enable", "x:0:quant_enable"], (True, False))
    (start,) = space.starts()
    assert space.plan(start.parameters) == PLAN
    assert space.roll_back(PLAN) == {"a": True, "b": True, "x:0": True}
    some = space.plan({"a:quant_enable": False, "b:quant_enable": True, "x:0:quant_enable": False})
    assert some == Plan({"a": None, "never": None, "b": PLAN.layers["b"]}, 3)
    assert space.roll_back(some) == {"a": False, "b": True, "x:0": False}


class Fixed:
    """Says the same, whatever became of it."""

    def __init__(self, *steps: Any) -> None:
        self.steps = iter(steps)
        self.told: list[Any] = []

    def initialize(self, ranking_info: dict[str, float]) -> None:
        self.ranking = ranking_info

    def update_quant_config(self, metric_eval: tuple[bool, float]) -> Any:
        self.told.append(metric_eval)
        return next(self.steps)


def step(stop: bool, **layers: bool) -> dict[str, Any]:
    return {"stop_flag": stop, "roll_back_config": layers}


def in_float(trial: Trial) -> str:
    return "".join(name for name, int8 in SPACE.roll_back(trial.plan).items() if not int8)


def play(strategy: Any, judged: Callable[[Trial], Judgement]) -> tuple[list[str], dict[str, bool] | None]:
    """The layers in float of each trial of a strategy, which begins with all in INT8, and its final configuration."""
    trials: list[Trial] = []
    sampler = StrategySampler(strategy, RANKING, SPACE, judged)
    suggestion: Suggestion | None = next(SPACE.starts())
    while suggestion is not None:
        point = suggestion.parameters
        trials.append(Trial(len(trials), State.DONE, SPACE.plan(point), suggestion.why, parameters=point, drop=0.0))
        suggestion = sampler(trials)
    assert sampler(trials) is None
    return [in_float(trial) for trial in trials], None if sampler.final is None else dict(sampler.final)


def test_a_strategy_learns_what_became_of_what_it_said_last() -> None:
    """First of all layers in INT8. Layers that it does not name are in INT8 too."""
    strategy = Fixed(step(False, a=False), step(True, a=False, b=False))
    configurations, final = play(strategy, lambda trial: Judgement("b" not in in_float(trial), len(in_float(trial))))
    assert configurations == ["", "a", "ab"]
    assert final == {"c": True, "a": False, "b": False, "d": True}
    assert strategy.ranking == RANKING
    assert strategy.told == [(True, 0), (True, 1)]


@pytest.mark.parametrize("stop", [True, False])
def test_all_in_float_is_the_end(stop: bool) -> None:
    strategy = Fixed(step(stop, a=False, b=False, c=False, d=False))
    assert play(strategy, lambda trial: Judgement(False, 1.0)) == ([""], None)


def test_bisection_through_a_space() -> None:
    """Two of four must go back: the first two, then one, which is too few, so the first two stay."""
    configurations, final = play(BinarySearchStrategy(), lambda trial: Judgement("a" in in_float(trial), 0.0))
    assert configurations == ["", "ca", "c", "ca"]
    assert final == {"c": False, "a": False, "b": True, "d": True}


STEPS = [
    (None, r"Fixed: update_quant_config\(\) returned None; it must return \{'stop_flag'"),
    ({"stop_flag": False}, r"returned \{'stop_flag': False\}"),
    ({"stop_flag": False, "roll_back_config": ["a"]}, r"returned \{.*\['a'\]\}"),
    (step(False, aa=False), "names 'aa', which is not in the ranking; did you mean 'a'"),
]


@pytest.mark.parametrize(("given", "message"), STEPS)
def test_a_strategy_that_does_not_say_what_it_must(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        play(Fixed(given), lambda trial: Judgement(False, 1.0))
