"""What trials rule out: a plan that has in INT8 all that one had which was out, with the same settings, is out too."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from autoquant.tuning.sampling.history import History, Past
from autoquant.tuning.sampling.problem import int8_of, unit_of
from autoquant.tuning.study.space import Parameters, switch_of

Cuts = tuple[frozenset[str], ...]
"""Sets of layers; no plan may have all layers of any of them in INT8."""


@dataclass(frozen=True)
class Outs:
    """What the trials of a history rule out."""

    history: History

    def proven(self, base: Parameters) -> Cuts:
        """The smallest sets of layers that were proven to be out together, or failed, with the settings of `base`."""
        return _smallest(layers for trial in self.history.trials for layers in self._out(trial, base))

    def taken(self, base: Parameters) -> Cuts:
        """The same, with what is being tried, and what was set aside, taken to be out.

        But for what was set aside and is part of a plan that was proven to be within.
        """
        within = [layers for trial in self.history.trials if trial.within for layers in self._whole(trial, base)]
        unclear = (
            layers
            for trial in self.history.trials
            for layers in self._unclear(trial, base)
            if not (trial.set_aside and any(layers <= more for more in within))
        )
        return _smallest([*self.proven(base), *unclear])

    def exclude(self, parameters: Parameters) -> bool:
        """Whether a plan contains one that is taken to be out."""
        int8 = int8_of(parameters, self.history.problem)
        return any(layers <= int8 for layers in self.taken(parameters))

    def leave(self, parameters: Parameters) -> bool:
        """Whether a plan gains more than the incumbent, and no trial says what would become of it."""
        gains = self.history.gains(parameters)
        return gains and not self.history.settled(parameters) and not self.exclude(parameters)

    def doubted(self) -> Past | None:
        """Of what was set aside, gains more than the incumbent and may be within, that which cost least."""
        total = self.history.problem.total
        doubts = [
            trial
            for trial in self.history.trials
            if trial.set_aside
            and self.history.gains(trial.parameters)
            and not any(other.limit == total for other in self.history.of(trial.parameters))
            and not any(
                layers <= int8_of(trial.parameters, self.history.problem) for layers in self.proven(trial.parameters)
            )
        ]
        return min(
            doubts, key=lambda trial: (math.inf if trial.drop is None else trial.drop, trial.number), default=None
        )

    def _out(self, trial: Past, parameters: Parameters) -> Iterator[frozenset[str]]:
        int8 = int8_of(trial.parameters, self.history.problem)
        if trial.state == "failed" and trial.at_fault in int8:
            if self._same(trial.parameters, parameters, {"", trial.at_fault}):
                yield frozenset({trial.at_fault})
        elif trial.state == "failed" or (trial.within is False and not trial.pending):
            yield from self._whole(trial, parameters)

    def _unclear(self, trial: Past, parameters: Parameters) -> Iterator[frozenset[str]]:
        if trial.limit is None and not trial.within:
            yield from self._whole(trial, parameters)

    def _whole(self, trial: Past, parameters: Parameters) -> Iterator[frozenset[str]]:
        """All layers in INT8 of a trial, where `parameters` have the same settings for all that was in INT8."""
        int8 = int8_of(trial.parameters, self.history.problem)
        in_float = set(self.history.problem.layers) - int8
        if self._same(trial.parameters, parameters, {unit_of(name) for name in self._settings} - in_float):
            yield int8

    def _same(self, one: Parameters, other: Parameters, units: Collection[str]) -> bool:
        """Whether these units have the same settings, whether or not their layers are in INT8."""
        return all(one[name] == other[name] for name in self._settings if unit_of(name) in units)

    @cached_property
    def _settings(self) -> tuple[str, ...]:
        """All dimensions but the layers' switches."""
        switches = {switch_of(layer) for layer in self.history.problem.layers}
        return tuple(name for name in self.history.problem.dimensions if name not in switches)


def _smallest(sets: Iterable[frozenset[str]]) -> Cuts:
    """Those that contain no other, each once, in their order of size."""
    kept: list[frozenset[str]] = []
    for layers in sorted(sets, key=len):
        if not any(other <= layers for other in kept):
            kept.append(layers)
    return tuple(kept)
