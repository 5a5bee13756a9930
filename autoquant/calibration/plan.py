"""What shall be done: which layers become INT8, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from autoquant.calibration.ranges import Ifmr, RangeAlgorithm
from autoquant.errors import PlanError, did_you_mean
from autoquant.model.layers import Layer

PER_TENSOR_ONLY = frozenset({"MatMul"})
"""Operators whose weights have one scale (AMCT refuses `channel_wise` for them)."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """How one layer becomes INT8: the range of its input, offset or not, one weight scale per channel or in all."""

    activation: RangeAlgorithm = field(default_factory=Ifmr)
    asymmetric: bool = True
    channel_wise: bool = True


@dataclass(frozen=True)
class Plan:
    """Every layer with its settings, or None where it stays in float; ranges come from `batch_num` batches."""

    layers: Mapping[str, LayerPlan | None]
    batch_num: int = 1

    def __post_init__(self) -> None:
        if self.batch_num < 1:
            raise ValueError(f"batch_num must be greater than zero, got {self.batch_num}")
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))

    @property
    def int8(self) -> Mapping[str, LayerPlan]:
        """The layers that become INT8."""
        return {name: settings for name, settings in self.layers.items() if settings is not None}


def check_plan(plan: Plan, layers: Mapping[str, Layer]) -> None:
    """Raise PlanError where a model with these layers cannot follow the plan."""
    if not plan.int8:
        raise PlanError("plan", "no layer is to be quantized", hint="switch at least one layer on")
    if not set(plan.layers) & set(layers):
        hint = "is it the config of another model? `autoquant inspect` lists the layers"
        raise PlanError("plan", "none of its layers is a quantizable layer of this model", hint=hint)
    for name, settings in plan.int8.items():
        if name not in layers:
            hint = did_you_mean(name, layers, otherwise="`autoquant inspect` lists the layers")
            raise PlanError(name, "is no quantizable layer of this model", hint=hint)
        if settings.channel_wise and layers[name].op in PER_TENSOR_ONLY:
            raise PlanError(
                name, f"channel_wise must be false for layer type {layers[name].op}", hint="set it to false"
            )
