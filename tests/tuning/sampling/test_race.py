"""The race of the settings of the whole model: how many points, which wins, what is not scored twice."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from guided_problems import Synthetic

from autoquant.tuning.sampling.history import History, Past
from autoquant.tuning.sampling.problem import globals_of, start_of
from autoquant.tuning.sampling.race import race
from autoquant.tuning.study.space import Choice, Parameters

HARM: dict[str, dict[Choice, float]] = {
    "batch_num": {8: 1.0, 1: 1.2},
    "equalize": {False: 1.0, True: 0.1},
    "bias_correction": {"none": 1.0, "analytic": 0.8, "empirical": 0.6},
}
PROBLEM = Synthetic({"a": 0.5, "b": 0.5}, {"a": {"r": 1.0}, "b": {"r": 1.0}}, {}, harm=HARM)
START = start_of(PROBLEM)


def run(loss: Callable[[Parameters], float | None], *, start: Past | None = None) -> tuple[list[Past], dict[str, Any]]:
    """All points of a race, after the start, and the settings that won."""
    trials = [start or Past(0, START, "start", "stopped", None, 64, loss(START), 64, drop=0.3, within=False)]
    while (raced := race(History(tuple(trials), PROBLEM), START)).step is not None:
        step = raced.step
        assert step.limit is not None
        measured = loss(step.parameters)
        trial = Past(len(trials), step.parameters, "race", "stopped", step.limit, step.limit, measured, step.limit, 0.1)
        trials.append(trial if measured is not None else replace(trial, state="failed", drop=None))
        assert len(trials) < 20
    return trials, dict(globals_of(raced.winner))


def true_loss(parameters: Parameters) -> float:
    return math.prod(HARM[name][value] for name, value in globals_of(parameters).items())


def test_single_changes_then_those_for_the_better_together() -> None:
    trials, winner = run(true_loss)
    assert winner == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}
    assert [trial.limit for trial in trials[1:]] == [64, 64, 64, 64, 128, 128]


def test_those_that_are_close_are_scored_on_more() -> None:
    def loss(parameters: Parameters) -> float:
        return 0.95 if parameters["equalize"] else 1.0

    trials, winner = run(loss)
    assert winner["equalize"] is True
    assert [trial.limit for trial in trials[1:]] == [64, 64, 64, 64, 128, 256]


def test_where_nothing_is_better_the_start_wins() -> None:
    trials, winner = run(lambda parameters: 1.0)
    assert winner == globals_of(START)
    assert len(trials) == 5


def test_changes_that_spoil_each_other_are_not_put_together() -> None:
    def loss(parameters: Parameters) -> float:
        both = parameters["equalize"] and parameters["bias_correction"] != "none"
        return 5.0 if both else true_loss(parameters)

    assert run(loss)[1] == {"batch_num": 8, "equalize": True, "bias_correction": "none"}


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
def test_what_failed_or_is_no_number_has_lost(lost: float | None) -> None:
    def loss(parameters: Parameters) -> float | None:
        return lost if parameters["equalize"] else true_loss(parameters)

    assert run(loss)[1] == {"batch_num": 8, "equalize": False, "bias_correction": "empirical"}


def test_a_start_of_which_nothing_is_known_yet_does_not_hold_the_race_up() -> None:
    trials, winner = run(true_loss, start=Past(0, START, "start", "running"))
    assert winner == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}
    assert len({tuple(trial.parameters.items()) for trial in trials}) < len(trials)  # the same on more samples


def test_no_point_is_scored_twice_on_as_many_samples() -> None:
    trials, _ = run(true_loss)
    points = [(tuple(sorted(map(str, trial.parameters.items()))), trial.limit) for trial in trials]
    assert len(set(points)) == len(points)


def test_without_losses_drops_are_compared() -> None:
    trials = [Past(0, START, "start", "stopped", None, 64, drop=0.3, within=False)]
    while (raced := race(History(tuple(trials), PROBLEM), START)).step is not None:
        step = raced.step
        drop = 0.1 * true_loss(step.parameters)
        trials.append(Past(len(trials), step.parameters, "race", "stopped", step.limit, step.limit or 0, drop=drop))
    assert globals_of(raced.winner) == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}
