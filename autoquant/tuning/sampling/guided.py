"""The guided sampler: what to try next, a function of the trials and of nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from autoquant.tuning.sampling import stages
from autoquant.tuning.sampling.history import THRESHOLD, History
from autoquant.tuning.sampling.infeasible import Infeasible
from autoquant.tuning.sampling.moves import next_move, remaining_gain
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.problem import Problem, unit_of
from autoquant.tuning.sampling.race import race
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.trial import Trial

HALF = 3
"""So many of the dimensions that are off, and so many of the others, may TPE choose around the incumbent."""
SUBSETS, ATTEMPTS = 20, 10
"""So many choices of dimensions, and so many points in each, are looked at for one that is worth trying."""
Around = Callable[[History, Trial], Suggestion | None]
"""Chooses a point around the incumbent once all else is used up, if any is worth trying."""


@dataclass(frozen=True)
class Guided:
    """Suggests what `propose` does, and TPE around the incumbent at last."""

    problem: Problem
    seed: int = 0

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next point; None at the end."""
        return propose(trials, self.problem, around=partial(tpe_around, seed=self.seed))


def propose(
    trials: Sequence[Trial], problem: Problem, *, around: Around = lambda history, incumbent: None
) -> Suggestion | None:
    """The next point: start, race, winner, best settings, knapsack, refinement, a recheck, or one around the incumbent.

    None is the end: nothing that no trial excludes gains more than THRESHOLD of all that there is to be gained, or
    nothing was within tolerance. Running trials are treated as failures, so what follows is what would follow then;
    None means that nothing can be tried before they have ended.
    """
    history = History(tuple(trials), problem, THRESHOLD)
    if history.finished:
        return None
    reference = stages.reference_of(history)
    first = stages.start(history, reference)
    if first is not None:
        return first
    winner, near, found = reference, [reference], None
    if not any(trial.within for trial in history.trials_of(reference)):
        raced = race(history, reference)
        winner, near = raced.winner, list(raced.near)
        found = raced.next or stages.winner(history, raced.ranked, reference)
    return found or _predicted(history, winner, near, around)


def _predicted(history: History, winner: Parameters, near: Sequence[Parameters], around: Around) -> Suggestion | None:
    """What follows once the settings of the whole model are chosen; now divergences are predicted.

    Only once something is within tolerance are others tried that came `near` the winner: their chance is small.
    """
    predictions = history.problem.sensitivities(winner)
    if history.incumbent is None:
        found = stages.settings(history, winner, predictions)
    else:
        found = stages.retry_close_race_losers(history, near)
    if found is not None:
        return found
    plans = Plans(history, stages.base_of(history, winner, predictions), predictions)
    found = next_move(plans)
    if found is not None:
        return found
    if remaining_gain(plans) <= history.threshold * history.total_gain:
        return stages.rescore_undecided(plans)  # of plans with other settings, where there are any
    if history.incumbent is None:
        return stages.halve(plans) or stages.rescore_undecided(plans)
    return stages.rescore_undecided(plans) or around(history, history.incumbent)


def tpe_around(history: History, incumbent: Trial, *, seed: int) -> Suggestion | None:
    """The incumbent with a few dimensions of layers chosen by TPE, if that gains more; None if nothing does."""
    from optuna.samplers import TPESampler

    from autoquant.tuning.sampling.shadow_study import seeded, suggest_from_copy

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
        for some, _ in itertools.islice(points, ATTEMPTS):
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
