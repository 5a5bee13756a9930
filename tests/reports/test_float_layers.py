"""Why layers are in float: of a best plan with a, b, c and d in INT8 and x, y in float; 0.125 is the largest drop."""

from __future__ import annotations

from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.reports.explanation import Reason, float_layers
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
        ([], Reason.NEVER, None),
        ([("abcdy", OUT)], Reason.NEVER, None),
        ([("abcdx", OUT)], Reason.NOT_WITHIN, 1),
        ([("abcdxy", OUT), ("abcdx", OUT)], Reason.NOT_WITHIN, 2),  # the smaller difference
        ([("abcdxy", OUT), ("acdx", {"score": 0.5})], Reason.NOT_WITHIN, 1),
        ([("acdx", OUT)], Reason.NOT_WITHIN, 1),  # beside most of them
        ([("ax", OUT)], Reason.UNTRIED, None),  # beside few
        ([("abcdx", OPEN)], Reason.UNTRIED, None),
        ([("abcdx", ASIDE)], Reason.NOT_WITHIN, 1),
        ([("abcdx", ASIDE), ("abcdx", {"score": 0.5})], Reason.NOT_WITHIN, 2),
        ([("abcdx", ASIDE), ("abcdx", WITHIN)], Reason.NO_BETTER, 2),
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
    assert (x.int8_only_in_best, x.int8_only_in_trial, x.same_settings, x.isolated) == (("b",), ("y",), True, False)
    assert (y.name, y.int8_only_in_trial) == ("y", ("x",))
    x, _ = float_layers([best, ended(1, plan("abcdx"), **OUT)], best, 0.125)
    assert (x.int8_only_in_best, x.int8_only_in_trial, x.isolated) == ((), (), True)
    x, _ = float_layers([best, ended(1, plan("abcdx", BALANCED), **OUT)], best, 0.125)
    assert (x.same_settings, x.isolated) == (False, False)


def test_inputs_of_operators_are_no_layers_and_a_plan_all_in_int8_has_none(ended: Any) -> None:
    best = ended(0, Plan({"a": LayerPlan(), "add:0": None}), score=0.75)
    assert float_layers([best], best, 0.125) == ()
