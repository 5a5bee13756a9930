"""Who chooses the plans: each from the trials and the seed alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from guided_problems import Synthetic, play, random_problem, trial_of

from autoquant.amct.strategy import BinarySearchStrategy
from autoquant.tuning.sampling.problem import gain_of, int8_of, start_of, with_int8
from autoquant.tuning.sampling.samplers import POPULATION, SAMPLERS, RankAndBisect, open_sampler
from autoquant.tuning.study.choices import SAMPLERS as NAMES
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.trial import State, Trial

PROBLEM = random_problem(31)


def ranking() -> dict[str, float]:
    return {layer: -own["r0"] for layer, own in PROBLEM.predicted.items()}


START = Suggestion(start_of(PROBLEM), "why", "start")
BISECT = RankAndBisect(PROBLEM, ranking)


def run(name: str, *counts: int, seed: int = 0, problem: Synthetic = PROBLEM) -> list[Trial]:
    """So many trials; with several counts, each time by a sampler that is made anew."""
    trials: list[Trial] = []
    for most in counts:
        sampler = open_sampler(name, problem, seed=seed, startup=4, ranking=ranking)
        trials = play(problem, sampler, budget=1000.0, most=most, before=trials).trials
    return trials


def points(trials: list[Trial]) -> list[Parameters]:
    return [trial.parameters for trial in trials]


def test_every_name_has_a_row() -> None:
    assert tuple(SAMPLERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_trials_also_when_another_process_goes_on(name: str) -> None:
    assert points(run(name, 15)) == points(run(name, 4, 10, 15))


@pytest.mark.parametrize("name", ["tpe", "random", "nsgaii"])
def test_another_seed_gives_others(name: str) -> None:
    assert points(run(name, 15)) != points(run(name, 15, seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_says_why(name: str) -> None:
    assert all(trial.why and trial.phase for trial in run(name, 6))


def test_generations_of_nsgaii_follow_each_other() -> None:
    """Also from what was stopped early."""
    trials = run("nsgaii", 3 * POPULATION)
    generations = [trial.note["NSGAIISampler:generation"] for trial in trials]
    assert generations == [number // POPULATION for number in range(3 * POPULATION)]


def test_tpe_learns_from_what_was_stopped_early() -> None:
    """That most plans are out: random ones have about half of the layers in INT8."""
    problem = random_problem(32, bad=2)
    trials = run("tpe", 40, problem=problem)
    bad = sorted(problem.layers, key=lambda layer: problem.true[layer]["r0"])[-1]
    assert sum(bad in int8_of(trial.parameters, problem) for trial in trials[20:]) < 5
    assert len(trials) == 40


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
