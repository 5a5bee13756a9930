"""Bisection along a ranking: what is probed next, from the trials alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
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


@pytest.mark.parametrize("worst", range(1, 11))
@pytest.mark.parametrize("seed", range(3))
def test_probes_beside_running_ones_are_what_their_ends_ask_for(worst: int, seed: int) -> None:
    """With three at a time, in whatever order they end, the fewest layers in float are those found one by one."""
    order, random = sorted(ranking(), key=ranking().__getitem__), np.random.default_rng(seed)
    trials = [trial_of(START, 0, State.DONE, drop=1.0, within=False)]
    numbers = set[int]()
    while True:
        running = [trial for trial in trials if trial.state is State.RUNNING]
        suggestion = BISECT(trials) if len(running) < 3 else None
        if suggestion is not None:
            numbers.add(len(PROBLEM.layers) - len(int8_of(suggestion.parameters, PROBLEM)))
            trials.append(trial_of(suggestion, len(trials)))
        elif running:
            chosen = running[int(random.integers(len(running)))]
            good = not int8_of(chosen.parameters, PROBLEM) & set(order[:worst])
            trials[chosen.number] = replace(chosen, state=State.DONE, drop=0.0 if good else 1.0, within=good)
        else:
            break
    assert len(numbers) == len(trials) - 1
    assert (worst in numbers or worst == 10) and worst - 1 in {0, *numbers}


def test_three_probes_are_those_of_either_end() -> None:
    trials = [trial_of(START, 0, State.FAILED)]
    while (suggestion := BISECT(trials)) is not None:
        trials.append(trial_of(suggestion, len(trials)))
    in_float = [len(PROBLEM.layers) - len(int8_of(trial.parameters, PROBLEM)) for trial in trials]
    assert in_float == [0, 5, 8, 2, 9, 6, 3, 1, 7, 4]


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
