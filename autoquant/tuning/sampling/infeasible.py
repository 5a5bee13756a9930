"""What cannot be within tolerance: a plan with all in INT8 that an infeasible one had, with the same settings."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from autoquant.tuning.sampling.history import History
from autoquant.tuning.sampling.problem import int8_of, unit_of
from autoquant.tuning.study.space import Parameters, switch_of
from autoquant.tuning.study.trial import State, Trial

Cuts = tuple[frozenset[str], ...]
"""Sets of layers; no plan may have all layers of any of them in INT8."""


@dataclass(frozen=True)
class Infeasible:
    """The plans that the trials of a history exclude."""

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
            for layers in self._unclear(trial, base)
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
        return min(
            doubts, key=lambda trial: (math.inf if trial.drop is None else trial.drop, trial.number), default=None
        )

    def _proven(self, trial: Trial, parameters: Parameters) -> Iterator[frozenset[str]]:
        int8 = int8_of(trial.parameters, self.history.problem)
        if trial.state is State.FAILED and trial.at_fault in int8:
            if self._same(trial.parameters, parameters, {"", trial.at_fault}):
                yield frozenset({trial.at_fault})
        elif trial.state is State.FAILED or trial.within is False:
            yield from self._int8(trial, parameters)

    def _unclear(self, trial: Trial, parameters: Parameters) -> Iterator[frozenset[str]]:
        if trial.max_samples is None and not trial.within:
            yield from self._int8(trial, parameters)

    def _int8(self, trial: Trial, parameters: Parameters) -> Iterator[frozenset[str]]:
        """All layers in INT8 of a trial, where `parameters` have the same settings for all that was in INT8."""
        int8 = int8_of(trial.parameters, self.history.problem)
        in_float = set(self.history.problem.layers) - int8
        if self._same(trial.parameters, parameters, {unit_of(name) for name in self._settings} - in_float):
            yield int8

    def _same(self, one: Parameters, other: Parameters, tunables: Collection[str]) -> bool:
        """Whether these tunables have the same settings, whether or not their layers are in INT8."""
        return all(one[name] == other[name] for name in self._settings if unit_of(name) in tunables)

    @cached_property
    def _settings(self) -> tuple[str, ...]:
        """All dimensions but the layers' switches."""
        switches = {switch_of(layer) for layer in self.history.problem.layers}
        return tuple(name for name in self.history.problem.dimensions if name not in switches)


def _smallest(sets: Iterable[frozenset[str]]) -> Cuts:
    """Those that contain no other, each once, in their order of size."""
    found: list[frozenset[str]] = []
    for layers in sorted(sets, key=len):
        if not any(other <= layers for other in found):
            found.append(layers)
    return tuple(found)
