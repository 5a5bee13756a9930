"""All trials of a study, what can be said of them together, and what they show to be infeasible."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from autoquant.tuning.sampling.problem import Problem, canonical_key, gain_of, int8_of, unit_of
from autoquant.tuning.study.space import Choice, Parameters, switch_of
from autoquant.tuning.study.trial import State, Trial

FAR = 5.0
"""A drop of so many times the largest within tolerance is no near miss, and says nothing of small divergences."""
THRESHOLD = 0.001
"""The share of all that could be gained for which no further trial is worth its time."""
Cuts = tuple[frozenset[str], ...]
"""Sets of layers; no plan may have all layers of any of them in INT8."""


@dataclass(frozen=True)
class History:
    """All trials of a study, and the problem they are of. Running trials are treated as failures (constant liar)."""

    trials: tuple[Trial, ...]
    problem: Problem

    @cached_property
    def by_plan(self) -> dict[frozenset[tuple[str, Choice]], list[Trial]]:
        """Plan -> its trials, by number."""
        found: dict[frozenset[tuple[str, Choice]], list[Trial]] = {}
        for trial in self.trials:
            found.setdefault(canonical_key(trial.parameters, self.problem), []).append(trial)
        return found

    @cached_property
    def incumbent(self) -> Trial | None:
        """The least objective among trials proven to be within tolerance; ties go to the smaller drop, the earlier."""
        within = [trial for trial in self.trials if trial.within]
        return min(within, key=lambda trial: (trial.objective, _drop(trial), trial.number), default=None)

    @property
    def finished(self) -> bool:
        """Whether the incumbent is as good as any plan can be, or nearly so."""
        if self.incumbent is None:
            return False
        lowest = self.problem.lowest
        return self.incumbent.objective - lowest <= THRESHOLD * max(1.0 - lowest, 0.0)

    @property
    def total_gain(self) -> float:
        """What there is to be gained in all."""
        return sum(gain for gain in self.problem.gains.values() if gain > 0.0)

    @property
    def max_drop(self) -> float:
        """The largest drop within tolerance; where none is, that of one sample, since there is no logarithm of 0."""
        return self.problem.max_drop or 1.0 / self.problem.total

    def near_miss(self, trial: Trial) -> bool:
        """Whether a trial was undecided, or took all samples to be found not within tolerance, by little."""
        missed = trial.undecided or (trial.state is State.DONE and not trial.within)
        return missed and trial.drop is not None and trial.drop < FAR * self.max_drop

    def gain_over_incumbent(self, parameters: Parameters) -> float:
        """What a plan gains more than the incumbent, or than the model all in float where there is none."""
        known = 0.0
        if self.incumbent is not None:
            known = gain_of(int8_of(self.incumbent.parameters, self.problem), self.problem)
        return gain_of(int8_of(parameters, self.problem), self.problem) - known

    def improves(self, parameters: Parameters) -> bool:
        """Whether a plan gains more than the incumbent, by enough to be worth a trial."""
        return self.gain_over_incumbent(parameters) > THRESHOLD * self.total_gain

    def trials_of(self, parameters: Parameters) -> list[Trial]:
        """The trials of a plan."""
        return self.by_plan.get(canonical_key(parameters, self.problem), [])

    def already_known(self, parameters: Parameters, max_samples: int | None = None) -> bool:
        """Whether a trial of the plan would say nothing that another does not say or is about to say."""
        return any(trial.final or _reaches(trial, max_samples) for trial in self.trials_of(parameters))

    def measures(self, parameters: Parameters) -> tuple[float, ...]:
        """How bad a plan was measured to be, on more and more samples, which are the same ones for all plans."""
        ended = [trial for trial in self.trials_of(parameters) if measures_of(trial)]
        if not ended:
            return ()
        return measures_of(max(ended, key=lambda trial: (trial.divergence_samples, trial.samples, -trial.number)))

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


def measures_of(trial: Trial) -> tuple[float, ...]:
    """What is compared in a race, on more and more samples: divergences, or the drop where outputs are not compared.

    Nothing where the trial has not ended or failed, or where a divergence is not finite.
    """
    found = trial.divergences
    if not trial.divergence_samples and trial.drop is not None:
        found = (trial.drop,)
    return found if trial.state is not State.FAILED and all(map(math.isfinite, found)) else ()


def _drop(trial: Trial) -> float:
    return math.inf if trial.drop is None else trial.drop


def _reaches(trial: Trial, max_samples: int | None) -> bool:
    """Whether a trial was to be scored on as many samples."""
    return trial.max_samples is None or (max_samples is not None and trial.max_samples >= max_samples)


@dataclass(frozen=True)
class Infeasible:
    """The plans that the trials of a history exclude.

    Those are plans with all in INT8 that an infeasible one had, with the same settings.
    """

    history: History

    def proven_infeasible(self, base: Parameters) -> Cuts:
        """The smallest sets of layers that were proven to miss together, or failed, with the settings of `base`."""
        return _smallest(layers for trial in self.history.trials for layers in self._proven(trial, base))

    def assumed_infeasible(self, base: Parameters) -> Cuts:
        """The same with running trials and undecided ones, but for those that are part of a plan proven within."""
        within = [layers for trial in self.history.trials if trial.within for layers in self._int8(trial, base)]
        unclear = (
            layers
            for trial in self.history.trials
            if trial.max_samples is None and not trial.within
            for layers in self._int8(trial, base)
            if not (trial.undecided and any(layers <= more for more in within))
        )
        return _smallest([*self.proven_infeasible(base), *unclear])

    def excludes(self, parameters: Parameters) -> bool:
        """Whether a plan contains one that is assumed to be infeasible."""
        int8 = int8_of(parameters, self.history.problem)
        return any(layers <= int8 for layers in self.assumed_infeasible(parameters))

    def is_open(self, parameters: Parameters) -> bool:
        """Whether a plan gains more than the incumbent, and no trial says how it would end."""
        improves = self.history.improves(parameters)
        return improves and not self.history.already_known(parameters) and not self.excludes(parameters)

    def next_recheck(self) -> Trial | None:
        """Of the undecided trials that gain more than the incumbent and may be within, the one of least drop."""
        problem = self.history.problem
        doubts = [
            trial
            for trial in self.history.trials
            if trial.undecided
            and self.history.improves(trial.parameters)
            and not any(other.max_samples == problem.total for other in self.history.trials_of(trial.parameters))
            and not any(
                layers <= int8_of(trial.parameters, problem) for layers in self.proven_infeasible(trial.parameters)
            )
        ]
        return min(doubts, key=lambda trial: (_drop(trial), trial.number), default=None)

    def _proven(self, trial: Trial, parameters: Parameters) -> Iterator[frozenset[str]]:
        int8 = int8_of(trial.parameters, self.history.problem)
        if trial.state is State.FAILED and trial.at_fault in int8:
            if self._same(trial.parameters, parameters, {"", trial.at_fault}):
                yield frozenset({trial.at_fault})
        elif trial.state is State.FAILED or trial.within is False:
            yield from self._int8(trial, parameters)

    def _int8(self, trial: Trial, parameters: Parameters) -> Iterator[frozenset[str]]:
        """All layers in INT8 of a trial, where `parameters` have the same settings for all that was in INT8."""
        int8 = int8_of(trial.parameters, self.history.problem)
        in_float = set(self.history.problem.layers) - int8
        if self._same(trial.parameters, parameters, self._settings.keys() - in_float):
            yield int8

    def _same(self, one: Parameters, other: Parameters, tunables: Collection[str]) -> bool:
        """Whether these tunables have the same settings, whether or not their layers are in INT8."""
        return all(one[name] == other[name] for unit in tunables for name in self._settings.get(unit, ()))

    @cached_property
    def _settings(self) -> dict[str, list[str]]:
        """Tunable, '' for the whole model -> its dimensions but the layers' switches."""
        switches = {switch_of(layer) for layer in self.history.problem.layers}
        settings: dict[str, list[str]] = {}
        for name in self.history.problem.dimensions:
            if name not in switches:
                settings.setdefault(unit_of(name), []).append(name)
        return settings


def _smallest(sets: Iterable[frozenset[str]]) -> Cuts:
    """Those that contain no other, each once, in their order of size."""
    found: list[frozenset[str]] = []
    for layers in sorted(sets, key=len):
        if not any(other <= layers for other in found):
            found.append(layers)
    return tuple(found)
