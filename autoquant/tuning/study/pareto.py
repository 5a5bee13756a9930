"""The Pareto front of a search: what accuracy costs in share of INT8, and which of these models are kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from autoquant.tuning.study.trial import State, Trial, best


def pareto_front(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials that no other beats, the largest INT8 share first, then the smaller drop.

    Of trials that were scored on all samples: another has a smaller drop, or a larger share, but not both. Of equal
    ones the earliest.
    """
    done = [trial for trial in trials if trial.state is State.DONE and trial.drop is not None]
    front: list[Trial] = []
    for trial in sorted(done, key=lambda one: (-one.int8_share, one.drop, one.number)):
        if not front or _drop(trial) < _drop(front[-1]):
            front.append(trial)
    return tuple(front)


def kept_trials(trials: Sequence[Trial], kept: Trial | None, max_drop: float, count: int) -> tuple[Trial, ...]:
    """Those whose models are kept, `count` at most: `kept`, the best, then the best of the front without those before.

    None where there is no best.
    """
    found = [] if kept is None else [kept]
    left = {trial.number: trial for trial in pareto_front(trials)} if found and count > 1 else {}
    while found and len(found) < count:
        left.pop(found[-1].number, None)
        following = best(left.values(), max_drop)
        if following is None:
            break
        found.append(following)
    return tuple(found)


def _drop(trial: Trial) -> float:
    assert trial.drop is not None
    return trial.drop
