"""Who chooses the plans of a search: the guided sampler, one of Optuna's, or AMCT's rank and bisect. A row each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from autoquant.tuning.sampling.history import History, Past, Step
from autoquant.tuning.sampling.mirror import KEPT, seeded, suggestions
from autoquant.tuning.sampling.problem import Problem, int8_of, meaning, start_of, with_int8
from autoquant.tuning.sampling.proposer import GuidedProposer, enqueue
from autoquant.tuning.sampling.reading import read
from autoquant.tuning.study.study import Proposer

POPULATION = 12
"""Trials of a generation of NSGA-II; Optuna's 50 would be most of a search's trials."""

ATTEMPTS = 50
"""So many points are looked at for one that nobody has tried."""


@dataclass(frozen=True)
class Ingredients:
    """What proposers are made from. `startup` is how many trials TPE leaves to chance, those already there included.

    `ranking` gives, when it is first needed, a number for each layer that may be in float: the larger, the less INT8
    changes the layer.
    """

    problem: Problem
    seed: int = 0
    startup: int = 10
    ranking: Callable[[], Mapping[str, float]] = dict


@dataclass(frozen=True)
class Sampled:
    """What an Optuna sampler chooses, which is made anew, with a seed of its own, for every trial."""

    problem: Problem
    seed: int
    name: str
    make: Callable[[int], BaseSampler]

    def prepare(self, study: optuna.Study) -> bool:
        """Let the next point wait, unless others are waiting; False where so many in a row brought nothing new.

        It depends on the seed and the study alone, and is a plan that nobody has tried or is trying.
        """
        trials = study.get_trials(deepcopy=False)
        if any(trial.state is TrialState.WAITING for trial in trials):
            return True
        past = read(trials, self.problem.dimensions)
        notes = {trial.number: trial.user_attrs.get(KEPT, {}) for trial in trials}
        sampler, allowed = self.make(seeded(self.seed, len(past))), self.problem.allowed
        points = suggestions(past, self.problem.dimensions, sampler=sampler, allowed=allowed, notes=notes)
        tried = {meaning(trial.parameters, self.problem) for trial in past}
        for point, note in itertools.islice(points, ATTEMPTS):
            in_float = bool(self.problem.layers) and not int8_of(point, self.problem)
            if not in_float and meaning(point, self.problem) not in tried:
                enqueue(study, Step(point, self.name.lower(), self.name), **{KEPT: note})
                return True
        return False


@dataclass(frozen=True)
class RankAndBisect:
    """AMCT's automatic calibration: all in INT8, then by bisection the fewest layers, from the worst on, in float.

    As `autoquant.amct.strategy.BinarySearchStrategy`, but from the study's history and without a state of its own.
    """

    problem: Problem
    ranking: Callable[[], Mapping[str, float]]

    def prepare(self, study: optuna.Study) -> bool:
        """Let the next point wait, unless others are waiting; False at the end, and while one is being tried."""
        trials = study.get_trials(deepcopy=False)
        if any(trial.state is TrialState.WAITING for trial in trials):
            return True
        step = next_by_rank(read(trials, self.problem.dimensions), self.problem, self.ranking)
        if step is not None:
            enqueue(study, step)
        return step is not None


def next_by_rank(past: Sequence[Past], problem: Problem, ranking: Callable[[], Mapping[str, float]]) -> Step | None:
    """The next probe of the bisection, as far as it was tried; None at its end, and while a probe is running."""
    history = History(tuple(past), problem)
    start = start_of(problem)
    if _doubtful(history, start):
        return _look(history, start)
    within = _verdict(history, start)
    if within is not None:
        return None if within or not history.of(start) else _bisect(history, ranking())
    return None if history.of(start) else Step(start, "start", "all INT8, with the preferred settings")


def _bisect(history: History, ranking: Mapping[str, float]) -> Step | None:
    layers = sorted(history.problem.layers, key=lambda name: ranking[name])
    left, right = 0, len(layers) - 1
    while left <= right:
        middle = (left + right) // 2
        point = with_int8(start_of(history.problem), history.problem, layers[middle + 1 :])
        in_float = middle == len(layers) - 1  # all of them, which needs no trial
        if not in_float and not history.of(point):
            return Step(point, "amct", f"amct: the {middle + 1} worst layers in float")
        if _doubtful(history, point):
            return _look(history, point)
        within = in_float or _verdict(history, point)
        if within is None:
            return None
        left, right = (left, middle - 1) if within else (middle + 1, right)
    return None


def _doubtful(history: History, point: Mapping[str, bool | int | str]) -> bool:
    """Whether nothing is known of a plan but that it was set aside, which proves nothing."""
    return bool(history.of(point)) and all(trial.set_aside for trial in history.of(point))


def _look(history: History, point: Mapping[str, bool | int | str]) -> Step:
    return Step(point, "amct", "amct: what was set aside, on all samples", history.problem.total)


def _verdict(history: History, point: Mapping[str, bool | int | str]) -> bool | None:
    """Whether a plan is within; None as long as nobody has tried it to the end. What failed is not."""
    ended = [trial for trial in history.of(point) if not trial.pending and not trial.set_aside]
    return any(trial.within for trial in ended) if ended else None


SAMPLERS: Mapping[str, Callable[[Ingredients], Proposer]] = MappingProxyType(
    {
        "guided": lambda given: GuidedProposer(given.problem, given.seed),
        "tpe": lambda given: Sampled(
            given.problem,
            given.seed,
            "TPE",
            lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=given.startup),
        ),
        "random": lambda given: Sampled(given.problem, given.seed, "random", lambda seed: RandomSampler(seed=seed)),
        "nsgaii": lambda given: Sampled(
            given.problem, given.seed, "NSGA-II", lambda seed: NSGAIISampler(seed=seed, population_size=POPULATION)
        ),
        "amct": lambda given: RankAndBisect(given.problem, given.ranking),
    }
)
"""Name -> how to make it."""


def open_proposer(name: str, given: Ingredients) -> Proposer:
    """The proposer that is called so."""
    return SAMPLERS[name](given)
