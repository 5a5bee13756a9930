"""What became of the trials of a study, as plain values, and what can be said of all of them together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoquant.tuning.sampling.problem import Problem, gain_of, int8_of, meaning
from autoquant.tuning.study.space import Choice, Parameters

FAR = 5.0
"""A drop so many times the allowed one, or more, is no near miss, and says nothing of small losses."""
PENDING = frozenset({"running", "waiting"})
THRESHOLD = 0.001
"""The share of all that could be gained for which no further trial is worth its time."""


@dataclass(frozen=True)
class Past:
    """A trial, ended or not: 'running', 'waiting', 'done' (scored on everything), 'stopped' (before), 'failed'.

    `limit` is on how many samples it was to be scored at most, None where it was until decided or set aside. `drop` is
    exact where it is done, an estimate in `low`..`high` otherwise. `within` is None as long as nobody knows. `loss` is
    the mean divergence from the model in float on the first `loss_samples` samples, and the last of `losses`, which are
    those on fewer and more samples, the same ones for all trials.
    """

    number: int
    parameters: Parameters
    phase: str = ""
    state: str = "running"
    limit: int | None = None
    samples: int = 0
    loss: float | None = None
    loss_samples: int = 0
    drop: float | None = None
    low: float | None = None
    high: float | None = None
    within: bool | None = None
    objective: float = math.inf
    at_fault: str = ""
    losses: Sequence[float] = ()

    @property
    def pending(self) -> bool:
        """Whether somebody is at it, or will be."""
        return self.state in PENDING

    @property
    def decided(self) -> bool:
        """Whether trying it again, on however many samples, says nothing new."""
        return self.state in ("done", "failed") or self.within is not None or (not self.pending and self.limit is None)

    @property
    def set_aside(self) -> bool:
        """Whether it was stopped undecided, since few samples alone cost more than is allowed (streaming.py)."""
        return self.state == "stopped" and self.limit is None and self.within is None

    @property
    def measures(self) -> tuple[float, ...]:
        """What is compared in a race, on more and more samples: losses, or the drop where outputs are not compared.

        Nothing where the outputs were compared, and their loss is no number.
        """
        last = self.drop if not self.loss_samples else self.loss
        found = self.losses or (() if last is None else (last,))
        return () if self.state == "failed" or not all(map(math.isfinite, found)) else tuple(found)


@dataclass(frozen=True)
class Step:
    """A point to try, in which phase, why, and on how many samples at most; None is until it is decided.

    Where there are `free` dimensions, these are to be chosen by a sampler, the others are as they are given.
    """

    parameters: Parameters
    phase: str
    why: str
    limit: int | None = None
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class History:
    """All trials of a study, and the problem they are of. A trial that is pending is taken to come to nothing."""

    trials: tuple[Past, ...]
    problem: Problem
    threshold: float = THRESHOLD

    @cached_property
    def by_meaning(self) -> dict[frozenset[tuple[str, Choice]], list[Past]]:
        """Plan -> its trials, by number."""
        found: dict[frozenset[tuple[str, Choice]], list[Past]] = {}
        for trial in self.trials:
            found.setdefault(meaning(trial.parameters, self.problem), []).append(trial)
        return found

    @cached_property
    def incumbent(self) -> Past | None:
        """The least objective among trials proven to be within; ties go to the smaller drop, then to the earlier."""
        proven = [trial for trial in self.trials if trial.within and not trial.pending and trial.state != "failed"]
        return min(proven, key=_by_objective, default=None)

    @property
    def finished(self) -> bool:
        """Whether the incumbent is as good as any plan can be, or nearly so."""
        if self.incumbent is None:
            return False
        lowest = self.problem.lowest
        return self.incumbent.objective - lowest <= self.threshold * max(1.0 - lowest, 0.0)

    @property
    def scale(self) -> float:
        """What there is to be gained in all."""
        return sum(gain for gain in self.problem.gains.values() if gain > 0.0)

    @property
    def incumbent_gain(self) -> float:
        """What the incumbent gains; that of the model all in float where there is none."""
        if self.incumbent is None:
            return 0.0
        return gain_of(int8_of(self.incumbent.parameters, self.problem), self.problem)

    @property
    def allowed(self) -> float:
        """The allowed drop; where none is allowed, that of one sample, since there is no logarithm of 0."""
        return self.problem.allowed or 1.0 / self.problem.total

    def near_miss(self, trial: Past) -> bool:
        """Whether a trial was set aside, or took all samples to be found not within, and is not far from it."""
        missed = trial.set_aside or (trial.state == "done" and not trial.within)
        return missed and trial.drop is not None and trial.drop < FAR * self.allowed

    def gains(self, parameters: Parameters) -> bool:
        """Whether a plan gains more than the incumbent, by enough to be worth a trial."""
        more = gain_of(int8_of(parameters, self.problem), self.problem) - self.incumbent_gain
        return more > self.threshold * self.scale

    def of(self, parameters: Parameters) -> list[Past]:
        """The trials of a plan."""
        return self.by_meaning.get(meaning(parameters, self.problem), [])

    def settled(self, parameters: Parameters, limit: int | None = None) -> bool:
        """Whether a trial of the plan would say nothing that another does not say or is about to say."""
        return any(trial.decided or _reaches(trial, limit) for trial in self.of(parameters))

    def measures(self, parameters: Parameters) -> tuple[float, ...]:
        """How bad a plan was measured to be, on more and more samples, which are the same ones for all plans."""
        ended = [trial for trial in self.of(parameters) if not trial.pending and trial.measures]
        return (
            max(ended, key=lambda trial: (trial.loss_samples, trial.samples, -trial.number)).measures if ended else ()
        )

    def compared(self, points: Sequence[Parameters]) -> list[float]:
        """How bad each plan was measured to be, on the most samples that all those measured have in common.

        Infinite where it was not measured, or has failed.
        """
        found = [self.measures(point) for point in points]
        common = min((len(measures) for measures in found if measures), default=0)
        return [measures[common - 1] if measures else math.inf for measures in found]

    def best(self, points: Sequence[Parameters]) -> Parameters:
        """The one that was measured best; the first of several."""
        found = self.compared(points)
        return points[found.index(min(found))]

    def samples(self, parameters: Parameters) -> int:
        """On how many samples a plan was measured at most."""
        return max((trial.loss_samples for trial in self.of(parameters) if not trial.pending), default=0)

    def ended(self) -> Iterator[Past]:
        """The trials of which something is known."""
        return (trial for trial in self.trials if not trial.pending)


def _by_objective(trial: Past) -> tuple[float, float, int]:
    return trial.objective, math.inf if trial.drop is None else trial.drop, trial.number


def _reaches(trial: Past, limit: int | None) -> bool:
    """Whether a trial was to be scored on as many samples."""
    return trial.limit is None or (limit is not None and trial.limit >= limit)
