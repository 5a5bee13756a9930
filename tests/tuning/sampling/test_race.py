"""The race of the settings of the whole model: how many points, which wins, what is not scored twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from guided_problems import Synthetic, trial_of

from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.problem import globals_of, start_of
from autoquant.tuning.sampling.race import race
from autoquant.tuning.study.space import Choice, Parameters, Suggestion
from autoquant.tuning.study.trial import State, Trial

HARM: Mapping[str, Mapping[Choice, float]] = {
    "batch_num": {8: 1.0, 1: 1.2},
    "equalize": {False: 1.0, True: 0.1},
    "bias_correction": {"none": 1.0, "analytic": 0.8, "empirical": 0.6},
}
PROBLEM = Synthetic({"a": 0.5, "b": 0.5}, {"a": {"r": 1.0}, "b": {"r": 1.0}}, {}, harm=HARM)
START = start_of(PROBLEM)


def trial(number: int, point: Parameters, samples: int | None, **facts: Any) -> Trial:
    """One that was stopped early, on so many samples, or on 64 where it had no limit."""
    seen = samples or 64
    suggestion = Suggestion(point, "why", "race" if samples else "start", samples)
    known: dict[str, Any] = {"state": State.STOPPED, "samples": seen, "divergence_samples": seen, **facts}
    return trial_of(suggestion, number, **known)


def run(
    divergence: Callable[[Parameters], float | None], *, start: Trial | None = None
) -> tuple[list[Trial], dict[str, Choice]]:
    """All points of a race, after the start, and the settings that won."""
    measured = divergence(START)
    assert measured is not None
    trials = [start or trial(0, START, None, divergences=(measured,), drop=0.3, within=False)]
    while (raced := race(History.of(trials, PROBLEM), START)).next is not None:
        suggestion = raced.next
        assert suggestion.max_samples is not None
        measured = divergence(suggestion.parameters)
        facts = {"state": State.FAILED} if measured is None else {"divergences": (measured,), "drop": 0.1}
        trials.append(trial(len(trials), suggestion.parameters, suggestion.max_samples, **facts))
        assert len(trials) < 20
    return trials, dict(globals_of(raced.ranked[0]))


def true_divergence(parameters: Parameters) -> float:
    return math.prod(HARM[name][value] for name, value in globals_of(parameters).items())


def test_single_changes_then_those_for_the_better_together() -> None:
    trials, winner = run(true_divergence)
    assert winner == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}
    assert [trial.max_samples for trial in trials[1:]] == [64, 64, 64, 64, 128, 128]


def test_those_that_are_close_are_scored_on_more() -> None:
    def divergence(parameters: Parameters) -> float:
        return 0.95 if parameters["equalize"] else 1.0

    trials, winner = run(divergence)
    assert winner["equalize"] is True
    assert [trial.max_samples for trial in trials[1:]] == [64, 64, 64, 64, 128, 256]


def test_where_nothing_is_better_the_start_wins() -> None:
    trials, winner = run(lambda parameters: 1.0)
    assert winner == globals_of(START)
    assert len(trials) == 5


def test_changes_that_spoil_each_other_are_not_put_together() -> None:
    def divergence(parameters: Parameters) -> float:
        both = parameters["equalize"] and parameters["bias_correction"] != "none"
        return 5.0 if both else true_divergence(parameters)

    assert run(divergence)[1] == {"batch_num": 8, "equalize": True, "bias_correction": "none"}


@pytest.mark.parametrize("lost", [None, math.nan, math.inf])
def test_failed_trials_and_nan_lose_a_race(lost: float | None) -> None:
    def divergence(parameters: Parameters) -> float | None:
        return lost if parameters["equalize"] else true_divergence(parameters)

    assert run(divergence)[1] == {"batch_num": 8, "equalize": False, "bias_correction": "empirical"}


def test_a_start_of_which_nothing_is_known_yet_does_not_hold_the_race_up() -> None:
    trials, winner = run(true_divergence, start=trial_of(Suggestion(START, "why", "start"), 0))
    assert winner == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}
    assert len({tuple(trial.parameters.items()) for trial in trials}) < len(trials)  # the same on more samples


def test_no_point_is_scored_twice_on_as_many_samples() -> None:
    trials, _ = run(true_divergence)
    points = [(tuple(sorted(map(str, trial.parameters.items()))), trial.max_samples) for trial in trials]
    assert len(set(points)) == len(points)


def test_without_divergences_drops_are_compared() -> None:
    trials = [trial(0, START, None, divergence_samples=0, drop=0.3, within=False)]
    while (raced := race(History.of(trials, PROBLEM), START)).next is not None:
        point, samples = raced.next.parameters, raced.next.max_samples
        trials.append(trial(len(trials), point, samples, divergence_samples=0, drop=0.1 * true_divergence(point)))
    assert globals_of(raced.ranked[0]) == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}
