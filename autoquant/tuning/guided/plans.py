"""What can be said of plans with the same settings of the whole model: predicted losses, and which are ruled out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoquant.tuning.guided.fit import Curve, corrections, fit_curve
from autoquant.tuning.guided.past import History, Past
from autoquant.tuning.guided.problem import Candidate, Candidates, globals_of, int8_of, unit_of, with_int8
from autoquant.tuning.space import Parameters, switch_of

FAR = 5.0
"""A drop so many times the allowed one, or more, says nothing of small losses: divergences do not grow for ever."""


def loss_of(candidates: tuple[Candidate, ...], parameters: Parameters) -> float:
    """The predicted loss of a unit as `parameters` have it; settings that are no candidate are as bad as the worst."""
    for candidate in candidates:
        if all(parameters.get(name) == value for name, value in candidate.parameters.items()):
            return _number(candidate.loss)
    return max((_number(candidate.loss) for candidate in candidates), default=0.0)


def best_of(candidates: tuple[Candidate, ...]) -> Candidate:
    """The least loss; of equals the preferred."""
    return min(candidates, key=lambda candidate: _number(candidate.loss))


def with_best(parameters: Parameters, candidates: Candidates) -> Parameters:
    """The same plan with the best settings of every unit."""
    best = {name: value for own in candidates.values() if own for name, value in best_of(own).parameters.items()}
    return {**parameters, **best}


def predicted(parameters: Parameters, candidates: Candidates) -> float:
    """The sum of the predicted losses of all units in INT8."""
    return math.fsum(_loss_in(unit, parameters, candidates) for unit in candidates)


@dataclass(frozen=True)
class Plans:
    """Plans around `base`, which has all layers in INT8 and says which settings they have."""

    history: History
    base: Parameters
    candidates: Candidates

    @cached_property
    def related(self) -> tuple[Past, ...]:
        """All trials with the same settings of the whole model."""
        settings = globals_of(self.base)
        return tuple(trial for trial in self.history.trials if globals_of(trial.parameters) == settings)

    @cached_property
    def factors(self) -> Mapping[str, float]:
        """Unit -> what its predicted loss is to be multiplied by, as trials whose drop is not far off have it."""
        trials = [trial for trial in self._known if trial.loss is not None and trial.drop is not None]
        near = [trial for trial in trials if abs(trial.drop or 0.0) < FAR * self.history.problem.allowed]
        parts = np.array([[self._raw(unit, trial.parameters) for unit in self.candidates] for trial in near])
        measured = np.array([trial.loss for trial in near], dtype=np.float64)
        found = corrections(parts.reshape(len(near), len(self.candidates)), measured)
        return dict(zip(self.candidates, found.tolist(), strict=True))

    def loss(self, parameters: Parameters) -> float:
        """The predicted loss of a plan, corrected."""
        return math.fsum(self._raw(unit, parameters) * self.factors[unit] for unit in self.candidates)

    @cached_property
    def losses(self) -> Mapping[str, float]:
        """Layer with a switch -> its predicted loss with the settings of `base`, corrected."""
        layers = self.history.problem.layers
        return {layer: self._raw(layer, self.base) * self.factors.get(layer, 1.0) for layer in layers}

    @cached_property
    def floor(self) -> float:
        """The predicted loss of what is in INT8 in every plan."""
        return self.loss(self.plan(frozenset()))

    @cached_property
    def curve(self) -> Curve:
        """From predicted loss to drop."""
        known = [(self.loss(trial.parameters), trial.drop) for trial in self._known if trial.drop is not None]
        positive = [(loss, drop) for loss, drop in known if loss > 0.0]
        finite = sorted(loss for loss in self.losses.values() if math.isfinite(loss))
        losses, drops = [loss for loss, _ in positive], [drop for _, drop in positive]
        typical = self.floor + sum(finite) / 10 or 1.0
        return fit_curve(losses, drops, self.history.problem.allowed, typical=typical)

    def chance(self, parameters: Parameters) -> float:
        """That a plan is within, as the curve has it."""
        return self.curve.chance(self.loss(parameters))

    @property
    def bracket(self) -> tuple[float, float]:
        """The largest predicted loss that was proven to be within, 0 without, and the smallest proven not to be."""
        known = [(self.loss(trial.parameters), trial.within) for trial in self._known]
        within = [loss for loss, proven in known if proven]
        return max(within, default=0.0), min((loss for loss, proven in known if proven is False), default=math.inf)

    def plan(self, int8: frozenset[str]) -> Parameters:
        """That with just these layers in INT8."""
        return with_int8(self.base, self.history.problem, int8)

    @cached_property
    def proven(self) -> tuple[frozenset[str], ...]:
        """The smallest sets of layers that are out together with the settings of `base`: what has more is out too."""
        return _smallest(layers for trial in self.related for layers in self._out(trial, self.base))

    @cached_property
    def cuts(self) -> tuple[frozenset[str], ...]:
        """The same, with what is being tried, and what ended undecided, taken to be out."""
        unclear = (layers for trial in self.related for layers in self._unclear(trial, self.base))
        return _smallest([*self.proven, *unclear])

    def excluded(self, parameters: Parameters) -> bool:
        """Whether a plan contains one that was proven to be out, or that is being tried."""
        int8 = int8_of(parameters, self.history.problem)
        return any(
            layers <= int8
            for trial in self.related
            for layers in (*self._out(trial, parameters), *self._unclear(trial, parameters))
        )

    @cached_property
    def _known(self) -> tuple[Past, ...]:
        """Related trials that measured something that predictions can be held against."""
        ended = [trial for trial in self.related if not trial.pending and trial.state != "failed"]
        return tuple(trial for trial in ended if math.isfinite(self._sum(trial.parameters)))

    def _sum(self, parameters: Parameters) -> float:
        return sum(self._raw(unit, parameters) for unit in self.candidates)

    def _raw(self, unit: str, parameters: Parameters) -> float:
        """What was predicted for a unit at first; 0 in float."""
        return _loss_in(unit, parameters, self.candidates)

    def _out(self, trial: Past, parameters: Parameters) -> Iterator[frozenset[str]]:
        """The layers that a trial proves to be out together with the settings of `parameters`."""
        int8 = int8_of(trial.parameters, self.history.problem)
        if trial.state == "failed" and trial.at_fault in int8:
            int8 = frozenset({trial.at_fault})
            if self._same(trial.parameters, parameters, int8):
                yield int8
        elif (trial.state == "failed" or (trial.within is False and not trial.pending)) and self._agree(
            trial.parameters, parameters
        ):
            yield int8

    def _unclear(self, trial: Past, parameters: Parameters) -> Iterator[frozenset[str]]:
        """The same of a trial of which nobody knows whether it is out, but which would say no more if repeated."""
        if trial.limit is None and not trial.within and self._agree(trial.parameters, parameters):
            yield int8_of(trial.parameters, self.history.problem)

    def _agree(self, one: Parameters, other: Parameters) -> bool:
        """Whether all that is in INT8 in `one` would have the same settings in `other`."""
        float_in_one = set(self.history.problem.layers) - int8_of(one, self.history.problem)
        return self._same(one, other, {unit_of(name) for name in one} - float_in_one)

    def _same(self, one: Parameters, other: Parameters, units: Collection[str]) -> bool:
        own = (name for name in one if unit_of(name) in units and not self._switches(name))
        return all(one[name] == other[name] for name in own)

    def _switches(self, dimension: str) -> bool:
        return unit_of(dimension) in self.history.problem.layers and dimension == switch_of(unit_of(dimension))


def _smallest(sets: Iterable[frozenset[str]]) -> tuple[frozenset[str], ...]:
    """Those that contain no other, each once, in their order of size."""
    kept: list[frozenset[str]] = []
    for layers in sorted(sets, key=len):
        if not any(other <= layers for other in kept):
            kept.append(layers)
    return tuple(kept)


def _loss_in(unit: str, parameters: Parameters, candidates: Candidates) -> float:
    """The predicted loss of a unit; 0 in float."""
    return loss_of(candidates.get(unit, ()), parameters) if parameters.get(switch_of(unit), True) else 0.0


def _number(loss: float) -> float:
    """A loss that can be compared."""
    return math.inf if math.isnan(loss) else max(loss, 0.0)
