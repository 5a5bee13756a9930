"""The samplers: each chooses plans from the trials and the seed alone."""

from __future__ import annotations

import pytest
from guided_problems import Synthetic, play, random_problem

from autoquant.tuning.sampling.problem import int8_of
from autoquant.tuning.sampling.samplers import POPULATION, SAMPLERS, open_sampler
from autoquant.tuning.study.choices import SAMPLERS as NAMES
from autoquant.tuning.study.space import Parameters
from autoquant.tuning.study.trial import Trial

PROBLEM = random_problem(31)


def ranking() -> dict[str, float]:
    return {layer: -own["r0"] for layer, own in PROBLEM.predicted.items()}


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
    assert tuple(SAMPLERS) == tuple(NAMES)


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
