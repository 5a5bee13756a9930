"""What chooses the plans of a search: the guided sampler, one of Optuna's, or AMCT's rank and bisect. A row each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from autoquant.tuning.sampling.guided import Guided
from autoquant.tuning.sampling.problem import Choices, Problem, canonical_key, int8_of, start_of, with_int8
from autoquant.tuning.sampling.shadow_study import seeded, suggest_from_copy
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.study import Sampler
from autoquant.tuning.study.trial import State, Trial

POPULATION = 12
"""Trials of a generation of NSGA-II; Optuna's 50 would be most of a search's trials."""
ATTEMPTS = 50
"""So many points are looked at for one that nobody has tried."""
Ranking = Callable[[], Mapping[str, float]]
"""Gives, when it is first needed, a number for each layer: the larger, the less INT8 changes the layer."""


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


@dataclass(frozen=True)
class RankAndBisect:
    """AMCT's automatic calibration: all in INT8, then by bisection the fewest layers, from the worst on, in float.

    As `autoquant.amct.strategy.BinarySearchStrategy`, but from the trials and without a state of its own.
    """

    choices: Choices
    ranking: Ranking

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next probe of the bisection, as far as it was tried; None at its end, and while a probe is running."""
        start = start_of(self.choices)
        tried = self._trials_of(start, trials)
        if not tried:
            return Suggestion(start, "all INT8, with the preferred settings", "start")
        if _all_undecided(tried):
            return self._rescore(start)
        return self._bisect(trials) if _verdict(tried) is False else None

    def _bisect(self, trials: Sequence[Trial]) -> Suggestion | None:
        ranking = self.ranking()
        layers = sorted(self.choices.layers, key=lambda name: ranking[name])
        left, right = 0, len(layers) - 1
        while left <= right:
            middle = (left + right) // 2
            point = with_int8(start_of(self.choices), self.choices, layers[middle + 1 :])
            in_float = middle == len(layers) - 1  # all of them, which needs no trial
            tried = self._trials_of(point, trials)
            if not in_float and not tried:
                return Suggestion(point, f"amct: the {middle + 1} worst layers in float", "amct")
            if _all_undecided(tried):
                return self._rescore(point)
            within = in_float or _verdict(tried)
            if within is None:
                return None
            left, right = (left, middle - 1) if within else (middle + 1, right)
        return None

    def _trials_of(self, point: Parameters, trials: Sequence[Trial]) -> list[Trial]:
        key = canonical_key(point, self.choices)
        return [trial for trial in trials if canonical_key(trial.parameters, self.choices) == key]

    def _rescore(self, point: Parameters) -> Suggestion:
        return Suggestion(point, "amct: what was undecided, on all samples", "amct", self.choices.total)


def _all_undecided(tried: Sequence[Trial]) -> bool:
    """Whether a plan was tried, and nothing is known of it."""
    return bool(tried) and all(trial.undecided for trial in tried)


def _verdict(tried: Sequence[Trial]) -> bool | None:
    """Whether a plan is within tolerance; None as long as nobody has tried it to the end. What failed is not."""
    ended = [trial for trial in tried if trial.state is not State.RUNNING and not trial.undecided]
    return any(trial.within for trial in ended) if ended else None


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
