"""Plans: which layers become INT8, and with which settings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from autoquant.calibration.ranges import Hfmg, Ifmr, MinMax, RangeAlgorithm
from autoquant.errors import AutoquantError, PlanError, did_you_mean
from autoquant.model.model import EVERYTHING, Fusion

if TYPE_CHECKING:  # which loads TensorFlow, and plans are read before that is waited for
    from autoquant.model.layer import Layer

ACTIVATION_BITS = (8, 16)
"""Bits of what a layer reads and makes; 16, beside weights of 8, on LiteRT's 16x8 kernels only."""
WEIGHT_BITS = (8, 7, 6)
"""Bits of a weight; fewer than 8 for Conv2D only, as AMCT has it."""
WEIGHT_ALGORITHMS = ("minmax", "mse", "octav")
"""Ways to the scale of a weight: the largest value, or a clip of least squared error, searched or as OCTAV iterates it.

OCTAV: Sakr et al., Optimal Clipping and Magnitude-aware Differentiation for Improved Quantization-aware Training, 2022.
"""
LEAST_STRENGTH, MOST_STRENGTH = 0.2, 0.8
ROUNDINGS = ("nearest", "gptq")
"""How weights are rounded: each to the nearest step, or one after the other, the error of each taken up by those that
are left, weighed by the layer's calibration inputs.

GPTQ: Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers, 2022
(arXiv:2210.17323); the rule is that of Optimal Brain Compression, Frantar and Alistarh, 2022 (arXiv:2208.11580).
"""
CORRECTIONS = ("none", "analytic", "empirical")
"""How biases make up for the mean error of quantization: not, from statistics, or from running the quantized layers."""


