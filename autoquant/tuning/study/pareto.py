"""The Pareto front of a search: what accuracy costs in share of INT8, and which of these models are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autoquant.evaluation.statistics.tolerance import within
from autoquant.tuning.study.trial import State, Trial


def pareto_front(trials: Iterable[Trial], *, estimates: bool = False) -> tuple[Trial, ...]:
    """The trials that no other beats, the largest INT8 share first, then the smaller drop.

    Of trials that were scored on all samples, or with `estimates` also of those that were stopped early: another has a
    smaller drop, or a larger share, but not both. Of equal ones the earliest.
    """
    states = (State.DONE, State.STOPPED) if estimates else (State.DONE,)
    known = [(trial.drop, trial) for trial in trials if trial.state in states and trial.drop is not None]
    front: list[tuple[float, Trial]] = []
    for drop, trial in sorted(known, key=lambda one: (-one[1].int8_share, one[0], one[1].number)):
        if not front or drop < front[-1][0]:
            front.append((drop, trial))
    return tuple(trial for _, trial in front)


def kept_trials(trials: Sequence[Trial], kept: Trial | None, max_drop: float, count: int) -> tuple[Trial, ...]:
    """Those whose models are kept, `count` at most: `kept`, the best, then the best others of the front by estimates.

    Those within tolerance are better, of these the lower objectives, of the others the smaller drops. Nothing is kept
    where there is no best.
    """
    if kept is None or count == 1:  # no front of all trials after each of them, for the best alone
        return () if kept is None else (kept,)
    others = [trial for trial in pareto_front(trials, estimates=True) if trial.number != kept.number]
    return (kept, *sorted(others, key=lambda trial: _rank(trial, max_drop))[: count - 1])


def _rank(trial: Trial, max_drop: float) -> tuple[bool, float, float, int]:
    """The smaller, the better."""
    assert trial.drop is not None
    if within(trial.drop, max_drop):
        return False, trial.objective, trial.drop, trial.number
    return True, trial.drop, trial.objective, trial.number
