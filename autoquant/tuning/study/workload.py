"""What a model's layers cost, and what of that a search minimizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import Protocol

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.errors import UsageError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.model.layer import Layer, Rejected, Survey
from autoquant.model.model import Model
from autoquant.targets.base import Target
from autoquant.tuning.study.choices import BYTES, MACS
from autoquant.tuning.study.trial import count_layers

MULTIPLY_ADDS = "multiply-adds"
PARAMETERS, LAYERS = "parameters", "layers"


FLOAT_BYTES, BIAS_BYTES, WIDE_BIAS_BYTES = 4, 4, 8
"""Bytes of a weight in float32, and of a bias, which is float32 or int32; beside INT16 activations it is int64."""
WIDE_WORTH = 0.5
"""What a multiply-add with INT16 activations is worth of one in INT8, where one in float is worth nothing."""


@dataclass(frozen=True)
class Workload:
    """All that a plan may name, and what it costs: multiply-adds for one sample; an operator's input costs nothing.

    `float_only` are operators that compute too and cannot be INT8, `others`, and `float_cost` is what they cost
    together. Where not all multiply-adds are known, parameters stand for them, and layers where there are none; `unit`
    says what.
    """

    layers: Mapping[str, Layer]
    costs: Mapping[str, int]
    unit: str
    float_only: int = 0
    float_cost: int = 0
    others: tuple[Rejected, ...] = ()

    @classmethod
    def of(cls, target: Target, model: Model, data: Dataset) -> Workload:
        """Look at a lowered model with the shapes of the data's first sample. Raises ModelError without any layer."""
        sample = next(data.batches(1))
        shapes = {name: array.shape for name, array in sample.inputs.items()}
        return cls.from_survey(target.survey(model, shapes))

    @classmethod
    def from_survey(cls, found: Survey) -> Workload:
        """What layers cost, and the operators that compute and cannot be INT8."""
        return cls.from_layers(found.by_name, [one for one in found.rejected if one.computes])

    @classmethod
    def from_layers(cls, layers: Mapping[str, Layer], others: Sequence[Rejected] = ()) -> Workload:
        """What these layers cost, and others that stay in float."""
        macs = {name: layer.macs for name, layer in layers.items() if layer.macs is not None}
        own = [one.macs for one in others if one.macs is not None]
        if len(macs) == len(layers) and len(own) == len(others) and any(macs.values()):
            costs, unit = macs, MULTIPLY_ADDS
        elif any(layer.parameters for layer in layers.values()):
            costs, unit = {name: layer.parameters for name, layer in layers.items()}, PARAMETERS
        else:
            costs, unit = {name: int(not layer.tensor_only) for name, layer in layers.items()}, LAYERS
        float_cost = sum(cost_of(one, unit) for one in others)
        return cls(layers, costs, unit, len(others), float_cost, tuple(others))

    @property
    def size(self) -> int:
        """Number of layers, those that cannot be INT8 included."""
        return count_layers(self.layers) + self.float_only

    @property
    def cost(self) -> int:
        """What the model costs."""
        return sum(self.costs.values()) + self.float_cost

    def int8_share(self, plan: Plan) -> float:
        """Share of the cost of the model that a plan puts into INT8, in [0, 1]."""
        return self._share(plan, 8)

    def int16_share(self, plan: Plan) -> float:
        """Share of the cost of the model that a plan puts into INT16 activations with INT8 weights, in [0, 1]."""
        return self._share(plan, 16)

    def _share(self, plan: Plan, bits: int) -> float:
        own = (self.costs[name] for name, settings in plan.int8.items() if settings.activation_bits == bits)
        return sum(own) / self.cost


def cost_of(other: Rejected, unit: str) -> int:
    """What an operator that cannot be INT8 costs, in this unit."""
    return {MULTIPLY_ADDS: other.macs or 0, PARAMETERS: other.parameters, LAYERS: 1}[unit]


class Objective(Protocol):
    """What is minimized. `lowest` is what no plan of the search can go below."""

    @property
    def name(self) -> str:
        """What `--objective` calls it."""
        ...

    @property
    def lowest(self) -> float:
        """No plan of the space has less; whether one has just that is not said."""
        ...

    def __call__(self, plan: Plan) -> float:
        """The value of a plan."""
        ...


@dataclass(frozen=True)
class Macs:
    """The share of multiply-adds left in float, as the workload counts them; half of those with INT16 activations.

    The Ethos-U does half as many a cycle of these (Arm, Ethos-U55 NPU Technical Reference Manual, 102420).

    `fullest` has all in INT8 that may be; None where a search must not end as soon as it has as little in float.
    """

    workload: Workload
    fullest: Plan | None
    name: str = MACS

    @property
    def lowest(self) -> float:
        """That of the fullest plan."""
        return -inf if self.fullest is None else self(self.fullest)

    def __call__(self, plan: Plan) -> float:
        """Of a plan."""
        return 1.0 - self.workload.int8_share(plan) - WIDE_WORTH * self.workload.int16_share(plan)


@dataclass(frozen=True)
class Bytes:
    """The bytes of all layers' weights and biases, relative to those in float; raises UsageError where there are none.

    A weight takes one byte in INT8, whatever bits it has, and four in float; a bias four, or eight beside INT16.
    """

    layers: Mapping[str, Layer]
    fullest: Plan
    name: str = BYTES

    def __post_init__(self) -> None:
        if not any(layer.parameters for layer in self.layers.values()):
            raise UsageError(f"--objective {BYTES}", "no layer of the model has a weight", hint=f"give {MACS}")

    @property
    def lowest(self) -> float:
        """That of the fullest plan."""
        return self(self.fullest)

    def __call__(self, plan: Plan) -> float:
        """Of a plan."""
        in_float = sum(_bytes(layer, FLOAT_BYTES, BIAS_BYTES) for layer in self.layers.values())
        planned = sum(_planned_bytes(layer, plan.int8.get(name)) for name, layer in self.layers.items())
        return planned / in_float


def _planned_bytes(layer: Layer, settings: LayerPlan | None) -> int:
    if settings is None:
        return _bytes(layer, FLOAT_BYTES, BIAS_BYTES)
    return _bytes(layer, 1, BIAS_BYTES if settings.activation_bits == 8 else WIDE_BIAS_BYTES)


def _bytes(layer: Layer, weight: int, bias: int) -> int:
    weights = prod(layer.weight_shape) if layer.weight else 0
    return weights * weight + (layer.parameters - weights) * bias
