"""A search as the guided sampler sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from autoquant.model.names import is_tensor
from autoquant.tuning.objective import Objective
from autoquant.tuning.sampling.problem import Candidates, globals_of
from autoquant.tuning.study.space import Choice, Parameters, SearchSpace, switch_of


@dataclass(frozen=True)
class SearchProblem:
    """The problem of a search: see sampling/problem.py. `predict` gives what layers are predicted to lose."""

    space: SearchSpace
    objective: Objective
    allowed: float
    total: int
    predict: Callable[[Parameters], Candidates]
    _predicted: dict[frozenset[tuple[str, Choice]], Candidates] = field(default_factory=dict)

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]:
        """Those of the space."""
        return self.space.dimensions

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Layers that may be in INT8 or in float."""
        return tuple(name for name in self.space.layers if not is_tensor(name) and self.space.may_be_float(name))

    @cached_property
    def gains(self) -> Mapping[str, float]:
        """By how much the objective grows where one layer goes back to float, from all in INT8."""
        fullest = dict(next(self.space.starts()).parameters)
        least = self.objective(self.space.plan(fullest))
        return {
            name: self.objective(self.space.plan({**fullest, switch_of(name): False})) - least for name in self.layers
        }

    @property
    def lowest(self) -> float:
        """What no plan's objective is below."""
        return self.objective.lowest

    def sensitivities(self, parameters: Parameters) -> Candidates:
        """What layers are predicted to lose; computed once for the same settings of the whole model."""
        settings = frozenset(globals_of(parameters).items())
        if settings not in self._predicted:
            self._predicted[settings] = self.predict(parameters)
        return self._predicted[settings]
