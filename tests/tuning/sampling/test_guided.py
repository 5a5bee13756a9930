"""The guided sampler on searches by formula, of which the optimum is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from guided_problems import Played, Synthetic, play, random_problem, trial_of

from autoquant.tuning.sampling.coding import Coding
from autoquant.tuning.sampling.guided import propose
from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.infeasible import Infeasible
from autoquant.tuning.sampling.problem import gain_of, int8_of, start_of, with_int8
from autoquant.tuning.sampling.samplers import Guided
from autoquant.tuning.study.space import Choice, Parameters, Suggestion, switch_of
from autoquant.tuning.study.trial import State, Trial

HARM: dict[str, dict[Choice, float]] = {"batch_num": {8: 1.0, 1: 1.2}, "equalize": {False: 1.0, True: 0.01}}
WEAK_HARM: dict[str, dict[Choice, float]] = {"batch_num": {8: 1.0, 1: 1.2}, "equalize": {False: 1.0, True: 0.8}}


def guided(problem: Synthetic, *, budget: float = 10.0) -> Played:
    return play(problem, lambda trials: propose(History.of(trials, problem)), budget=budget)


def scaled(problem: Synthetic, factor: float) -> Synthetic:
    """The same with all divergences, and what is predicted of them, larger."""

    def grown(own: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
        return {layer: {name: each * factor for name, each in kinds.items()} for layer, kinds in own.items()}

    return replace(problem, true=grown(problem.true), predicted=grown(problem.predicted))


@pytest.mark.parametrize("kind", [{}, {"wrong": 0.7}, {"pairs": 0.5}], ids=["additive", "misjudged", "interacting"])
def test_nearly_the_optimum_in_few_full_evaluations(kind: dict[str, Any]) -> None:
    """Of ten layers two are bad; the optimum is that of all 1,024 plans."""
    costs = []
    for seed in range(8):
        problem = random_problem(1000 + seed, **kind)
        costs.append(guided(problem).cost_until(problem, 0.99 * problem.optimum()))
    assert np.median(costs) <= 3.0
    assert sum(cost <= 10.0 for cost in costs) >= 7


def test_all_int8_within_is_the_end() -> None:
    problem = scaled(random_problem(3), 1e-3)
    played = guided(problem)
    assert played.ended
    assert [trial.phase for trial in played.trials] == ["start"]
    assert problem.asked == 0


def test_settings_that_repair_everything_are_found_before_float_layers() -> None:
    problem = replace(scaled(random_problem(3), 20.0), harm=HARM)
    played = guided(problem)
    assert played.ended
    assert [trial.phase for trial in played.trials] == ["start", "race", "race", "race", "winner"]
    assert played.trials[-1].within
    assert played.trials[-1].parameters["equalize"] is True
    assert problem.asked == 0
    assert played.cost() < 1.5


def test_training_comes_once_cheaper_settings_have_missed() -> None:
    """And before any layer goes to float; the race does without."""
    harm: dict[str, dict[Choice, float]] = {**WEAK_HARM, "training": {False: 1.0, True: 0.01}}
    problem = replace(scaled(random_problem(3), 20.0), harm=harm)
    played = guided(problem)
    assert played.trials[-1].phase == "winner"
    assert [trial.parameters["training"] for trial in played.trials] == [False] * (len(played.trials) - 1) + [True]
    assert played.ended and played.trials[-1].within
    assert problem.asked == 0


def test_training_that_brings_little_is_tried_once() -> None:
    """What follows is built on the winner without it."""
    harm: dict[str, dict[Choice, float]] = {**WEAK_HARM, "training": {False: 1.0, True: 0.97}}
    problem = replace(scaled(random_problem(3), 5.0), harm=harm)
    played = guided(problem)
    assert sum(bool(trial.parameters["training"]) for trial in played.trials) == 1


def test_training_that_brings_much_stays() -> None:
    """Though it is not enough: layers go to float on top of it."""
    harm: dict[str, dict[Choice, float]] = {**WEAK_HARM, "training": {False: 1.0, True: 0.3}}
    problem = replace(scaled(random_problem(3), 20.0), harm=harm)
    played = guided(problem)
    first = next(place for place, trial in enumerate(played.trials) if trial.parameters["training"])
    assert all(trial.parameters["training"] for trial in played.trials[first:])
    assert len(played.trials) > first + 1


def test_the_best_settings_of_every_layer_come_before_the_knapsack() -> None:
    problem = random_problem(3, ranges=3)
    true = {layer: {"r0": 0.02, "r1": 0.02, "r2": 0.0001} for layer in problem.layers}
    played = guided(replace(problem, true=true, predicted=true, flips={}))
    assert [trial.phase for trial in played.trials] == ["start", "settings"]
    assert played.trials[-1].within


@pytest.mark.parametrize("layers", [1, 2, 10, 40])
def test_where_nothing_is_within_it_ends(layers: int) -> None:
    problem = scaled(random_problem(4, layers=layers, bad=1), 1e6)
    played = guided(problem, budget=100.0)
    assert played.ended
    assert not any(trial.within for trial in played.trials)
    assert played.cost() < 4.0
    assert min(len(int8_of(trial.parameters, problem)) for trial in played.trials) == 1


class ByChance(Synthetic):
    """Whatever is in INT8 just misses, but for one setting of all layers together, of which nothing is predicted."""

    def drop(self, parameters: Parameters) -> float:
        """On all samples."""
        lucky = all(parameters[f"{layer}:act_algo"] == "r2" for layer in self.layers)
        return self.max_drop * (0.5 if lucky else 1.5)


class Screening(ByChance):
    """What would take all samples to be found not within is undecided after few."""

    def evaluate(self, suggestion: Suggestion, number: int) -> Trial:
        ended = super().evaluate(suggestion, number)
        missed = ended.state is State.DONE and not ended.within and suggestion.max_samples is None
        return replace(ended, state=State.STOPPED, samples=self.total // 8, within=None) if missed else ended


@pytest.mark.parametrize("kind", [ByChance, Screening])
def test_a_near_miss_is_tried_with_other_settings_of_all_layers(kind: Any) -> None:
    even = {f"l{number}": dict.fromkeys(("r0", "r1", "r2"), 0.01) for number in range(4)}
    problem = kind(dict.fromkeys(even, 0.25), even, even, max_drop=0.01, total=400)
    played = guided(problem, budget=30.0)
    *_, last = played.trials
    assert last.within
    assert last.phase == "refine"
    assert int8_of(last.parameters, problem) == set(problem.layers)


class Luck(Screening):
    """With all layers in INT8 only one setting of the whole model is within, and nothing tells which."""

    def drop(self, parameters: Parameters) -> float:
        """On all samples."""
        lucky = parameters["bias_correction"] == "empirical" or int8_of(parameters, self) != set(self.layers)
        return self.max_drop * (0.5 if lucky else 1.5)


def test_runners_up_of_a_race_are_tried_once_something_is_within() -> None:
    even = {f"l{number}": {"r0": 0.01} for number in range(4)}
    harm: dict[str, dict[Choice, float]] = {
        "bias_correction": {"none": 1.0, "analytic": 1.3, "empirical": 1.4, "other": 9.0}
    }
    problem = Luck(dict.fromkeys(even, 0.25), even, even, harm=harm, max_drop=0.01, total=2000)
    played = guided(problem, budget=30.0)
    *_, within, analytic, empirical = played.trials
    assert (within.phase, within.within, len(int8_of(within.parameters, problem))) == ("knapsack", True, 3)
    assert [trial.phase for trial in (analytic, empirical)] == ["winner", "winner"]
    assert (analytic.undecided, analytic.parameters["bias_correction"]) == (True, "analytic")
    assert (empirical.within, empirical.parameters["bias_correction"]) == (True, "empirical")
    assert int8_of(empirical.parameters, problem) == set(problem.layers)


class Doubting(Synthetic):
    """With all layers in INT8 everything is within, though few samples do not look like it."""

    def drop(self, parameters: Parameters) -> float:
        """On all samples."""
        return 0.5 * self.max_drop

    def evaluate(self, suggestion: Suggestion, number: int) -> Trial:
        ended = super().evaluate(suggestion, number)
        if suggestion.max_samples is not None or int8_of(suggestion.parameters, self) != set(self.layers):
            return ended
        return replace(ended, state=State.STOPPED, samples=self.total // 8, within=None, drop=1.2 * self.max_drop)


def test_undecided_trials_are_rescored_when_nothing_better_is_left() -> None:
    even = {f"l{number}": {"r0": 0.01} for number in range(4)}
    problem = Doubting(dict.fromkeys(even, 0.25), even, even, max_drop=0.01, total=400)
    played = guided(problem, budget=30.0)
    *before, last = played.trials
    assert (last.phase, last.max_samples, last.within) == ("rescore", problem.total, True)
    assert int8_of(last.parameters, problem) == set(problem.layers)
    assert max(len(int8_of(trial.parameters, problem)) for trial in before if trial.within) == 3


def test_a_rescored_trial_that_was_within_leaves_more_to_try() -> None:
    """Two layers of four were undecided and then proven to be within: with one more they may be so too."""
    even = {layer: {"r0": 0.01} for layer in "abcd"}
    problem = Synthetic(dict.fromkeys(even, 0.25), even, even, max_drop=0.01, total=400)

    def point(int8: str) -> Parameters:
        return with_int8(start_of(problem), problem, int8)

    def trial(number: int, int8: str, state: State, *, max_samples: int | None = None, **facts: Any) -> Trial:
        suggestion = Suggestion(point(int8), "why", max_samples=max_samples)
        return trial_of(suggestion, number, state, objective=1.0 - 0.25 * len(int8), **facts)

    trials = (
        trial(0, "abcd", State.DONE, samples=400, drop=0.02, within=False),
        trial(1, "ab", State.STOPPED, samples=50, drop=0.012),
        trial(2, "ab", State.DONE, max_samples=400, samples=400, drop=0.0, within=True),
    )
    three, infeasible = Coding(problem).encode(point("abc")), Infeasible(History.of(trials, problem))
    assert infeasible.is_open(three)
    assert not Infeasible(History.of(trials[:2], problem)).is_open(three)
    assert infeasible.next_recheck() is None


@pytest.mark.parametrize("seed", range(3))
def test_a_tolerance_of_nothing_is_no_reason_to_halve(seed: int) -> None:
    """Most drops are 0 samples; the first miss is one of 1 sample."""
    even = {f"l{number}": {"r0": 0.001 * 2**number} for number in range(8)}

    class Whole(Synthetic):
        def drop(self, parameters: Parameters) -> float:
            return float(self.divergence(parameters) > 0.2) / self.total

    problem = Whole(dict.fromkeys(even, 0.125), even, even, max_drop=0.0, total=400, seed=seed)
    played = guided(problem)
    assert "halving" not in [trial.phase for trial in played.trials]
    assert played.cost_until(problem, 0.875) <= 10.0  # all but the last


def test_layers_that_are_always_int8_are_tried_alone_at_last() -> None:
    problem = scaled(random_problem(4, layers=4, bad=1), 1e6)
    played = guided(replace(problem, predicted={**problem.predicted, "fixed": {"r0": 0.01}}), budget=100.0)
    assert int8_of(played.trials[-1].parameters, problem) == frozenset()
    assert played.trials[-1].within


def test_a_layer_that_cannot_be_int8_is_left_in_float() -> None:
    problem = scaled(random_problem(5, bad=0), 1e-3)
    failed = trial_of(Suggestion(start_of(problem), "why", "start"), 0, State.FAILED, at_fault="l03")
    suggestion = propose(History.of([failed], problem))
    assert suggestion is not None
    assert int8_of(suggestion.parameters, problem) == set(problem.layers) - {"l03"}
    within = problem.evaluate(suggestion, 1)
    assert within.within
    assert propose(History.of([failed, within], problem)) is None  # nothing that is not excluded gains more


def test_a_plan_that_failed_because_of_no_single_layer_is_not_tried_again() -> None:
    problem = random_problem(6)

    def failing(trials: Sequence[Trial]) -> Suggestion | None:
        return propose(History.of([replace(trial, state=State.FAILED, within=None) for trial in trials], problem))

    played = play(problem, failing, most=60)
    assert len({Coding(problem).key(trial.parameters) for trial in played.trials}) == len(played.trials)


def test_a_layer_that_is_slower_in_int8_goes_back_to_float() -> None:
    problem = scaled(random_problem(7), 1e-3)
    gains = {**problem.gains, "l04": -0.2}
    played = guided(replace(problem, gains=gains))
    assert played.ended
    assert int8_of(played.trials[-1].parameters, problem) == set(problem.layers) - {"l04"}
    assert played.trials[-1].within


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 0.0])
def test_predictions_that_are_no_numbers(wrong: float) -> None:
    problem = random_problem(8)
    odd = {**problem.predicted, "l01": {"r0": wrong}, "l02": {"r0": wrong}}
    played = guided(replace(problem, predicted=odd))
    assert any(trial.within for trial in played.trials)


def test_a_model_without_a_layer_to_choose() -> None:
    problem = replace(random_problem(3), gains={}, true={}, predicted={})
    out = trial_of(Suggestion({}, "why", "start"), 0, State.STOPPED, samples=64, drop=0.5, within=False)
    assert propose(History.of([], problem)) == Suggestion({}, "all INT8", "start")
    assert propose(History.of([out], problem)) is None


def test_the_same_history_gives_the_same_suggestion_and_nothing_is_proposed_twice() -> None:
    problem = replace(random_problem(9, ranges=3), harm=HARM)
    played = guided(problem, budget=15.0)
    for count, trial in enumerate(played.trials):
        suggestion = propose(History.of(played.trials[:count], problem))
        assert suggestion is not None
        assert suggestion.parameters == trial.parameters
    points = [(Coding(problem).key(trial.parameters), trial.max_samples) for trial in played.trials]
    assert len(set(points)) == len(points)


def test_running_trials_are_not_proposed_again() -> None:
    """Eight at the same time, none of which has ended."""
    problem = replace(random_problem(10), harm=HARM)
    trials: list[Trial] = []
    while len(trials) < 8 and (suggestion := propose(History.of(trials, problem))) is not None:
        trials.append(trial_of(suggestion, len(trials)))
    points = {(Coding(problem).key(trial.parameters), trial.max_samples) for trial in trials}
    assert len(points) == len(trials) == 8


def test_the_optimum_is_found_with_two_trials_at_a_time() -> None:
    problem = replace(random_problem(21), harm=WEAK_HARM)
    trials: dict[int, Trial] = {}
    running: list[Suggestion] = []
    for _ in range(60):
        suggestion = propose(History.of(list(trials.values()), problem))
        if suggestion is not None:
            trials[len(trials)] = trial_of(suggestion, len(trials))
            running.append(suggestion)
        elif not running:
            break
        if len(running) == 2 or suggestion is None:
            number = next(number for number, trial in trials.items() if trial.state is State.RUNNING)
            trials[number] = problem.evaluate(running.pop(0), number)
    check_optimum(problem, list(trials.values()))


def test_more_than_what_was_out_is_not_tried() -> None:
    problem = random_problem(11)
    played = guided(problem)
    out: list[frozenset[str]] = []
    for trial in played.trials:
        int8 = int8_of(trial.parameters, problem)
        assert not any(layers <= int8 for layers in out)
        if trial.within is False:
            out.append(int8)


def test_every_suggestion_says_why() -> None:
    problem = replace(random_problem(12), harm=HARM)
    words = [trial.why for trial in play(problem, lambda trials: propose(History.of(trials, problem)), most=30).trials]
    assert words[:3] == [
        "all INT8: 8 batches, not equalized",
        "race 1 batch (64 samples)",
        "race equalized (64 samples)",
    ]
    assert all(word.startswith(("knapsack: ", "refine: ", "race ", "winner ", "all INT8", "best ")) for word in words)


def test_the_gain_is_that_of_the_layers_in_int8() -> None:
    problem = random_problem(13)
    point = with_int8(start_of(problem), problem, {"l01", "l02"})
    assert point[switch_of("l01")] is True
    assert point[switch_of("l03")] is False
    assert gain_of(int8_of(point, problem), problem) == problem.gains["l01"] + problem.gains["l02"]
    assert problem.objective(point) == pytest.approx(1.0 - problem.gains["l01"] - problem.gains["l02"])


def test_two_hundred_layers() -> None:
    problem = random_problem(14, layers=200, bad=10, wrong=0.5)
    played = guided(problem, budget=4.0)
    assert max(1.0 - trial.objective for trial in played.trials if trial.within) > 0.9


def test_every_layer_and_every_pair_in_float_comes_before_other_settings() -> None:
    """The last of three in float is enough, which predictions say least."""
    true = {"first": dict.fromkeys(("r0", "r1"), 0.02), "middle": dict.fromkeys(("r0", "r1"), 0.02)}
    true["last"] = dict.fromkeys(("r0", "r1"), 0.06)
    wrong = {layer: dict.fromkeys(("r0", "r1"), 0.03) for layer in ("first", "middle")}
    wrong["last"] = dict.fromkeys(("r0", "r1"), 0.01)
    problem = Synthetic({"first": 0.07, "middle": 0.82, "last": 0.11}, true, wrong)
    sets: list[frozenset[str]] = []
    for trial in guided(problem, budget=50.0).trials:
        int8 = int8_of(trial.parameters, problem)
        if trial.within and int8 == {"first", "middle"}:
            break
        assert int8 not in sets
        sets.append(int8)
    else:
        pytest.fail("never tried")
    assert len(sets) <= 5


def test_in_larger_networks_single_layers_are_judged() -> None:
    """The one that INT8 ruins is predicted to be good, with thirty others, and gains least."""
    names = [f"l{number:02d}" for number in range(31)]
    true = {name: {"r0": 0.001} for name in names} | {"l07": {"r0": 0.5}}
    problem = Synthetic(
        {name: 0.01 if name == "l07" else 0.033 for name in names}, true, {name: {"r0": 0.001} for name in names}
    )
    played = guided(problem, budget=30.0)
    best = max((trial for trial in played.trials if trial.within), key=lambda trial: -trial.objective)
    assert int8_of(best.parameters, problem) == set(names) - {"l07"}


def check_optimum(problem: Synthetic, trials: Sequence[Trial]) -> None:
    """That the optimum was found, and nothing was carried out twice."""
    ended = [trial for trial in trials if trial.state is not State.RUNNING]
    points = [(Coding(problem).key(trial.parameters), trial.max_samples) for trial in ended]
    assert len(set(points)) == len(points)
    best = max(gain_of(int8_of(trial.parameters, problem), problem) for trial in ended if trial.within)
    assert best >= 0.99 * problem.optimum()


def test_the_optimum_is_found_and_nothing_is_carried_out_twice() -> None:
    problem = replace(random_problem(21), harm=WEAK_HARM)
    played = play(problem, Guided(problem), budget=1000.0, most=40)
    check_optimum(problem, played.trials)
    assert [trial.phase for trial in played.trials[:4]] == ["start", "race", "race", "race"]
    assert [trial.max_samples for trial in played.trials[:4]] == [None, 64, 64, 64]


def test_the_same_seed_gives_the_same_trials_also_when_another_process_goes_on() -> None:
    problem = replace(random_problem(21), harm=WEAK_HARM)
    runs = []
    for parts in ((25,), (5, 12, 25)):
        trials: list[Trial] = []
        for most in parts:
            trials = play(problem, Guided(problem, seed=3), budget=1000.0, most=most, before=trials).trials
        runs.append([(trial.parameters, trial.why) for trial in trials])
    assert runs[0] == runs[1]


def test_tpe_goes_on_around_the_incumbent_when_all_else_is_used_up() -> None:
    """Layers of equal gain and divergence that differ in what cannot be predicted."""
    problem = replace(random_problem(22, bad=3, ranges=2), noise=0.3)
    trials = play(problem, Guided(problem), budget=1000.0, most=60).trials
    tried = [trial for trial in trials if trial.phase == "tpe"]
    for trial in tried:
        incumbent = trials[int(trial.why.removeprefix("TPE around trial "))]
        assert incumbent.within
        assert 1 <= sum(trial.parameters[name] != value for name, value in incumbent.parameters.items()) <= 6
        assert trial.objective < incumbent.objective
    assert tried
