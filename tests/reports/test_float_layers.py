"""Why layers are in float: of a best plan with a, b, c and d in INT8 and x, y in float; a drop of 0.125 is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.reports.float_layers import Why, float_layers
from autoquant.tuning.study.trial import State

OUT = {"drop": 0.5}
WITHIN = {"score": 0.75}
OPEN = {"within": None, "max_samples": 64}
ASIDE = {"drop": 0.5, "within": None}
FAILED = {"state": State.FAILED, "failure": "x: overflow", "at_fault": "x"}
BALANCED = LayerPlan(dmq=0.5)


def plan(int8: str, settings: LayerPlan | None = None) -> Plan:
    return Plan({name: (settings or LayerPlan()) if name in int8 else None for name in "abcdxy"})


@pytest.mark.parametrize(
    ("others", "why", "number"),
    [
        ([], Why.NEVER, None),
        ([("abcdy", OUT)], Why.NEVER, None),
        ([("abcdx", OUT)], Why.OUT, 1),
        ([("abcdxy", OUT), ("abcdx", OUT)], Why.OUT, 2),  # the smaller difference
        ([("abcdxy", OUT), ("acdx", {"score": 0.5})], Why.OUT, 1),
        ([("acdx", OUT)], Why.OUT, 1),  # beside most of them
        ([("ax", OUT)], Why.UNTRIED, None),  # beside few
        ([("abcdx", OPEN)], Why.UNTRIED, None),
        ([("abcdx", ASIDE)], Why.OUT, 1),
        ([("abcdx", ASIDE), ("abcdx", {"score": 0.5})], Why.OUT, 2),
        ([("abcdx", ASIDE), ("abcdx", WITHIN)], Why.NO_BETTER, 2),
        ([("abcdx", {"state": State.FAILED, "failure": "y: overflow", "at_fault": "y"})], Why.UNTRIED, None),
        ([("abcdxy", FAILED)], Why.FAILED, 1),
        ([("abcdxy", OUT), ("abcdxy", FAILED)], Why.FAILED, 2),
        ([("abcdxy", FAILED), ("abcdx", OUT)], Why.OUT, 2),  # it alone makes the difference
        ([("abcdx", WITHIN)], Why.NO_BETTER, 1),
        ([("acdx", WITHIN)], Why.UNTRIED, None),  # says nothing of x beside b
    ],
)
def test_the_trial_that_shows_it(ended: Any, others: Any, why: Any, number: Any) -> None:
    best = ended(0, plan("abcd"), score=0.75)
    trials = [best, *(ended(n, plan(int8), **facts) for n, (int8, facts) in enumerate(others, start=1))]
    found, _ = float_layers(trials, best, 0.125)
    assert (found.name, found.why, found.trial.number if found.trial else None) == ("x", why, number)


def test_how_that_trial_differs(ended: Any) -> None:
    best = ended(0, plan("abcd"), score=0.75)
    x, y = float_layers([best, ended(1, plan("acdxy"), **OUT)], best, 0.125)
    assert (x.without, x.beside, x.alike, x.exact) == (("b",), ("y",), True, False)
    assert (y.name, y.beside) == ("y", ("x",))
    x, _ = float_layers([best, ended(1, plan("abcdx"), **OUT)], best, 0.125)
    assert (x.without, x.beside, x.exact) == ((), (), True)
    x, _ = float_layers([best, ended(1, plan("abcdx", BALANCED), **OUT)], best, 0.125)
    assert (x.alike, x.exact) == (False, False)


def test_inputs_of_operators_are_no_layers_and_a_plan_all_in_int8_has_none(ended: Any) -> None:
    best = ended(0, Plan({"a": LayerPlan(), "add:0": None}), score=0.75)
    assert float_layers([best], best, 0.125) == ()
