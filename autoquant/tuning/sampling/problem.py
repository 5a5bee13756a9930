"""What a sampler has to know of a search, and what the parameters of a plan mean to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from autoquant.model.operators import is_tensor
from autoquant.tuning.sensitivity.request import Predictions
from autoquant.tuning.study.space import Choice, Parameters, SearchSpace, switch_of
from autoquant.tuning.study.workload import Objective

COSTLY = frozenset({"training"})
"""Settings of the whole model that take far longer than a trial without: tried once that has missed."""


class Choices(Protocol):
    """What may be chosen, and how trials are judged: all that a sampler needs which predicts nothing."""

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]:
        """As of the search space: the preferred choice of each comes first."""
        ...

    @property
    def layers(self) -> Collection[str]:
        """The layers that may be in INT8 or in float: each has a dimension `switch_of(layer)`."""
        ...

    @property
    def max_drop(self) -> float:
        """The largest drop within tolerance."""
        ...

    @property
    def total(self) -> int:
        """How many samples a trial that is scored on everything takes."""
        ...


class Problem(Choices, Protocol):
    """The same with what layers gain in INT8, and how much they are predicted to change the outputs."""

    @property
    def gains(self) -> Mapping[str, float]:
        """Layer -> how much the objective falls when it becomes INT8, in any one unit; it may be negative."""
        ...

    @property
    def lowest(self) -> float:
        """What no plan's objective is below; that of the model all in float is 1."""
        ...

    @property
    def max_trials(self) -> float:
        """How many trials there may be; infinite without such a budget."""
        ...

    def sensitivities(self, parameters: Parameters) -> Predictions:
        """Predicted divergences under the settings of the whole model (the dimensions without ':') that are given.

        It is asked for when it is first needed, and may take seconds; whoever implements it caches what it found.
        """
        ...


@dataclass(frozen=True)
class SearchProblem:
    """The problem of a search. `predict` gives the predicted divergences of layers."""

    space: SearchSpace
    objective: Objective
    max_drop: float
    total: int
    predict: Callable[[Parameters], Predictions]
    max_trials: float = math.inf
    _predicted: dict[frozenset[tuple[str, Choice]], Predictions] = field(default_factory=dict)

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
        fullest = self.space.fullest
        least = self.objective(fullest)
        return {name: self.objective(self.space.with_float(fullest, name)) - least for name in self.layers}

    @property
    def lowest(self) -> float:
        """What no plan's objective is below."""
        return self.objective.lowest

    def sensitivities(self, parameters: Parameters) -> Predictions:
        """Predicted divergences, computed once for the same settings of the whole model."""
        settings = frozenset(globals_of(parameters).items())
        if settings not in self._predicted:
            self._predicted[settings] = self.predict(parameters)
        return self._predicted[settings]


def start_of(choices: Choices) -> Parameters:
    """Every layer in INT8, with the preferred choice of everything."""
    first = {name: values[0] for name, values in choices.dimensions.items()}
    return with_int8(first, choices, choices.layers)


def with_int8(parameters: Parameters, choices: Choices, int8: Collection[str]) -> Parameters:
    """The same with just these layers in INT8."""
    return {**parameters, **{switch_of(layer): layer in int8 for layer in choices.layers}}


def int8_of(parameters: Parameters, choices: Choices) -> frozenset[str]:
    """The layers with a switch that are in INT8."""
    return frozenset(layer for layer in choices.layers if parameters[switch_of(layer)])


def gain_of(int8: Collection[str], problem: Problem) -> float:
    """By how much less the objective is than with all of them in float."""
    return sum(problem.gains[layer] for layer in sorted(int8))


def unit_of(dimension: str) -> str:
    """The layer or input that a dimension belongs to; '' where it holds for the whole model."""
    return dimension.rpartition(":")[0]


def globals_of(parameters: Parameters) -> Parameters:
    """The settings of the whole model."""
    return {name: value for name, value in parameters.items() if not unit_of(name)}
