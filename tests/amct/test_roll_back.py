"""Rolling back as points of a study, chosen by strategies."""

from __future__ import annotations

from typing import Any

import pytest

from autoquant.amct.roll_back import Advice, RollBackSpace
from autoquant.amct.strategy import BinarySearchStrategy
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import MinMax
from autoquant.errors import UsageError

PLAN = Plan({"a": LayerPlan(), "never": None, "b": LayerPlan(MinMax(), asymmetric=False), "x:0": LayerPlan()}, 3)
RANKING = {"c": 0.1, "a": 0.2, "b": 0.3, "d": 0.4}


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


def test_a_strategy_is_told_of_what_it_gave_last() -> None:
    """First of all layers in INT8. Layers that it does not name are in INT8 too."""
    strategy = Fixed(step(False, a=False), step(True, a=False, b=False))
    advice = Advice(strategy, RANKING, lambda layers: (layers["b"], sum(layers.values())))
    assert not hasattr(strategy, "ranking")
    assert advice() == {"c:quant_enable": True, "a:quant_enable": False, "b:quant_enable": True, "d:quant_enable": True}
    before = advice.final
    assert before is None
    assert advice() == {
        "c:quant_enable": True,
        "a:quant_enable": False,
        "b:quant_enable": False,
        "d:quant_enable": True,
    }
    assert advice.final == {"c": True, "a": False, "b": False, "d": True}
    assert advice() is None
    assert strategy.ranking == RANKING
    assert strategy.told == [(True, 4), (True, 3)]


@pytest.mark.parametrize("stop", [True, False])
def test_all_in_float_is_the_end(stop: bool) -> None:
    advice = Advice(Fixed(step(stop, a=False, b=False, c=False, d=False)), RANKING, lambda layers: (False, 1.0))
    assert advice() is None
    assert advice() is None
    before = advice.final
    assert before is None


def test_bisection_through_a_space() -> None:
    """Two of four must go back: the first two, then one, which is too few, so the first two stay."""
    advice = Advice(BinarySearchStrategy(), RANKING, lambda layers: (not layers["a"], 0.0))
    in_float = []
    while (point := advice()) is not None:
        in_float.append({name for name, int8 in point.items() if not int8})
    first = {"c:quant_enable", "a:quant_enable"}
    assert in_float == [first, {"c:quant_enable"}, first]
    assert advice.final == {"c": False, "a": False, "b": True, "d": True}


STEPS = [
    (None, r"Fixed: update_quant_config\(\) returned None; it must return \{'stop_flag'"),
    ({"stop_flag": False}, r"returned \{'stop_flag': False\}"),
    ({"stop_flag": False, "roll_back_config": ["a"]}, r"returned \{.*\['a'\]\}"),
    (step(False, aa=False), "names 'aa', which is not in the ranking; did you mean 'a'"),
]


@pytest.mark.parametrize(("given", "message"), STEPS)
def test_a_strategy_that_does_not_say_what_it_must(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Advice(Fixed(given), RANKING, lambda layers: (False, 1.0))()
