"""Who chooses the plans: each from the study and the seed alone."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import optuna
import pytest
from guided_problems import Synthetic, random_problem, work

from autoquant.amct.strategy import BinarySearchStrategy
from autoquant.tuning.sampling.history import Past
from autoquant.tuning.sampling.mirror import KEPT
from autoquant.tuning.sampling.problem import gain_of, int8_of, start_of, with_int8
from autoquant.tuning.sampling.samplers import POPULATION, SAMPLERS, Ingredients, next_by_rank, open_proposer
from autoquant.tuning.study.choices import SAMPLERS as NAMES

PROBLEM = random_problem(31)


def ranking() -> dict[str, float]:
    return {layer: -own["r0"] for layer, own in PROBLEM.predicted.items()}


def run(name: str, *parts: int, seed: int = 0, problem: Synthetic = PROBLEM) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for most in parts:
        work(problem, study, open_proposer(name, Ingredients(problem, seed, startup=4, ranking=ranking)), most=most)
    return study


def points(study: optuna.Study) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def test_every_name_has_a_row() -> None:
    assert tuple(SAMPLERS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_trials_also_when_another_process_goes_on(name: str) -> None:
    assert points(run(name, 15)) == points(run(name, 4, 6, 5))


@pytest.mark.parametrize("name", ["tpe", "random", "nsgaii"])
def test_another_seed_gives_others(name: str) -> None:
    assert points(run(name, 15)) != points(run(name, 15, seed=1))


@pytest.mark.parametrize("name", NAMES)
def test_every_trial_says_why(name: str) -> None:
    assert all(trial.user_attrs["why"] and trial.user_attrs["phase"] for trial in run(name, 6).trials)


def test_generations_of_nsgaii_follow_each_other() -> None:
    """Also from what was stopped early and is pruned in the study."""
    study = run("nsgaii", 3 * POPULATION)
    generations = [trial.user_attrs[KEPT]["NSGAIISampler:generation"] for trial in study.trials]
    assert generations == [number // POPULATION for number in range(3 * POPULATION)]


def test_tpe_learns_from_what_was_stopped_early() -> None:
    """That most plans are out: random ones have about half of the layers in INT8."""
    problem = random_problem(32, bad=2)
    sizes = [len(int8_of(trial.params, problem)) for trial in run("tpe", 40, problem=problem).trials]
    bad = sorted(problem.layers, key=lambda layer: problem.true[layer]["r0"])[-1]
    late = [trial.params[f"{bad}:quant_enable"] for trial in run("tpe", 40, problem=problem).trials[20:]]
    assert sum(late) < 5
    assert len(sizes) == 40


@pytest.mark.parametrize("worst", range(11))
def test_rank_and_bisect_does_what_amcts_does(worst: int) -> None:
    """Where the first `worst` layers of the ranking must be in float; 10 is all of them."""
    order = sorted(ranking(), key=ranking().__getitem__)

    def within(int8: frozenset[str]) -> bool:
        return not int8 & set(order[:worst])

    past: list[Past] = []
    while (step := next_by_rank(past, PROBLEM, ranking)) is not None:
        good = within(int8_of(step.parameters, PROBLEM))
        past.append(Past(len(past), step.parameters, step.phase, "done", drop=0.0 if good else 1.0, within=good))
    amct = BinarySearchStrategy()
    amct.initialize(ranking())
    told, expected = worst == 0, [frozenset(order)]
    while worst and not (given := amct.update_quant_config((told, 0.0)))["stop_flag"]:
        expected.append(frozenset(layer for layer, int8 in given["roll_back_config"].items() if int8))
        told = within(expected[-1])
    assert [int8_of(trial.parameters, PROBLEM) for trial in past] == [int8 for int8 in expected if int8]


def test_rank_and_bisect_waits_for_what_is_running() -> None:
    start = Past(0, start_of(PROBLEM), "start", "running")
    assert next_by_rank([start], PROBLEM, ranking) is None


def test_rank_and_bisect_scores_what_was_set_aside_on_everything() -> None:
    aside = Past(0, start_of(PROBLEM), "start", "stopped", drop=0.02)
    step = next_by_rank([aside], PROBLEM, ranking)
    assert step is not None
    assert (step.parameters, step.limit) == (start_of(PROBLEM), PROBLEM.total)
    again = Past(1, step.parameters, "amct", "running", step.limit)
    assert next_by_rank([aside, again], PROBLEM, ranking) is None
    assert next_by_rank([aside, replace(again, state="done", drop=0.0, within=True)], PROBLEM, ranking) is None
    missed = next_by_rank([aside, replace(again, state="done", drop=1.0, within=False)], PROBLEM, ranking)
    assert missed is not None
    assert missed.why == "amct: the 5 worst layers in float"


def test_rank_and_bisect_takes_what_failed_for_out() -> None:
    start = Past(0, start_of(PROBLEM), "start", "failed")
    step = next_by_rank([start], PROBLEM, ranking)
    assert step is not None
    assert step.why == "amct: the 5 worst layers in float"
    order = sorted(PROBLEM.layers, key=lambda layer: ranking()[layer])
    assert step.parameters == with_int8(start_of(PROBLEM), PROBLEM, order[5:])
    assert math.isclose(gain_of(order[5:], PROBLEM), gain_of(int8_of(step.parameters, PROBLEM), PROBLEM))
