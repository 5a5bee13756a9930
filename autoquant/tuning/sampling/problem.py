"""What the guided sampler has to know of a search, and what the parameters of a plan mean to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from autoquant.tuning.study.space import Choice, Parameters, switch_of


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings that a unit can have, and the loss that is predicted when it alone is in INT8 with them.

    `parameters` are all of the unit's own dimensions but its layer's switch; `loss` is in nats, or in whatever the
    trials measure theirs; NaN and infinity say that it cannot be in INT8 with these settings.
    """

    parameters: Parameters
    loss: float


Candidates = Mapping[str, tuple[Candidate, ...]]
"""Unit -> what it can have, the preferred first, which wins where losses are equal.

Units are the layers with a switch, layers that are always in INT8, and inputs of operators with dimensions of their own
(whose switch is one of these). A layer with a switch and no other dimension has one candidate without parameters.
"""


class Problem(Protocol):
    """A search as the guided sampler sees it."""

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]:
        """As of the search space: the preferred choice of each comes first."""
        ...

    @property
    def layers(self) -> Collection[str]:
        """The layers that may be in INT8 or in float: each has a dimension `switch_of(layer)`."""
        ...

    @property
    def gains(self) -> Mapping[str, float]:
        """Layer -> how much the objective falls when it becomes INT8, in any one unit; it may be negative."""
        ...

    @property
    def lowest(self) -> float:
        """What no plan's objective is below; that of the model all in float is 1."""
        ...

    @property
    def allowed(self) -> float:
        """The largest drop that is within."""
        ...

    @property
    def total(self) -> int:
        """How many samples a trial that is scored on everything takes."""
        ...

    def sensitivities(self, parameters: Parameters) -> Candidates:
        """Predicted losses under the settings of the whole model (the dimensions without ':') that are given.

        It is asked for when it is first needed, and may take seconds; whoever implements it keeps what it found.
        """
        ...


def start_of(problem: Problem) -> Parameters:
    """Every layer in INT8, with the preferred choice of everything."""
    first = {name: choices[0] for name, choices in problem.dimensions.items()}
    return with_int8(first, problem, problem.layers)


def with_int8(parameters: Parameters, problem: Problem, int8: Collection[str]) -> Parameters:
    """The same with just these layers in INT8."""
    return {**parameters, **{switch_of(layer): layer in int8 for layer in problem.layers}}


def int8_of(parameters: Parameters, problem: Problem) -> frozenset[str]:
    """The layers with a switch that are in INT8."""
    return frozenset(layer for layer in problem.layers if parameters[switch_of(layer)])


def gain_of(int8: Collection[str], problem: Problem) -> float:
    """By how much less the objective is than with all of them in float."""
    return sum(problem.gains[layer] for layer in sorted(int8))


def unit_of(dimension: str) -> str:
    """The layer or input that a dimension belongs to; '' where it holds for the whole model."""
    return dimension.rpartition(":")[0]


def globals_of(parameters: Parameters) -> Parameters:
    """The settings of the whole model."""
    return {name: value for name, value in parameters.items() if not unit_of(name)}


def meaning(parameters: Parameters, problem: Problem) -> frozenset[tuple[str, Choice]]:
    """What distinguishes a plan: settings of a layer in float mean nothing."""
    off = set(problem.layers) - int8_of(parameters, problem)
    dead = (name for name in parameters if unit_of(name) in off and name != switch_of(unit_of(name)))
    return frozenset(parameters.items() - {(name, parameters[name]) for name in dead})
