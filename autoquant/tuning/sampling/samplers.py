"""What chooses the plans of a search: the guided sampler, one of Optuna's, or AMCT's rank and bisect. A row each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from autoquant.tuning.sampling.guided import Guided
from autoquant.tuning.sampling.problem import Choices, Problem, canonical_key, int8_of
from autoquant.tuning.sampling.rank_and_bisect import RankAndBisect, Ranking
from autoquant.tuning.sampling.shadow_study import seeded, suggest_from_copy
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.study import Sampler
from autoquant.tuning.study.trial import Trial

POPULATION = 12
"""Trials of a generation of NSGA-II; Optuna's 50 would be most of a search's trials."""
ATTEMPTS = 50
"""So many points are looked at for one that nobody has tried."""


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
