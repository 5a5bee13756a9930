"""All trials of a study, what can be said of them together, and what they show to be infeasible."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.coding import Codes, Coding, Layers, unchanged
from autoquant.tuning.sampling.predictions import PredictionTable
from autoquant.tuning.sampling.problem import Problem, globals_of
from autoquant.tuning.study.space import Choice, Parameters
from autoquant.tuning.study.trial import State, Trial

FAR = 5.0
"""A drop of so many times the largest within tolerance is no near miss, and says nothing of small divergences."""
THRESHOLD = 0.001
"""The share of all that could be gained for which no further trial is worth its time."""
CHANGES, MOST_SCATTER = 1.7, 0.7
"""The variance of a drop of k samples, in samples, is CHANGES k: of 54 and 135 plans of two networks that lost 9 and 39
of 4,000 on average 2.3 and less; and what its logarithm scatters by for that reason at most.
"""
Array = NDArray[np.float64]
Flags = NDArray[np.bool_]
"""Of each trial whether something holds for it, shape (trials,)."""
Facts = np.ndarray[tuple[int], np.dtype[np.void]]
"""Of each trial a row of FACTS."""
FACTS = np.dtype(
    [
        ("drop", np.float64),
        ("divergence", np.float64),
        *((name, np.bool_) for name in ("within", "missed", "failed", "done", "undecided", "unlimited", "final")),
    ]
)
"""A number that is not known is NaN; `missed` are trials proven to be out, `unlimited` those scored on any samples."""


@dataclass(frozen=True)
class History:
    """All trials of a study, and the problem they are of. Running trials are treated as failures (constant liar).

    `keys` and `codes` are those of the trials' parameters (coding.py), `gains` those of their layers in INT8, `facts`
    what is asked of all trials at once. What is known of a trial by itself is found once, and handed on from one
    history to the next.
    """

    trials: tuple[Trial, ...]
    problem: Problem
    coding: Coding
    keys: tuple[bytes, ...]
    codes: Codes
    gains: Array
    facts: Facts
    _tables: dict[frozenset[tuple[str, Choice]], PredictionTable] = field(default_factory=dict)

    @classmethod
    def of(cls, trials: Sequence[Trial], problem: Problem, before: History | None = None) -> History:
        """The history of these trials, most of which may be those of an earlier one of this problem."""
        if before is None:
            coding = Coding(problem)
            codes = np.zeros((0, len(coding.names)), np.int16)
            before = cls((), problem, coding, (), codes, np.zeros(0), np.zeros(0, FACTS))
        coding, ended = before.coding, unchanged(before.trials, trials)
        known = unchanged([one.parameters for one in before.trials], [one.parameters for one in trials])
        points = [trial.parameters for trial in trials[known:]]
        keys = (*before.keys[:known], *(coding.key(point) for point in points))
        codes = np.concatenate([before.codes[:known], *(coding.encode(point)[None] for point in points)])
        gains = np.append(before.gains[:known], [before.gain_of(int8) for int8 in coding.int8(codes[known:])])
        new = np.array([_facts(trial) for trial in trials[ended:]], FACTS)
        facts = np.concatenate([before.facts[:ended], new])
        return cls(tuple(trials), problem, coding, keys, codes, gains, facts, before._tables)

    def assuming(self, within: Collection[int]) -> History:
        """The same with the running trials of these numbers within tolerance, of which nothing is measured."""
        trials = list(self.trials)
        for place, trial in enumerate(trials):
            if trial.number in within:
                objective = self.problem.lowest + self.total_gain - float(self.gains[place])
                trials[place] = replace(trial, state=State.STOPPED, within=True, objective=objective)
        return History.of(trials, self.problem, self)

    @cached_property
    def by_plan(self) -> dict[bytes, list[int]]:
        """Plan -> the places of its trials."""
        found: dict[bytes, list[int]] = {}
        for place, key in enumerate(self.keys):
            found.setdefault(key, []).append(place)
        return found

    @cached_property
    def int8(self) -> Layers:
        """The layers in INT8 of each trial."""
        return self.coding.int8(self.codes)

    @cached_property
    def incumbent(self) -> Trial | None:
        """The least objective among trials proven to be within tolerance; ties go to the smaller drop, the earlier."""
        within = [self.trials[place] for place in np.flatnonzero(self.facts["within"]).tolist()]
        return min(within, key=lambda trial: (trial.objective, drop_of(trial), trial.number), default=None)

    @property
    def finished(self) -> bool:
        """Whether the incumbent is as good as any plan can be, or nearly so."""
        if self.incumbent is None:
            return False
        lowest = self.problem.lowest
        return self.incumbent.objective - lowest <= THRESHOLD * max(1.0 - lowest, 0.0)

    @cached_property
    def total_gain(self) -> float:
        """What there is to be gained in all."""
        return sum(gain for gain in self.problem.gains.values() if gain > 0.0)

    @property
    def max_drop(self) -> float:
        """The largest drop within tolerance; where none is, that of one sample, since there is no logarithm of 0."""
        return self.problem.max_drop or 1.0 / self.problem.total

    @cached_property
    def chance_decides(self) -> bool:
        """Whether it is chance which of equally good plans is within: not where few samples tell of the drop."""
        return not any(trial.probe_drops for trial in self.trials)

    @property
    def least_drop(self) -> float:
        """Smaller drops are not told from each other: of right and wrong answers, that of half a sample."""
        return 0.5 / self.problem.total if self.chance_decides else 0.0

    @property
    def least_scatter(self) -> float:
        """What the logarithm of a drop scatters by at least where it is the largest within tolerance, by chance alone.

        Of right and wrong answers: a drop of k samples comes with a few times as many changes, whose difference has a
        standard deviation of their root.
        """
        if not self.chance_decides:
            return 0.0
        return min(math.sqrt(CHANGES / (self.max_drop * self.problem.total)), MOST_SCATTER)

    @cached_property
    def near_misses(self) -> Flags:
        """Whether a trial was undecided, or took all samples to be found not within tolerance, by little."""
        missed = self.facts["undecided"] | (self.facts["done"] & ~self.facts["within"])
        return np.asarray(missed & (self.facts["drop"] < FAR * self.max_drop))

    def gain_of(self, int8: Layers) -> float:
        """By how much less the objective is than with all layers in float."""
        order, gains = self._gains_by_name
        return sum(compress(gains, int8[order].tolist()))

    def gain_over_incumbent(self, int8: Layers) -> float:
        """What these switches gain more than the incumbent, or than the model in float where there is no incumbent."""
        return self.gain_of(int8) - self._incumbent_gain

    def improves(self, int8: Layers) -> bool:
        """Whether these layers in INT8 gain more than the incumbent, by enough to be worth a trial."""
        return self.gain_over_incumbent(int8) > THRESHOLD * self.total_gain

    def int8_of(self, parameters: Parameters) -> Layers:
        """The layers in INT8 of any plan."""
        return self.coding.int8(self.coding.encode(parameters))

    def places_of(self, parameters: Parameters) -> list[int]:
        """The places of the trials of a plan."""
        return self.by_plan.get(self.coding.key(parameters), [])

    def trials_of(self, parameters: Parameters) -> list[Trial]:
        """The trials of a plan."""
        return [self.trials[place] for place in self.places_of(parameters)]

    def predictions(self, parameters: Parameters) -> PredictionTable:
        """Predicted divergences under the settings of the whole model that are given."""
        settings = frozenset(globals_of(parameters).items())
        if settings not in self._tables:
            self._tables[settings] = PredictionTable(
                self.problem.sensitivities(parameters), self.coding, self.problem.makers
            )
        return self._tables[settings]

    def already_known(self, parameters: Parameters, max_samples: int | None = None) -> bool:
        """Whether a trial of the plan would say nothing that another does not say or is about to say."""
        return any(trial.final or trial.reaches(max_samples) for trial in self.trials_of(parameters))

    def measures(self, parameters: Parameters) -> tuple[float, ...]:
        """How bad a plan was measured to be, on more and more samples, which are the same ones for all plans."""
        best = self._best_known(parameters)
        return () if best is None else measures_of(best)

    def divergences(self, parameters: Parameters) -> tuple[float, ...]:
        """How far a plan's outputs were measured to be from FP32's, on more and more samples."""
        best = self._best_known(parameters)
        return () if best is None else best.divergences

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

    def _best_known(self, parameters: Parameters) -> Trial | None:
        """The trial of a plan that was compared with others on the most samples."""
        ended = [trial for trial in self.trials_of(parameters) if measures_of(trial)]
        return max(ended, key=lambda trial: (trial.divergence_samples, trial.samples, -trial.number), default=None)

    @cached_property
    def _incumbent_gain(self) -> float:
        return -self._always if self.incumbent is None else self.gain_of(self.int8_of(self.incumbent.parameters))

    @cached_property
    def _always(self) -> float:
        """What 16 bits of layers gain that may not be in float, but have that choice."""
        switches = self.coding.switches
        if all(switch.layer in switches for switch in switches.values()):
            return 0.0
        return max(1.0 - self.problem.lowest - self.total_gain, 0.0)

    @cached_property
    def _gains_by_name(self) -> tuple[NDArray[np.intp], list[float]]:
        """The order of the switches by name, and their gains in that order: sums are the same whoever adds them up."""
        names = list(self.coding.switches)
        order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.intp)
        return order, [self.problem.gains[names[place]] for place in order]


def measures_of(trial: Trial) -> tuple[float, ...]:
    """What is compared in a race, on more and more samples: drops, where few samples tell of these, or divergences.

    The drop of all samples where outputs are not compared. Nothing where the trial has not ended or failed, or where
    one of them is not finite.
    """
    found = trial.probe_drops or trial.divergences
    if not trial.divergence_samples and trial.drop is not None:
        found = (trial.drop,)
    return found if trial.state is not State.FAILED and all(map(math.isfinite, found)) else ()


def drop_of(trial: Trial) -> float:
    """The drop of a trial; infinite where none is known."""
    return math.inf if trial.drop is None else trial.drop


def _facts(trial: Trial) -> tuple[float | bool, ...]:
    """The row of a trial."""
    numbers = (math.nan if number is None else number for number in (trial.drop, trial.divergence))
    failed, done = trial.state is State.FAILED, trial.state is State.DONE
    within, missed, unlimited = bool(trial.within), trial.within is False, trial.max_samples is None
    return *numbers, within, missed, failed, done, trial.undecided, unlimited, trial.final
