"""Bisection along a ranking: what is probed next, from the trials alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from guided_problems import random_problem, trial_of

from autoquant.amct.strategy import BinarySearchStrategy
from autoquant.tuning.sampling.problem import gain_of, int8_of, start_of, with_int8
from autoquant.tuning.sampling.rank_and_bisect import RankAndBisect
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.trial import State, Trial

PROBLEM = random_problem(31)


def ranking() -> dict[str, float]:
    return {layer: -own["r0"] for layer, own in PROBLEM.predicted.items()}


START = Suggestion(start_of(PROBLEM), "why", "start")
BISECT = RankAndBisect(PROBLEM, ranking)


@pytest.mark.parametrize("worst", range(11))
def test_rank_and_bisect_does_what_amcts_does(worst: int) -> None:
    """Where the first `worst` layers of the ranking must be in float; 10 is all of them."""
    order = sorted(ranking(), key=ranking().__getitem__)

    def within(int8: frozenset[str]) -> bool:
        return not int8 & set(order[:worst])

    trials: list[Trial] = []
    while (suggestion := BISECT(trials)) is not None:
        good = within(int8_of(suggestion.parameters, PROBLEM))
        trials.append(trial_of(suggestion, len(trials), State.DONE, drop=0.0 if good else 1.0, within=good))
    amct = BinarySearchStrategy()
    amct.initialize(ranking())
    told, expected = worst == 0, [frozenset(order)]
    while worst and not (given := amct.update_quant_config((told, 0.0)))["stop_flag"]:
        expected.append(frozenset(layer for layer, int8 in given["roll_back_config"].items() if int8))
        told = within(expected[-1])
    assert [int8_of(trial.parameters, PROBLEM) for trial in trials] == [int8 for int8 in expected if int8]


def test_rank_and_bisect_waits_for_what_is_running() -> None:
    assert BISECT([trial_of(START, 0)]) is None


def test_rank_and_bisect_scores_what_was_undecided_on_everything() -> None:
    undecided = trial_of(START, 0, State.STOPPED, drop=0.02)
    suggestion = BISECT([undecided])
    assert suggestion is not None
    assert (suggestion.parameters, suggestion.max_samples) == (START.parameters, PROBLEM.total)
    again = trial_of(suggestion, 1)
    assert BISECT([undecided, again]) is None
    assert BISECT([undecided, replace(again, state=State.DONE, drop=0.0, within=True)]) is None
    missed = BISECT([undecided, replace(again, state=State.DONE, drop=1.0, within=False)])
    assert missed is not None
    assert missed.why == "amct: the 5 worst layers in float"


def test_rank_and_bisect_takes_what_failed_for_infeasible() -> None:
    suggestion = BISECT([trial_of(START, 0, State.FAILED)])
    assert suggestion is not None
    assert suggestion.why == "amct: the 5 worst layers in float"
    order = sorted(PROBLEM.layers, key=lambda layer: ranking()[layer])
    assert suggestion.parameters == with_int8(START.parameters, PROBLEM, order[5:])
    assert math.isclose(gain_of(order[5:], PROBLEM), gain_of(int8_of(suggestion.parameters, PROBLEM), PROBLEM))