@dataclass(frozen=True)
class LayerPlan:
    """How one layer becomes INT8: the range of its input, offset or not, one weight scale per channel or in all.

    `dmq` is the migration strength, in [0.2, 0.8], with which the balancer moves unequal channels of the input into the
    weight; None leaves them. `weight_algorithm`, one of WEIGHT_ALGORITHMS, finds the scales of the weight. With
    `power_of_two` all scales are the next larger power of two, by which integers are shifted, not multiplied. Layers
    without a weight, and those that the target gives one scale, have `channel_wise` False. With `activation_bits` 16
    what the layer reads and makes has 16 bits and no offset, in twice the range that was seen of it, for the range
    algorithm matters no more.
    """

    activation: RangeAlgorithm = field(default_factory=Ifmr)
    asymmetric: bool = True
    channel_wise: bool = True
    weight_bits: int = 8
    dmq: float | None = None
    weight_algorithm: str = "minmax"
    power_of_two: bool = False
    activation_bits: int = 8

    def __post_init__(self) -> None:
        if self.activation_bits not in ACTIVATION_BITS:
            raise ValueError(f"num_bits of an activation must be 8 or 16, got {self.activation_bits}")
        if self.weight_algorithm not in WEIGHT_ALGORITHMS:
            known = ", ".join(WEIGHT_ALGORITHMS)
            raise ValueError(f"weight_algorithm must be one of {known}, got {self.weight_algorithm}")
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
    that to what carries the plan out. `equalize` makes channels of neighbouring layers alike before anything else
    is done; `weight_rounding`, one of ROUNDINGS, chooses the integers of weights; `bias_correction`, one of
    CORRECTIONS, moves biases by the mean error that is left; `training` changes scales of activations, roundings of
    weights and biases by gradients, towards what the FP32 model gives on calibration data. `float_operators` are
    the operators of a .tflite that stay in float though they are no layers, by the names of their results; None
    leaves the choice to whatever builds the plan.
    """

    layers: Mapping[str, LayerPlan | None]
    batch_num: int = 1
    fusion: Fusion = EVERYTHING
    fp16_scales: bool = False
    exact: bool | None = None
    equalize: bool = False
    weight_rounding: str = "nearest"
    bias_correction: str = "none"
    training: bool = False
    float_operators: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.batch_num < 1:
            raise ValueError(f"batch_num must be greater than zero, got {self.batch_num}")
        if self.bias_correction not in CORRECTIONS:
            known = ", ".join(CORRECTIONS)
            raise ValueError(f"bias_correction must be one of {known}, got {self.bias_correction}")
        if self.weight_rounding not in ROUNDINGS:
            known = ", ".join(ROUNDINGS)
            raise ValueError(f"weight_rounding must be one of {known}, got {self.weight_rounding}")
        kept = {name: settings for name, settings in self.layers.items() if settings is not None or ":" not in name}
        object.__setattr__(self, "layers", MappingProxyType(kept))

    @cached_property
    def int8(self) -> Mapping[str, LayerPlan]:
        """The layers that become INT8."""
        return MappingProxyType({name: settings for name, settings in self.layers.items() if settings is not None})

    @property
    def corrected(self) -> bool:
        """Whether its weights or biases depend on more of the calibration data than its record does."""
        return self.weight_rounding != "nearest" or self.bias_correction != "none" or self.training

    @property
    def repaired(self) -> bool:
        """Whether weights or biases are others than those that its record leads to."""
        return self.equalize or self.corrected

    @property
    def sketched(self) -> frozenset[str]:
        """INT8 layers whose range algorithm gains nothing from all values: they need not be kept, even if `exact`."""
        return frozenset(name for name, settings in self.int8.items() if isinstance(settings.activation, Hfmg | MinMax))


def layer_plan(layer: Layer, settings: LayerPlan = LayerPlan()) -> LayerPlan:
    """These settings, as far as the layer can have them."""
    weights = layer.can.weight_algorithms if layer.weight is not None else ()
    return replace(
        settings,
        asymmetric=settings.asymmetric and layer.can.asymmetric and not layer.symmetric_only,
        channel_wise=settings.channel_wise and layer.can.per_channel,
        weight_bits=settings.weight_bits if settings.weight_bits in layer.can.weight_bits else 8,
        dmq=settings.dmq if layer.can.balanceable else None,
        weight_algorithm=settings.weight_algorithm if settings.weight_algorithm in weights else "minmax",
        activation_bits=settings.activation_bits if settings.activation_bits in layer.can.activation_bits else 8,
        power_of_two=settings.power_of_two or layer.can.powers_only,
    )


@dataclass(frozen=True)
class Adaptation:
    """A plan that a target can carry out, and what was changed for that, in sentences that begin with a layer."""

    plan: Plan
    changes: tuple[str, ...]


def adapt_plan(plan: Plan, layers: Mapping[str, Layer]) -> Adaptation:
    """A plan made for another target, as far as one with these layers can carry it out.

    What the target does not quantize is left in float, or out of the plan; settings that a layer cannot have become
    those that `layer_plan` gives, which layers that may not stay in float have as well. Raises PlanError where nothing
    is left to quantize.
    """
    plans: dict[str, LayerPlan | None] = {name: None for name in plan.layers if name in layers}
    changes: list[str] = []
    for name, settings in plan.int8.items():
        if name in layers:
            plans[name] = layer_plan(layers[name], settings)
            changes += [f"{name}: {limit.change}" for limit in _limits(layers[name], settings)]
        else:
            changes.append(f"{name}: in float, as this target does not quantize it")
    for name, layer in layers.items():
        if not layer.can.in_float and plans.get(name) is None:
            plans[name] = layer_plan(layer)
            changes.append(f"{name}: in INT8, as {layer.can.no_float_by} leaves nothing in float")
    adapted = replace(plan, layers=plans, float_operators=None)
    check_plan(adapted, layers)
    return Adaptation(adapted, tuple(changes))


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
            raise PlanError(name, "is not a quantizable layer of this model", hint=hint)
        for limit in _limits(layers[name], settings):
            raise PlanError(name, limit.what, hint=limit.hint)
    if both := two_inputs(layers[name] for name in plan.int8):
        what = f"'{both[0]}' of the same operator is quantized already"
        raise PlanError(both[1], what, hint="only one input of an operator can be: remove one of the two")


def check_left_in_float(plan: Plan, layers: Mapping[str, Layer]) -> None:
    """Raise PlanError where a plan leaves in float what must be INT8 in a file that is used."""
    for name, layer in layers.items():
        if layer.can.in_float:
            continue
        hint = f"quantize it, or leave out {layer.can.no_float_by}"
        if name not in plan.int8:
            raise PlanError(name, f"stays in float, but {layer.can.no_float_by} leaves nothing in float", hint=hint)
        for operator in sorted(plan.float_operators or ()):
            what = f"'{operator}' stays in float, but {layer.can.no_float_by} leaves nothing in float"
            raise PlanError("float_operators", what, hint=f"remove it, or leave out {layer.can.no_float_by}")


class _Limit(NamedTuple):
    """A setting that a layer cannot have: the change to one it can have, the reason, and the way out."""

    change: str
    what: str
    hint: str


def _limits(layer: Layer, asked: LayerPlan) -> Iterator[_Limit]:
    """The settings of a plan that the layer cannot have."""
    possible = layer_plan(layer, asked)
    there = f" on profile {layer.can.profile}" if layer.can.profile else ""
    if asked.channel_wise != possible.channel_wise:
        what = f"channel_wise must be false for layer type {layer.op}{there}"
        yield _Limit("one scale for its weight, not one per channel", what, "set it to false")
    if asked.asymmetric != possible.asymmetric:
        why = ": both of its factors are activations" if layer.symmetric_only else there
        yield _Limit("symmetric, without an offset", f"asymmetric must be false{why}", "set it to false")
    if asked.power_of_two != possible.power_of_two:
        what = f"power_of_two must name it: all scales are powers of two{there}"
        yield _Limit("scales of powers of two", what, "add it to power_of_two, the list of layers")
    if asked.weight_bits != possible.weight_bits:
        other = f"are for Conv2D only, not for layer type {layer.op}"
        whose = "are not possible on this target" if layer.op == "Conv2D" else other
        change = f"weights of {possible.weight_bits} bits, not {asked.weight_bits}"
        yield _Limit(change, f"weights of {asked.weight_bits} bits {whose}", "set num_bits to 8")
    if asked.activation_bits != possible.activation_bits:
        change = f"activations of 8 bits, not {asked.activation_bits}"
        what = f"activations of {asked.activation_bits} bits are not possible for layer type {layer.op} on this target"
        yield _Limit(change, what, "set num_bits of its activation to 8, or leave it in float")
    if asked.weight_algorithm != possible.weight_algorithm:
        change = f"weights by {possible.weight_algorithm}, not {asked.weight_algorithm}"
        what = f"weights by {asked.weight_algorithm} are not possible for layer type {layer.op} on this target"
        yield _Limit(change, what, "set wts_algo to arq_quantize")
    if asked.dmq != possible.dmq:
        change = f"not balanced, instead of dmq {asked.dmq}"
        yield _Limit(change, _why_unbalanced(layer), "remove dmq_balancer_param")


def _why_unbalanced(layer: Layer) -> str:
    if layer.weight is None:
        return f"layer type {layer.op} has no weight to balance"
    if layer.groups > 1:
        return "a convolution with groups of channels cannot be balanced"
    return "it cannot be balanced on this target"


def two_inputs(layers: Iterable[Layer]) -> tuple[str, str] | None:
    """The first two of these that are inputs of one operator, of which AMCT quantizes only one; None where none are."""
    seen: dict[str, str] = {}
    for layer in layers:
        if layer.tensor_only and seen.setdefault(layer.node, layer.name) != layer.name:
            return seen[layer.node], layer.name
    return None


def layer_at_fault(error: AutoquantError, plan: Plan) -> str:
    """The INT8 layer of a plan that an error names, by itself or by its second activation; empty without one."""
    return next((name for name in (error.where, error.where.rpartition(":")[0]) if name in plan.int8), "")
