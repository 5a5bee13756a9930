"""The copy of a study in which samplers of Optuna choose: what it copies, and that it is as good as a new one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from guided_problems import play, random_problem, trial_of
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler

from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.sampling.study_copy import StudyCopy, Tpe
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.trial import Trial

PROBLEM = random_problem(41, layers=5, ranges=2)
TRIALS = play(PROBLEM, open_sampler("random", PROBLEM), budget=1000.0, most=16).trials
RUNNING = [trial_of(Suggestion(one.parameters, one.why), one.number) for one in TRIALS]
MAKERS: Mapping[str, Callable[[Any], BaseSampler]] = {
    "tpe": partial(Tpe, seed=5),
    "nsgaii": lambda space: NSGAIISampler(seed=5, population_size=4),
}


def chosen(copy: StudyCopy, trials: Sequence[Trial], name: str) -> list[tuple[Parameters, Mapping[str, Any]]]:
    """The first three points."""
    points: Iterator[tuple[Parameters, Mapping[str, Any]]] = copy.points(trials, MAKERS[name])
    return list(itertools.islice(points, 3))


@pytest.mark.parametrize("name", MAKERS)
def test_a_copy_that_was_used_chooses_as_a_new_one_does(name: str) -> None:
    """Also where trials end in another order than they began, or are not there any more."""
    used = StudyCopy(PROBLEM)
    histories = (
        TRIALS[:12],
        [*TRIALS[:12], *RUNNING[12:15]],
        [*TRIALS[:12], RUNNING[12], TRIALS[13], RUNNING[14]],
        TRIALS,
        TRIALS[:4],
        TRIALS[3:],
    )
    for trials in histories:
        assert chosen(used, trials, name) == chosen(StudyCopy(PROBLEM), trials, name)


def test_tpe_keeps_away_from_what_is_running() -> None:
    """Constant liar: what runs counts as bad, so that the point it would take next is taken by fewer."""

    def first(seed: int, running: Sequence[Trial] = ()) -> Parameters:
        return next(StudyCopy(PROBLEM).points([*TRIALS, *running], partial(Tpe, seed=seed)))[0]

    taken = [first(seed) for seed in range(30)]
    again = 0
    for seed, point in enumerate(taken):
        running = [trial_of(Suggestion(point, "why"), len(TRIALS) + number) for number in range(8)]
        again += first(seed, running) == point
    assert again <= len(taken) // 2


def test_a_trial_is_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    own = StudyCopy._copy

    def counted(copy: StudyCopy, trial: Trial) -> Any:
        copied.append(trial.number)
        return own(copy, trial)

    monkeypatch.setattr(StudyCopy, "_copy", counted)
    used = StudyCopy(PROBLEM)
    for count in range(10, 16):
        chosen(used, TRIALS[:count], "tpe")
    assert copied == list(range(15))


def test_a_space_that_is_known_is_what_tpe_would_find() -> None:
    names = [name for name in PROBLEM.dimensions if name.startswith(("l00", "l01"))]
    few = StudyCopy(PROBLEM).points(TRIALS, partial(Tpe, seed=3), names)

    def without(space: Any) -> TPESampler:
        return TPESampler(seed=3, multivariate=True)

    smaller = random_problem(41, layers=5, ranges=2)
    smaller.gains = {layer: gain for layer, gain in smaller.gains.items() if layer in ("l00", "l01")}
    smaller.true = {layer: own for layer, own in smaller.true.items() if layer in ("l00", "l01")}
    pairs = zip(few, StudyCopy(smaller).points(TRIALS, without), strict=True)
    assert all(ours[0] == theirs[0] for ours, theirs in itertools.islice(pairs, 5))
