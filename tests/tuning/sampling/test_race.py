"""The race of the settings of the whole model: how many points, which wins, what is not scored twice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from guided_problems import Synthetic, trial_of

from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.problem import globals_of, start_of
from autoquant.tuning.sampling.race import MOST, race, samples_of
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
    divergence: Callable[[Parameters], float | None], *, start: Trial | None = None, problem: Synthetic = PROBLEM
) -> tuple[list[Trial], dict[str, Choice]]:
    """All points of a race, after the start, and the settings that won."""
    reference = start_of(problem)
    measured = divergence(reference)
    assert measured is not None
    trials = [start or trial(0, reference, None, divergences=(measured,), drop=0.3, within=False)]
    while (raced := race(History.of(trials, problem), reference)).next is not None:
        suggestion = raced.next
        assert suggestion.max_samples is not None
        measured = divergence(suggestion.parameters)
        facts = {"state": State.FAILED} if measured is None else {"divergences": (measured,), "drop": 0.1}
        trials.append(trial(len(trials), suggestion.parameters, suggestion.max_samples, **facts))
        assert len(trials) < 20
    return trials, dict(globals_of(raced.ranked[0]))


def true_divergence(parameters: Parameters) -> float:
    return math.prod(HARM[name][value] for name, value in globals_of(parameters).items())


def changed(trial: Trial) -> dict[str, Choice]:
    """The settings of a trial that are not those of the start."""
    return {name: value for name, value in globals_of(trial.parameters).items() if value != START[name]}


def test_single_changes_then_a_second_start_then_changes_of_the_best() -> None:
    trials, winner = run(true_divergence)
    assert winner == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}
    assert [changed(trial) for trial in trials[1:5]] == [
        {"batch_num": 1},
        {"equalize": True},
        {"bias_correction": "analytic"},
        {"bias_correction": "empirical"},
    ]
    assert changed(trials[5]) == {"batch_num": 1, "equalize": True, "bias_correction": "empirical"}
    assert {trial.max_samples for trial in trials[1:-2]} == {64}
    assert [trial.max_samples for trial in trials[-2:]] == [256, 256]  # of the winner, and what is within a fifth of it


def test_of_few_combinations_all_are_compared() -> None:
    """Equalization ruins what no correction can repair, and no correction is worth anything beside it."""
    harm: Mapping[str, Mapping[Choice, float]] = {
        "equalize": {True: 1.0, False: 0.2},
        "bias_correction": {"analytic": 1.0, "empirical": 1.0, "none": 1.0},
    }
    problem = Synthetic({"a": 1.0}, {"a": {"r": 1.0}}, {}, harm=harm)

    def divergence(parameters: Parameters) -> float:
        best = not parameters["equalize"] and parameters["bias_correction"] == "empirical"
        return 0.01 if best else problem._harm(globals_of(parameters)) * (1.0 + 0.01 * len(str(parameters)))

    trials, winner = run(divergence, problem=problem)
    assert winner == {"equalize": False, "bias_correction": "empirical"}
    assert len({tuple(globals_of(trial.parameters).items()) for trial in trials}) == 6


def test_every_setting_is_judged_on_top_of_the_best() -> None:
    """Of 54 combinations: whatever corrections do, they show only once weights are rounded well, not equalized."""
    harm: Mapping[str, Mapping[Choice, float]] = {
        "equalize": dict.fromkeys((True, False, "activations"), 1.0),
        "bias_correction": dict.fromkeys(("analytic", "empirical", "none"), 1.0),
        "dmq": dict.fromkeys(("no dmq", "dmq 0.7", "dmq 0.5"), 1.0),
        "weight_rounding": dict.fromkeys(("nearest", "gptq"), 1.0),
    }
    problem = Synthetic({"a": 1.0}, {"a": {"r": 1.0}}, {}, harm=harm)

    def divergence(parameters: Parameters) -> float:
        off = 1.0 if parameters["equalize"] is True else 0.1
        off += 0.0 if parameters["weight_rounding"] == "gptq" else 0.1
        off += {"analytic": 0.03, "empirical": 0.01, "none": 0.02}[str(parameters["bias_correction"])]
        return off + 1e-4 * len(str(parameters))  # no two alike

    trials, winner = run(divergence, problem=problem)
    assert (winner["equalize"], winner["weight_rounding"]) in ((False, "gptq"), ("activations", "gptq"))
    assert winner["bias_correction"] == "empirical"
    assert len({tuple(globals_of(trial.parameters).items()) for trial in trials}) <= MOST
    assert sum(trial.max_samples or 0 for trial in trials) <= 2000


def test_those_that_are_close_are_scored_on_more() -> None:
    def divergence(parameters: Parameters) -> float:
        return 0.95 if parameters["equalize"] else 1.0

    trials, winner = run(divergence)
    assert winner["equalize"] is True
    assert [trial.max_samples for trial in trials[1:]] == [64, 64, 64, 64, 256]


def test_what_changes_nothing_is_not_combined_and_not_tried_again() -> None:
    trials, winner = run(lambda parameters: 1.0)
    assert winner == globals_of(START)
    assert len(trials) == 5
    raced = race(History.of(trials, PROBLEM), START)
    assert list(raced.ranked) == [START]
    assert list(raced.near) == [START]


@pytest.mark.parametrize(
    ("total", "expected"),
    [(4000, (64, 256)), (1000, (32, 128)), (489, (16, 64)), (100, (4, 16)), (8, (1, 4)), (5, (1, 5)), (1, (1, 1))],
)
def test_few_samples_are_compared_where_there_are_few(total: int, expected: tuple[int, int]) -> None:
    assert samples_of(total) == expected


def test_drops_are_compared_where_few_samples_tell_of_them() -> None:
    """What is nearer to FP32 may lose more."""

    def facts(point: Parameters) -> dict[str, Any]:
        divergence = 2.0 - true_divergence(point)
        return {"divergences": (divergence,), "probe_drops": (true_divergence(point) - 0.5,)}

    trials = [trial(0, START, None, **facts(START), drop=0.3, within=False)]
    while (raced := race(History.of(trials, PROBLEM), START)).next is not None:
        trials.append(trial(len(trials), raced.next.parameters, raced.next.max_samples, **facts(raced.next.parameters)))
    assert globals_of(raced.ranked[0]) == {"batch_num": 8, "equalize": True, "bias_correction": "empirical"}


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


@pytest.mark.parametrize(("max_trials", "points"), [(6, 2), (15, 5), (math.inf, 14)])
def test_with_few_trials_few_points_are_compared(max_trials: float, points: int) -> None:
    """The start included; the other trials are for what follows."""
    names = ("a", "b", "c", "d")
    harm: dict[str, dict[Choice, float]] = {
        name: {0: 1.0, 1: 0.99 - place / 100, 2: 0.98 - place / 100} for place, name in enumerate(names)
    }
    even = {"l0": {"r0": 0.05}}
    problem = Synthetic({"l0": 1.0}, even, even, harm=harm, max_trials=max_trials, total=2000)
    trials: list[Trial] = []
    while (found := race(History.of(trials, problem), start_of(problem)).next) is not None and found.max_samples == 64:
        trials.append(problem.evaluate(found, len(trials)))
    assert len(trials) == points - 1
