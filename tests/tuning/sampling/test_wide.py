"""Plans with a choice of 16 bits: layers one behind the other, whose input is rounded where either side has 8."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from guided_problems import play, trial_of
from wide_problems import WideChain, wide_chain

from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.moves import alternatives, float_choices
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.problem import start_of
from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.study.space import Parameters, Suggestion, bits_of
from autoquant.tuning.study.trial import State, Trial

LAYERS = tuple("abcdefgh")
EVEN = dict.fromkeys(LAYERS, 0.01)


def plans_of(problem: WideChain, *trials: Trial) -> Plans:
    history, base = History.of(trials, problem), start_of(problem)
    return Plans(history, base, history.predictions(base))


def trial(problem: WideChain, number: int, wide: str, drop: float) -> Trial:
    """A trial with these layers in 16 bits, and the others in INT8."""
    point: Parameters = {**start_of(problem), **{bits_of(layer): 16 for layer in wide}}
    facts = {"drop": drop, "within": drop <= problem.max_drop, "objective": problem.objective(point), "samples": 2000}
    return trial_of(Suggestion(point, "why"), number, State.DONE, divergences=(problem.divergence(point),), **facts)


def within(problem: WideChain, trials: list[Trial]) -> list[tuple[int, Parameters]]:
    return [(one.number, one.parameters) for one in trials if one.within]


def test_sixteen_bits_are_tried_where_no_layer_around_a_tensor_has_eight() -> None:
    """Of one layer alone only the first, which reads the model's input; of two only neighbours, or one with that."""
    problem = wide_chain(EVEN)
    plans = plans_of(problem, trial(problem, 0, "", 0.02))
    coding = plans.history.coding
    points = [coding.decode(move.codes) for move in float_choices(plans)]
    found = {"".join(sorted(problem.wide(point))) for point in points if problem.is_all_integer(point)}
    assert found == {"a", *(first + second for first, second in pairwise(LAYERS))}


@pytest.mark.parametrize(("other", "tried"), [(0.03, {"c"}), (0.04, {"b", "c"})])
def test_settings_of_a_layer_with_sixteen_bits_are_tried_where_its_weight_differs(
    other: float, tried: set[str]
) -> None:
    """One more layer in INT8 has missed: settings of that are tried, and of the worst layer, which has 16 bits."""
    problem = wide_chain(EVEN, kinds=("r0", "r1"))
    predicted = {**problem.predicted, "b": {"r0": 0.03, "r1": other}}
    problem = replace(problem, predicted=predicted)
    plans = plans_of(problem, trial(problem, 0, "abc", 0.009), trial(problem, 1, "ab", 0.011))
    assert {move.changed for move in alternatives(plans)} == {f"{layer}:act_algo r1" for layer in tried}


def test_a_layer_that_fails_gets_sixteen_bits_then_float() -> None:
    """And nothing else is tried that has it as it failed."""
    problem, sampler = wide_chain(EVEN), open_sampler("guided", wide_chain(EVEN), seed=0)
    trials: list[Trial] = []
    for failing in (True, True, False):
        suggestion = sampler(trials)
        assert suggestion is not None
        facts = {"failure": "no scale", "at_fault": "c"} if failing else {"drop": 0.1, "within": False}
        trials.append(trial_of(suggestion, len(trials), State.FAILED if failing else State.DONE, **facts))
    assert [sorted(problem.wide(one.parameters)) for one in trials] == [[], ["c"], []]
    assert [problem.is_integer("c", one.parameters) for one in trials] == [True, True, False]
    infeasible = plans_of(problem, trials[0]).infeasible
    coding, point = infeasible.history.coding, trials[0].parameters
    assert infeasible.excludes(coding.encode({**point, bits_of("a"): 16}))
    assert not infeasible.excludes(coding.encode({**point, bits_of("c"): 16}))


@pytest.mark.parametrize("may_be_float", [True, False])
def test_what_sixteen_bits_of_all_keep_is_within_after_few_trials(may_be_float: bool) -> None:
    """INT8 is ten times too bad, and four times as bad as predicted beside weights; half of that is too much."""
    problem = wide_chain(dict.fromkeys(LAYERS, 0.06), misjudged=4.0, weight=0.004, may_be_float=may_be_float)
    found = within(problem, play(problem, open_sampler("guided", problem, seed=0), most=12).trials)
    number, _ = found[0]
    assert number <= 4
    assert min(problem.objective(point) for _, point in found) <= 0.5


def test_where_nothing_may_be_float_16_bits_of_all_are_tried_though_they_gain_nothing_more() -> None:
    """Any layer in 8 bits is far too much, as was shown of each, which leaves nothing else."""
    problem = wide_chain(dict.fromkeys("abc", 0.06), weight=0.01, may_be_float=False)
    trials = [trial(problem, number, wide, 0.03) for number, wide in enumerate(("", "bc", "ac", "ab"))]
    suggestion = open_sampler("guided", problem, seed=0)(trials)
    assert suggestion is not None
    assert problem.wide(suggestion.parameters) == set("abc")
    assert suggestion.phase == "knapsack"


def test_two_neighbours_are_widened_for_one_bad_tensor() -> None:
    """It alone is too much; float of the layer that reads it would not help, as the other makes 8 bits of it."""
    problem = wide_chain({**dict.fromkeys(LAYERS, 0.002), "d": 0.06})
    played = play(problem, open_sampler("guided", problem, seed=0), most=12)
    number, best = max(within(problem, played.trials), key=lambda one: 1.0 - problem.objective(one[1]))
    assert number <= 3
    assert problem.wide(best) == {"c", "d"}
    assert problem.is_all_integer(best)
