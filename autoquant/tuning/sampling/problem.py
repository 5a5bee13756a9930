"""What a sampler has to know of a search, and what the parameters of a plan mean to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from autoquant.model.operators import is_tensor
from autoquant.tuning.sensitivity.request import Predictions
from autoquant.tuning.study.space import Choice, Parameters, SearchSpace, bits_of, switch_of
from autoquant.tuning.study.workload import Objective

COSTLY = frozenset({"training"})
"""Settings of the whole model that take far longer than a trial without: tried once that has missed."""


@dataclass(frozen=True, slots=True)
class Switch:
    """A dimension of a layer whose one choice gains more, and whose other choice loses less accuracy.

    `on` is INT8 and `off` float; or `on` are activations of 8 bits, `off` of 16.
    """

    layer: str
    dimension: str
    on: Choice
    off: Choice

    @property
    def words(self) -> str:
        """What is in INT8 where it is on."""
        return self.layer if self.on is True else f"activations of {self.layer}"


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
        """Switch -> how much the objective falls when it is turned on, in any one unit; it may be negative.

        That of a layer's activations comes on top of that of the layer, which is of activations of 16 bits then.
        """
        ...

    @property
    def makers(self) -> Mapping[str, Collection[str]]:
        """Layer with a choice of 16 bits -> the layers that make what it reads, alone or together; without others."""
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
    makers: Mapping[str, Collection[str]] = field(default_factory=dict)
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
        """By how much the objective grows where one layer goes back to float, or to 16 bits, from all in INT8."""
        fullest = self.space.fullest
        least, found = self.objective(fullest), dict[str, float]()
        for name, switch in switches_of(self).items():
            if switch.on is not True:
                wide = replace(fullest.int8[switch.layer], activation_bits=16)
                plan = replace(fullest, layers={**fullest.layers, switch.layer: wide})
                found[name] = self.objective(plan) - least
        for name in self.layers:
            own = self.objective(self.space.with_float(fullest, name)) - least
            found[name] = own - found.get(bits_of(name), 0.0)
        return found

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


def switches_of(choices: Choices) -> Mapping[str, Switch]:
    """What can be in INT8 or not, by name: layers by their own, activations of layers by that of the dimension."""
    layers = {layer: Switch(layer, switch_of(layer), True, False) for layer in choices.layers}
    bits = [name for name in choices.dimensions if unit_of(name) and name == bits_of(unit_of(name))]
    return layers | {name: Switch(unit_of(name), name, 8, 16) for name in bits}


def start_of(choices: Choices) -> Parameters:
    """Every layer in INT8, with the preferred choice of everything."""
    first = {name: values[0] for name, values in choices.dimensions.items()}
    return with_int8(first, choices, switches_of(choices))


def with_int8(parameters: Parameters, choices: Choices, on: Collection[str]) -> Parameters:
    """The same with just these switches on."""
    changed = {
        switch.dimension: switch.on if name in on else switch.off for name, switch in switches_of(choices).items()
    }
    return {**parameters, **changed}


def int8_of(parameters: Parameters, choices: Choices) -> frozenset[str]:
    """The switches that are on; those of activations of a layer in float are not."""
    switches = switches_of(choices)
    on = {name for name, switch in switches.items() if parameters[switch.dimension] == switch.on}
    return frozenset(name for name in on if switches[name].layer in on or switches[name].layer not in switches)


def gain_of(on: Collection[str], problem: Problem) -> float:
    """By how much less the objective is than with all switches off."""
    return sum(problem.gains[name] for name in sorted(on))


def unit_of(dimension: str) -> str:
    """The layer or input that a dimension belongs to; '' where it holds for the whole model."""
    return dimension.rpartition(":")[0]


def globals_of(parameters: Parameters) -> Parameters:
    """The settings of the whole model."""
    return {name: value for name, value in parameters.items() if not unit_of(name)}
