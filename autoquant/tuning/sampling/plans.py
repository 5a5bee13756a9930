"""What can be said of plans with the same settings of the whole model: predicted losses, and chances to be within."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from autoquant.tuning.sampling.fit import Curve, corrections, fit_curve
from autoquant.tuning.sampling.history import FAR, History, Past
from autoquant.tuning.sampling.infeasible import Outs
from autoquant.tuning.sampling.problem import Candidate, Candidates, globals_of, with_int8
from autoquant.tuning.study.space import Parameters, switch_of


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
        far = FAR * self.history.allowed
        near = [trial for trial, drop in self._known if trial.loss is not None and abs(drop) < far]
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
        known = [(self.loss(trial.parameters), drop) for trial, drop in self._known]
        positive = [(loss, drop) for loss, drop in known if loss > 0.0]
        finite = sorted(loss for loss in self.losses.values() if math.isfinite(loss))
        losses, drops = [loss for loss, _ in positive], [drop for _, drop in positive]
        typical = self.floor + sum(finite) / 10 or 1.0
        return fit_curve(losses, drops, self.history.allowed, typical=typical)

    def chance(self, parameters: Parameters) -> float:
        """That a plan is within, as the curve has it."""
        return self.curve.chance(self.loss(parameters))

    @property
    def near_misses(self) -> list[Past]:
        """Related trials that just missed."""
        return [trial for trial, _ in self._known if self.history.near_miss(trial)]

    @property
    def bracket(self) -> tuple[float, float]:
        """The largest predicted loss that was proven to be within, 0 without, and the smallest proven not to be."""
        known = [(self.loss(trial.parameters), trial.within) for trial, _ in self._known]
        within = [loss for loss, proven in known if proven]
        return max(within, default=0.0), min((loss for loss, proven in known if proven is False), default=math.inf)

    def plan(self, int8: frozenset[str]) -> Parameters:
        """That with just these layers in INT8."""
        return with_int8(self.base, self.history.problem, int8)

    @cached_property
    def outs(self) -> Outs:
        """What trials rule out."""
        return Outs(self.history)

    @cached_property
    def _known(self) -> tuple[tuple[Past, float], ...]:
        """Related trials whose drop was measured, with that, and whose predicted loss is a number."""
        ended = [trial for trial in self.related if not trial.pending and trial.state != "failed"]
        known = [(trial, trial.drop) for trial in ended if trial.drop is not None and not self._again(trial)]
        sound = [(trial, drop) for trial, drop in known if math.isfinite(drop)]
        return tuple(pair for pair in sound if math.isfinite(self._sum(pair[0].parameters)))

    def _again(self, trial: Past) -> bool:
        """Whether a trial was set aside and its plan then scored on everything, which says more."""
        return trial.set_aside and any(other.state == "done" for other in self.history.of(trial.parameters))

    def _sum(self, parameters: Parameters) -> float:
        return sum(self._raw(unit, parameters) for unit in self.candidates)

    def _raw(self, unit: str, parameters: Parameters) -> float:
        """What was predicted for a unit at first; nothing where it is in every plan and cannot be predicted."""
        loss = _loss_in(unit, parameters, self.candidates)
        return loss if math.isfinite(loss) or unit in self.history.problem.layers else 0.0


def _loss_in(unit: str, parameters: Parameters, candidates: Candidates) -> float:
    """The predicted loss of a unit; 0 in float."""
    return loss_of(candidates.get(unit, ()), parameters) if parameters.get(switch_of(unit), True) else 0.0


def _number(loss: float) -> float:
    """A loss that can be compared."""
    return math.inf if math.isnan(loss) else max(loss, 0.0)
