"""What chooses the plans of a search: the guided sampler, one of Optuna's, or AMCT's rank and bisect. A row each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from autoquant.tuning.sampling.guided import propose
from autoquant.tuning.sampling.history import History, Infeasible
from autoquant.tuning.sampling.problem import Choices, Problem, canonical_key, int8_of, unit_of
from autoquant.tuning.sampling.rank_and_bisect import RankAndBisect, Ranking
from autoquant.tuning.study.space import Choice, Parameters, Suggestion
from autoquant.tuning.study.study import Sampler
from autoquant.tuning.study.trial import State, Trial

POPULATION = 12
"""Trials of a generation of NSGA-II; Optuna's 50 would be most of a search's trials."""
HALF = 3
"""So many of the dimensions that are off, and so many of the others, may TPE choose around the incumbent."""
SUBSETS, POINTS = 20, 10
"""So many choices of dimensions, and so many points in each, are tried for one that is worth a trial."""
ATTEMPTS = 50
"""So many points are drawn for one that nobody has tried."""


@dataclass(frozen=True)
class Guided:
    """Suggests what `propose` does, and TPE around the incumbent at last."""

    problem: Problem
    seed: int = 0

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next point; None at the end."""
        return propose(trials, self.problem, around=partial(tpe_around, seed=self.seed))


def tpe_around(history: History, incumbent: Trial, *, seed: int) -> Suggestion | None:
    """The incumbent with a few dimensions of layers chosen by TPE, if that gains more; None if nothing does."""
    problem, infeasible, trials = history.problem, Infeasible(history), history.trials
    for subset in range(SUBSETS):
        own = seeded(seed, len(trials), subset)
        few = _few(problem, incumbent.parameters, np.random.default_rng(own))
        points = suggest_from_copy(
            trials,
            {name: problem.dimensions[name] for name in few},
            sampler=TPESampler(seed=own, multivariate=True),
            max_drop=problem.max_drop,
        )
        for some, _ in itertools.islice(points, POINTS):
            point = {**incumbent.parameters, **some}
            if infeasible.is_open(point):
                return Suggestion(point, f"TPE around trial {incumbent.number}", "tpe")
    return None


def _few(problem: Problem, point: Parameters, random: np.random.Generator) -> tuple[str, ...]:
    """Some dimensions of layers, by chance: of those that are off, layers in float above all, and of the others."""
    free = [name for name in problem.dimensions if unit_of(name)]
    off = [name for name in free if point[name] is False]
    others = [name for name in free if name not in off]
    return tuple(sorted(str(name) for names in (off, others) for name in random.permutation(names)[:HALF]))


@dataclass(frozen=True)
class OptunaSampler:
    """What a sampler of Optuna chooses, which is made anew, with a seed of its own, for every trial."""

    choices: Choices
    seed: int
    name: str
    make: Callable[[int], BaseSampler]

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next point, which is of a plan that no trial has; None where so many in a row brought nothing new."""
        points = suggest_from_copy(
            trials,
            self.choices.dimensions,
            sampler=self.make(seeded(self.seed, len(trials))),
            max_drop=self.choices.max_drop,
            noted=True,
        )
        tried = {canonical_key(trial.parameters, self.choices) for trial in trials}
        for point, note in itertools.islice(points, ATTEMPTS):
            in_float = bool(self.choices.layers) and not int8_of(point, self.choices)
            if not in_float and canonical_key(point, self.choices) not in tried:
                return Suggestion(point, self.name, self.name.lower(), note=note)
        return None


def tpe(choices: Choices, *, seed: int, startup: int) -> OptunaSampler:
    """Optuna's TPE, which learns from all trials; at random until there are `startup` of them."""
    return OptunaSampler(
        choices, seed, "TPE", lambda own: TPESampler(seed=own, multivariate=True, n_startup_trials=startup)
    )


SAMPLERS: Mapping[str, Callable[[Problem, int, int, Ranking], Sampler]] = MappingProxyType(
    {
        "guided": lambda problem, seed, startup, ranking: Guided(problem, seed),
        "tpe": lambda problem, seed, startup, ranking: tpe(problem, seed=seed, startup=startup),
        "random": lambda problem, seed, startup, ranking: OptunaSampler(
            problem, seed, "random", lambda own: RandomSampler(seed=own)
        ),
        "nsgaii": lambda problem, seed, startup, ranking: OptunaSampler(
            problem, seed, "NSGA-II", lambda own: NSGAIISampler(seed=own, population_size=POPULATION)
        ),
        "amct": lambda problem, seed, startup, ranking: RankAndBisect(problem, ranking),
    }
)
"""Name -> how to make it, of the problem, the seed, the trials that TPE leaves to chance, and AMCT's ranking."""


def open_sampler(name: str, problem: Problem, *, seed: int = 0, startup: int = 10, ranking: Ranking = dict) -> Sampler:
    """The sampler that is called so.

    `startup` is how many trials TPE leaves to chance, those already there included; only AMCT's asks for the `ranking`.
    """
    return SAMPLERS[name](problem, seed, startup, ranking)


def seeded(seed: int, *more: int) -> int:
    """A seed for one trial: the same whatever process asks."""
    return int(np.random.SeedSequence([seed, *more]).generate_state(1)[0])


class _Shared(CategoricalDistribution):
    """Choices that all trials of a copied study share: nothing changes them, and to copy and compare them takes long.

    A study copies each trial that it is given.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = CategoricalDistribution.__hash__


def suggest_from_copy(
    trials: Sequence[Trial],
    dimensions: Mapping[str, tuple[Choice, ...]],
    *,
    sampler: BaseSampler,
    max_drop: float,
    noted: bool = False,
) -> Iterator[tuple[Parameters, Mapping[str, Any]]]:
    """Points in these dimensions, one after the other without end, each with what the sampler noted of it.

    It chooses them in a copy of the study in memory, in which every trial of which a drop is known is complete and has
    a constraint, also one that was stopped early and is pruned in the study: so every sampler learns from it. With
    `noted`, it finds there what it noted of earlier trials.
    """
    distributions: dict[str, BaseDistribution] = {name: _Shared(own) for name, own in dimensions.items()}
    study = optuna.create_study(sampler=sampler)
    for trial in trials:
        shared: dict[str, Any] = {
            "params": {name: trial.parameters[name] for name in dimensions},
            "distributions": distributions,
            "system_attrs": dict(trial.note) if noted else {},
        }
        if trial.state is State.RUNNING:
            study.add_trial(create_trial(state=TrialState.RUNNING, **shared))
        elif trial.drop is not None:
            over = {"drop": trial.drop - max_drop}
            study.add_trial(create_trial(value=trial.objective, constraints=over, **shared))
    while True:
        suggested = study.ask(distributions)
        yield dict(suggested.params), dict(study.get_trials(deepcopy=False)[suggested.number].system_attrs)
