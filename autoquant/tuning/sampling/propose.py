"""What to try next: a function of the history and of nothing else, so that any number of processes can ask it."""

from __future__ import annotations

from collections.abc import Sequence

from autoquant.tuning.sampling import stages
from autoquant.tuning.sampling.history import THRESHOLD, History, Past, Step
from autoquant.tuning.sampling.moves import next_move, room
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.problem import Problem
from autoquant.tuning.sampling.race import race
from autoquant.tuning.study.space import Parameters


def propose(past: Sequence[Past], problem: Problem, *, threshold: float = THRESHOLD) -> Step | None:
    """The next point: start, race, winner, best settings, knapsack, refinement, a second look, a sampler.

    None is the end: nothing that no trial excludes gains more than `threshold` of all that there is to be gained, or
    nothing was within. A trial that is running or waiting is taken to come to nothing, so that another worker gets
    what would follow then; for it None means that it cannot help before those have ended.
    """
    history = History(tuple(past), problem, threshold)
    if history.finished:
        return None
    reference = stages.reference_of(history)
    step = stages.start(history, reference)
    if step is not None:
        return step
    winner, near = reference, [reference]
    if not any(trial.within for trial in history.of(reference)):
        raced = race(history, reference)
        winner, near = raced.winner, list(raced.near)
        step = raced.step or stages.winner(history, raced.ranked, reference)
    return step or _predicted(history, winner, near)


def _predicted(history: History, winner: Parameters, near: Sequence[Parameters]) -> Step | None:
    """What follows once the settings of the whole model are chosen; now losses are predicted.

    Only once something is within are others tried that came `near` the winner: their chance is small.
    """
    candidates = history.problem.sensitivities(winner)
    step = stages.settings(history, winner, candidates) if history.incumbent is None else stages.near(history, near)
    if step is not None:
        return step
    plans = Plans(history, stages.base_of(history, winner, candidates), candidates)
    step = next_move(plans)
    if step is not None:
        return step
    if room(plans) <= history.threshold * history.scale:
        return stages.second_look(plans)  # of plans with other settings, where there are any
    if history.incumbent is None:
        return stages.retreat(plans) or stages.second_look(plans)
    return stages.second_look(plans) or stages.around(history.incumbent, history)
