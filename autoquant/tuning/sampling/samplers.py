"""What chooses the plans of a search: the guided sampler, one of Optuna's, or AMCT's rank and bisect. A row each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler

from autoquant.extensions import Table
from autoquant.tuning.sampling.coding import Coding, unchanged
from autoquant.tuning.sampling.guided import propose
from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.infeasible import Infeasible
from autoquant.tuning.sampling.problem import Choices, Problem, int8_of, unit_of
from autoquant.tuning.sampling.rank_and_bisect import RankAndBisect, Ranking
from autoquant.tuning.sampling.study_copy import StudyCopy, Tpe
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.study import Sampler
from autoquant.tuning.study.trial import Trial

POPULATION = 12
"""Trials of a generation of NSGA-II; Optuna's 50 would be most of a search's trials."""
HALF = 3
"""So many of the dimensions that are off, and so many of the others, may TPE choose around the incumbent."""
SUBSETS, POINTS = 20, 10
"""So many choices of dimensions, and so many points in each, are tried for one that is worth a trial."""
MakeSampler = Callable[[Problem, int, int, Ranking], Sampler]
"""Makes a sampler of the problem, the seed, the trials that TPE leaves to chance, and AMCT's ranking."""
ATTEMPTS = 50
"""So many points are drawn for one that nobody has tried."""


class Guided:
    """Suggests what `propose` does, and TPE around the incumbent at last."""

    def __init__(self, problem: Problem, seed: int = 0) -> None:
        self._history = History.of((), problem)
        self._copy = StudyCopy(problem)
        self._seed = seed

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next point; None at the end."""
        self._history = History.of(trials, self._history.problem, self._history)
        return propose(self._history, around=self._tpe)

    def _tpe(self, history: History, incumbent: Trial) -> Suggestion | None:
        """The incumbent with a few dimensions of layers chosen by TPE, if that gains more; None if nothing does."""
        problem, infeasible, trials = history.problem, Infeasible(history), history.trials
        for subset in range(SUBSETS):
            own = seeded(self._seed, len(trials), subset)
            few = _few(problem, incumbent.parameters, np.random.default_rng(own))
            points = self._copy.points(trials, partial(Tpe, seed=own), few)
            for some, _ in itertools.islice(points, POINTS):
                point = {**incumbent.parameters, **some}
                if infeasible.is_open(history.coding.encode(point)):
                    return Suggestion(point, f"TPE around trial {incumbent.number}", "tpe")
        return None


def _few(problem: Problem, point: Parameters, random: np.random.Generator) -> tuple[str, ...]:
    """Some dimensions of layers, by chance: of those that are off, layers in float above all, and of the others."""
    free = [name for name in problem.dimensions if unit_of(name)]
    off = [name for name in free if point[name] is False]
    others = [name for name in free if point[name] is not False]
    return tuple(sorted(str(name) for names in (off, others) for name in random.permutation(names)[:HALF]))


class OptunaSampler:
    """What a sampler of Optuna chooses, which is made anew, with a seed of its own, for every trial.

    One that does not `learn` needs no trials.
    """

    def __init__(
        self, choices: Choices, seed: int, name: str, make: Callable[..., BaseSampler], *, learns: bool = True
    ) -> None:
        self._choices, self._seed, self._name, self._make, self._learns = choices, seed, name, make, learns
        self._coding, self._copy = Coding(choices), StudyCopy(choices)
        self._points: list[Parameters] = []
        self._keys: list[bytes] = []

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next point, which is of a plan that no trial has; None where so many in a row brought nothing new."""
        own = seeded(self._seed, len(trials))
        points = self._copy.points(trials if self._learns else (), partial(self._make, seed=own))
        tried = self._tried([trial.parameters for trial in trials])
        for point, note in itertools.islice(points, ATTEMPTS):
            in_float = bool(self._choices.layers) and not int8_of(point, self._choices)
            if not in_float and self._coding.key(point) not in tried:
                return Suggestion(point, self._name, self._name.lower(), note=note)
        return None

    def _tried(self, points: list[Parameters]) -> set[bytes]:
        """What distinguishes the plans of points from others; found once of each."""
        known = unchanged(self._points, points)
        self._keys[known:] = map(self._coding.key, points[known:])
        self._points = points
        return set(self._keys)


def tpe(choices: Choices, *, seed: int, startup: int) -> OptunaSampler:
    """Optuna's TPE, which learns from all trials; at random until there are `startup` of them."""
    return OptunaSampler(choices, seed, "TPE", partial(Tpe, startup=startup))


def _checked(name: str, distribution: str, found: Any) -> MakeSampler:
    """A row of another distribution. Raises TypeError."""
    if not callable(found):
        raise TypeError(f"must be a function of (problem, seed, startup, ranking), got {type(found).__name__}")
    return found  # type: ignore[no-any-return]  # callable is all that can be known


SAMPLERS: Table[MakeSampler] = Table(
    "autoquant.samplers",
    "sampler",
    {
        "guided": lambda problem, seed, startup, ranking: Guided(problem, seed),
        "tpe": lambda problem, seed, startup, ranking: tpe(problem, seed=seed, startup=startup),
        "random": lambda problem, seed, startup, ranking: OptunaSampler(
            problem, seed, "random", lambda space, seed: RandomSampler(seed=seed), learns=False
        ),
        "nsgaii": lambda problem, seed, startup, ranking: OptunaSampler(
            problem, seed, "NSGA-II", lambda space, seed: NSGAIISampler(seed=seed, population_size=POPULATION)
        ),
        "amct": lambda problem, seed, startup, ranking: RankAndBisect(problem, ranking),
    },
    _checked,
)
"""Name -> how to make it."""


def open_sampler(name: str, problem: Problem, *, seed: int = 0, startup: int = 10, ranking: Ranking = dict) -> Sampler:
    """The sampler that is called so.

    `startup` is how many trials TPE leaves to chance, those already there included; only AMCT's asks for the `ranking`.
    """
    return SAMPLERS[name](problem, seed, startup, ranking)


def seeded(seed: int, *more: int) -> int:
    """A seed for one trial: the same whatever process asks."""
    return int(np.random.SeedSequence([seed, *more]).generate_state(1)[0])
