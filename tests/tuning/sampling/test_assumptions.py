"""What is tried beside running trials: what either end of theirs would ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from guided_problems import Synthetic, play, random_problem, trial_of

from autoquant.tuning.sampling.assumptions import MOST, assumptions
from autoquant.tuning.sampling.coding import Coding
from autoquant.tuning.sampling.guided import propose
from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.problem import int8_of, start_of, with_int8
from autoquant.tuning.sampling.samplers import Guided
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.trial import State, Trial

EVEN = {layer: {"r0": 0.01} for layer in "abcdefgh"}
PROBLEM = Synthetic(dict.fromkeys(EVEN, 0.125), EVEN, EVEN, max_drop=0.01, total=400)


def trial(number: int, int8: str, state: State = State.RUNNING, problem: Synthetic = PROBLEM, **facts: Any) -> Trial:
    point = with_int8(start_of(problem), problem, int8)
    limit = facts.pop("max_samples", None)
    return trial_of(Suggestion(point, "why", max_samples=limit), number, state, **facts)


def missed(number: int, int8: str) -> Trial:
    return trial(number, int8, State.DONE, samples=400, drop=0.016, within=False, objective=1.0 - len(int8) / 8)


def met(number: int, int8: str) -> Trial:
    return trial(number, int8, State.DONE, samples=400, drop=0.004, within=True, objective=1.0 - len(int8) / 8)


def within(history: History) -> list[int]:
    return [one.number for one in history.trials if one.within and one.drop is None]


@pytest.mark.parametrize(
    "trials",
    [
        (),
        (missed(0, "abcdefgh"), met(1, "ab")),
        (trial(0, "abcdefgh"),),
        (missed(0, "abcdefgh"), met(1, "abc"), trial(2, "ab")),
        (missed(0, "abcdefgh"), trial(1, "abcd", max_samples=64)),
    ],
    ids=["none", "nothing runs", "leaves nothing to be gained", "gains less than the incumbent", "decides nothing"],
)
def test_there_is_nothing_to_assume(trials: Sequence[Trial]) -> None:
    assert not list(assumptions(History.of(trials, PROBLEM)))


def test_what_is_less_likely_to_be_within_is_not_where_what_is_likelier_is_not() -> None:
    running = [trial(2, "abcdefg"), trial(3, "abc"), trial(4, "abcde")]
    history = History.of([missed(0, "abcdefgh"), met(1, "ab"), *running], PROBLEM)
    plans = Plans(history, start_of(PROBLEM), history.predictions(start_of(PROBLEM)))
    chances = {one.number: plans.outlook(history.coding.encode(one.parameters))[1] for one in running}
    assert 1.0 > chances[3] > chances[4] > chances[2] > 0.0
    odds = {
        (): 1.0 - chances[3],
        (3,): chances[3] - chances[4],
        (3, 4): chances[4] - chances[2],
        (2, 3, 4): chances[2],
    }
    found = [tuple(within(assumed)) for assumed in assumptions(history)]
    assert found == sorted(odds, key=lambda numbers: -odds[numbers])
    assert all(one.state is State.RUNNING for one in history.trials[2:])


def test_an_assumed_trial_is_what_one_proven_to_be_within_would_be() -> None:
    running = [missed(0, "abcdefgh"), met(1, "ab"), trial(2, "abcd")]
    (assumed,) = (one for one in assumptions(History.of(running, PROBLEM)) if within(one))
    assert assumed.incumbent is assumed.trials[2]
    assert assumed.incumbent.objective == pytest.approx(0.5)
    assert assumed.incumbent.final
    assert assumed.gain_over_incumbent(assumed.int8[0]) == pytest.approx(0.5)


def test_a_running_trial_that_is_there_at_two_points_of_its_plan_ends_once() -> None:
    """As a study has it where a sampler suggested its plan again."""
    running = trial(2, "abcd")
    twin = replace(running, parameters=dict(running.parameters))
    first, second = assumptions(History.of([missed(0, "abcdefgh"), met(1, "ab"), running, twin], PROBLEM))
    assert sorted([within(first), within(second)]) == [[], [2, 2]]


def test_halvings_run_beside_each_other() -> None:
    """Where all that ended was hopeless."""
    hopeless = [replace(missed(number, "abcdefgh"[number:]), drop=0.9) for number in range(4)]
    trials = list(hopeless)
    while (suggestion := propose(History.of(trials, PROBLEM))) is not None:
        trials.append(trial_of(suggestion, len(trials)))
    found = [(one.phase, len(int8_of(one.parameters, PROBLEM))) for one in trials[4:]]
    assert found == [("halving", 4), ("halving", 2), ("halving", 1)]


def test_of_many_that_run_only_the_most_probable_ends_are_tried() -> None:
    running = [trial(number + 1, "abcdefgh"[:number]) for number in range(1, 8)]
    assert len(list(assumptions(History.of([missed(0, "abcdefgh"), *running, trial(9, "bcd")], PROBLEM)))) == MOST


@pytest.mark.parametrize("seed", range(8))
def test_beside_a_running_trial_goes_what_either_of_its_ends_would_ask_for(seed: int) -> None:
    """Of the end that is more probable."""
    problem = random_problem(71 + seed, layers=20, bad=8, wrong=1.0)
    trials = play(problem, lambda trials: propose(History.of(trials, problem)), most=1).trials
    probe = propose(History.of(trials, problem))
    assert probe is not None
    running = [*trials, trial_of(probe, len(trials))]
    objective = problem.objective(probe.parameters)
    ends = [
        replace(running[-1], state=State.STOPPED, within=True, objective=objective),
        replace(running[-1], state=State.FAILED),
    ]
    expected = [propose(History.of([*trials, end], problem)) for end in ends]
    first, second = assumptions(History.of(running, problem))
    found = propose(History.of(running, problem))
    probable = expected[0] if within(first) else expected[1]
    assert found is not None
    assert probable is not None
    assert (within(first), within(second)) in (([1], []), ([], [1]))
    words = ", assuming that trial 1 is within tolerance" if within(first) else ""
    assert (found.parameters, found.why) == (probable.parameters, f"{probable.why}{words}")


@pytest.mark.parametrize("ended", [0, 1, 4])
def test_there_are_proposals_for_as_many_as_run(ended: int) -> None:
    """Sixty-four, while none of them ends."""
    problem = replace(random_problem(1, layers=40, bad=5), harm={"batch_num": {8: 1.0, 1: 1.2}})
    sampler = Guided(problem)
    trials = play(problem, sampler, most=ended).trials
    while len(trials) < ended + 64 and (suggestion := sampler(trials)) is not None:
        trials.append(trial_of(suggestion, len(trials)))
    points = {(Coding(problem).key(one.parameters), one.max_samples) for one in trials}
    assert len(points) == len(trials) == ended + 64
