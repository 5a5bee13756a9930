"""What shall be done: which layers become INT8, and with which settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from autoquant.calibration.ranges import Hfmg, Ifmr, MinMax, RangeAlgorithm
from autoquant.errors import PlanError, did_you_mean
from autoquant.model.fusion import EVERYTHING, Fusion

if TYPE_CHECKING:  # which loads TensorFlow, and plans are read before that is waited for
    from autoquant.model.layers import Layer

WEIGHT_BITS = (8, 7, 6)
"""Bits of a weight; fewer than 8 for Conv2D only, as AMCT has it."""
LEAST_STRENGTH, MOST_STRENGTH = 0.2, 0.8


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """How one layer becomes INT8: the range of its input, offset or not, one weight scale per channel or in all.

    `dmq` is the migration strength, in [0.2, 0.8], with which the balancer moves unequal channels of the input into the
    weight; None leaves them. Layers without a weight, and those that AMCT gives one scale, have `channel_wise` False.
    """

    activation: RangeAlgorithm = field(default_factory=Ifmr)
    asymmetric: bool = True
    channel_wise: bool = True
    weight_bits: int = 8
    dmq: float | None = None

    def __post_init__(self) -> None:
        if self.weight_bits not in WEIGHT_BITS:
            raise ValueError(f"num_bits of a weight must be 8, 7 or 6, got {self.weight_bits}")
        if self.dmq is not None and not LEAST_STRENGTH <= self.dmq <= MOST_STRENGTH:  # NaN fails too
            raise ValueError(f"dmq_balancer_param must be in [{LEAST_STRENGTH}, {MOST_STRENGTH}], got {self.dmq}")


@dataclass(frozen=True)
class Plan:
    """Every layer with its settings, or None where it stays in float; ranges come from `batch_num` batches.

    Inputs of operators, `<operator>:<index>`, are there only where they are quantized.
    `fusion` is how the model must have been opened. `fp16_scales` rounds activation scales to float16 (AMCT's
    FORCE_FP16_QUANT). `exact` says whether to calibrate on all values, kept in memory, or on sketches; None leaves
    that to what carries the plan out.
    """

    layers: Mapping[str, LayerPlan | None]
    batch_num: int = 1
    fusion: Fusion = EVERYTHING
    fp16_scales: bool = False
    exact: bool | None = None

    def __post_init__(self) -> None:
        if self.batch_num < 1:
            raise ValueError(f"batch_num must be greater than zero, got {self.batch_num}")
        kept = {name: settings for name, settings in self.layers.items() if settings is not None or ":" not in name}
        object.__setattr__(self, "layers", MappingProxyType(kept))

    @property
    def int8(self) -> Mapping[str, LayerPlan]:
        """The layers that become INT8."""
        return {name: settings for name, settings in self.layers.items() if settings is not None}

    @property
    def sketched(self) -> frozenset[str]:
        """INT8 layers whose range algorithm gains nothing from all values: they need not be kept, even if `exact`."""
        return frozenset(name for name, settings in self.int8.items() if isinstance(settings.activation, Hfmg | MinMax))


def layer_plan(
    layer: Layer,
    activation: RangeAlgorithm | None = None,
    *,
    asymmetric: bool = True,
    channel_wise: bool = True,
    weight_bits: int = 8,
    dmq: float | None = None,
) -> LayerPlan:
    """The settings asked for, as far as the layer can have them."""
    return LayerPlan(
        activation or Ifmr(),
        asymmetric=asymmetric and not layer.symmetric_only,
        channel_wise=channel_wise and layer.per_channel,
        weight_bits=weight_bits if layer.op == "Conv2D" else 8,
        dmq=dmq if layer.balanceable else None,
    )


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
        _check_layer(layers[name], settings)
    if both := two_inputs(layers[name] for name in plan.int8):
        what = f"'{both[0]}' of the same operator is quantized already"
        raise PlanError(both[1], what, hint="only one input of an operator can be: remove one of the two")


def _check_layer(layer: Layer, settings: LayerPlan) -> None:
    """Raise PlanError where a layer of this kind cannot have these settings."""
    possible = layer_plan(
        layer,
        settings.activation,
        asymmetric=settings.asymmetric,
        channel_wise=settings.channel_wise,
        weight_bits=settings.weight_bits,
        dmq=settings.dmq,
    )
    if settings.channel_wise != possible.channel_wise:
        raise PlanError(layer.name, f"channel_wise must be false for layer type {layer.op}", hint="set it to false")
    if settings.asymmetric != possible.asymmetric:
        what = "asymmetric must be false: both of its factors are activations"
        raise PlanError(layer.name, what, hint="set it to false")
    if settings.weight_bits != possible.weight_bits:
        what = f"weights of {settings.weight_bits} bits are for Conv2D only, not for layer type {layer.op}"
        raise PlanError(layer.name, what, hint="set num_bits to 8")
    if settings.dmq != possible.dmq:
        no_weight = f"layer type {layer.op} has no weight to balance"
        what = "a convolution with groups of channels cannot be balanced" if layer.weight else no_weight
        raise PlanError(layer.name, what, hint="remove dmq_balancer_param")


def two_inputs(layers: Iterable[Layer]) -> tuple[str, str] | None:
    """The first two of these that are inputs of one operator, of which AMCT quantizes only one; None where none are."""
    seen: dict[str, str] = {}
    for layer in layers:
        if layer.tensor_only and seen.setdefault(layer.node, layer.name) != layer.name:
            return seen[layer.node], layer.name
    return None
