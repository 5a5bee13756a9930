"""Scales of everything in INT8 in a .tflite under a plan: of data, by the settings of layers nearby, and of weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.scales import MASKED, Scales
from autoquant.calibration.statistics import Statistics
from autoquant.errors import IN_FLOAT, TrialError
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import known_constant
from autoquant.quantization.affine import Affine, powers_of_two
from autoquant.targets.litert_balance import Balance, balance_layers
from autoquant.targets.litert_finder import LayerFinder
from autoquant.targets.litert_operators import FIXED_SCALES, FIXED_WIDE, data_near
from autoquant.targets.litert_weights import raised_for_bias, scales_of

COARSEST = 256.0
"""Steps of a layer's result that one of its products must be worth less of: XNNPACK refuses the model otherwise."""
CHOICES = frozenset({"SELECT", "SELECT_V2"})
"""Operators that mask scores of attention as Keras does."""
NONE_GIVEN: Mapping[str, Affine] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LiteScales:
    """Scales by name of the tensor, of data in INT8, of data in INT16 and of weights, after balancing."""

    activations: Mapping[str, Affine]
    wide: Mapping[str, Affine]
    weights: Mapping[str, Array]
    balance: Balance


@dataclass(frozen=True, slots=True)
class SharedScale:
    """Scale and offset of a tensor in INT8, and the name of the tensor that it has them of, often itself."""

    source: str
    affine: Affine


@dataclass(frozen=True, slots=True)
class TensorBetween:
    """A tensor, by index, that is INT8 though no layer reads it; `affine` is None where it has no scale.

    `layer` is the layer that makes it, '' where none does. `operators` are those besides layers that read or make it,
    or what keeps its scale, by the names of their results: left in float, they leave it in float.
    """

    tensor: int
    affine: Affine | None
    layer: str
    operators: tuple[str, ...]


class LiteCalibrator:
    """Turns plans into scales from statistics; whatever plans share is computed once.

    Masked scores of attention, which have no scale by themselves, have that of the others.
    """

    def __init__(self, lite: LiteGraph, layers: Mapping[str, Layer], statistics: Statistics) -> None:
        self._lite = lite
        self._layers = layers
        self._scales = Scales(statistics)
        self._of_weights: dict[tuple[str, bool, str, bool], Array] = {}

    def balance(self, plan: Plan) -> Balance:
        """The changes by balancing. Raises as `balance_layers`."""
        return balance_layers(self._lite, self._layers, plan, self._scales)

    def scales(
        self, plan: Plan, operators: Mapping[int, int], io: str, given: Mapping[str, Affine] = NONE_GIVEN
    ) -> LiteScales:
        """Scales for integer operators, by index with the bits of their activations, and for ends of type `io`.

        Some of data in INT8 may be `given`. Raises PlanError where the statistics lack a tensor, TrialError where a
        tensor has no scale, a weight or bias holds NaN or infinity, or the steps of an input are too coarse for the
        output.
        """
        balance = self.balance(plan)
        shared = self._shared_scales(plan, operators, io, balance)
        activations = {name: given.get(one.source, one.affine) for name, one in shared.items()}
        wide, weights = self._wide_scales(plan, operators, balance), {}
        for name, settings in plan.int8.items():
            layer, steps = self._layers[name], _steps(activations, wide, settings)
            if layer.weight is not None:
                scales = self._weight_scales(layer, settings, balance.constants)
                bias = balance.constants.get(layer.bias, self._lite.constant(layer.bias)) if layer.bias else None
                raised = raised_for_bias(layer, scales, bias, steps[layer.activations[0]])
                weights[layer.weight] = powers_of_two(raised) if settings.power_of_two else raised
            self._check_products(layer, steps, weights)
        return LiteScales(activations, wide, weights, balance)

    def _check_products(self, layer: Layer, steps: Mapping[str, float], weights: Mapping[str, Array]) -> None:
        """Raise TrialError where a step of a product is worth more steps of the result than a kernel takes."""
        (result, *_) = self._lite.operators[self._lite.layers[layer.name]].outputs
        largest = 1.0 if layer.weight is None else float(weights[layer.weight].max())
        step = math.prod(steps[tensor] for tensor in layer.activations) * largest
        worth = step / steps[self._lite.name_of(result)]
        if worth >= COARSEST:
            what = f"one step of its input is worth {worth:.4g} of its output, and LiteRT's kernels take less than 256"
            raise TrialError(layer.name, what, hint=IN_FLOAT)

    def shared_scales(self, plan: Plan, operators: Mapping[int, int], io: str) -> Mapping[str, SharedScale]:
        """Scale and offset of each tensor that is to be INT8, by name. Raises as `scales`."""
        return self._shared_scales(plan, operators, io, self.balance(plan))

    def _shared_scales(
        self, plan: Plan, operators: Mapping[int, int], io: str, balance: Balance
    ) -> Mapping[str, SharedScale]:
        """The same; tensors that must have one scale have it of one of them."""
        int8 = _of_bits(operators, 8)
        finder = LayerFinder(self._lite, plan, int8)
        found: dict[int, SharedScale] = {}
        for tensor in data_near(self._lite, int8, io):
            source = finder.source(tensor)
            if source not in found:
                found[source] = SharedScale(self._lite.name_of(source), self._affine(source, plan, finder, balance))
            found[tensor] = found[source]
        return {self._lite.name_of(tensor): shared for tensor, shared in found.items()}

    def _wide_scales(self, plan: Plan, operators: Mapping[int, int], balance: Balance) -> Mapping[str, Affine]:
        """The scale of each tensor that is to be INT16, by name."""
        wide, found = _of_bits(operators, 16), dict[int, Affine]()
        finder = LayerFinder(self._lite, plan, wide)
        for tensor in data_near(self._lite, wide, "float32"):
            source = finder.source(tensor)
            if source not in found:
                maker = self._lite.makers.get(source, -1)
                fixed = maker in wide and self._lite.kind(maker) in FIXED_SCALES
                found[source] = FIXED_WIDE if fixed else self._affine(source, plan, finder, balance, bits=16)
            found[tensor] = found[source]
        return {self._lite.name_of(tensor): affine for tensor, affine in found.items()}

    def _affine(self, tensor: int, plan: Plan, finder: LayerFinder, balance: Balance, *, bits: int = 8) -> Affine:
        """Scale and offset of a tensor that keeps that of no other."""
        name = self._lite.name_of(tensor)
        settings = replace(plan.int8[finder.layer(tensor)], activation_bits=bits)
        axis, factors = balance.divided.get(name, (-1, ()))
        where, what = finder.owner(tensor)
        masked = self._is_masked(tensor)
        return self._scales.affine(
            where, name, settings, plan.batch_num, axis=axis, factors=factors, masked=masked, what=what
        )

    def _is_masked(self, tensor: int) -> bool:
        """Whether a tensor has what a mask chooses of it, and a constant that means no weight elsewhere."""
        maker = self._lite.makers.get(tensor)
        if maker is None or self._lite.kind(maker) not in CHOICES:
            return False
        constants = (self._lite.value_of(int(index)) for index in self._lite.operators[maker].inputs)
        real = (value for value in constants if value is not None and value.dtype == np.float32)
        return any(value.size and float(value.max()) <= MASKED for value in real)

    def between(self, plan: Plan, operators: Mapping[int, int], io: str) -> tuple[TensorBetween, ...]:
        """The tensors that are INT8 under a plan with these operators, and that no INT8 layer reads; in order of index.

        Of several with one scale the first. Raises PlanError where the statistics lack one.
        """
        int8 = _of_bits(operators, 8)
        finder, balance = LayerFinder(self._lite, plan, int8), self.balance(plan)
        near: dict[int, list[int]] = {}
        for tensor in data_near(self._lite, int8, io):
            near.setdefault(finder.source(tensor), []).append(tensor)
        layers = [name for name, settings in plan.int8.items() if settings.activation_bits == 8]
        read = {self._lite.tensors[name] for layer in layers for name in self._layers[layer].activations}
        return tuple(
            self._between(source, same, plan, finder, balance) for source, same in near.items() if read.isdisjoint(same)
        )

    def _between(
        self, source: int, same: Collection[int], plan: Plan, finder: LayerFinder, balance: Balance
    ) -> TensorBetween:
        maker = self._lite.makers.get(source)
        affine = None if maker is None else FIXED_SCALES.get(self._lite.kind(maker))
        if affine is None:
            with suppress(TrialError):  # which means that there is none
                affine = self._affine(source, plan, finder, balance)
        return TensorBetween(source, affine, finder.maker(source), finder.operators_with(same))

    def _weight_scales(self, layer: Layer, settings: LayerPlan, changed: Mapping[str, Array]) -> Array:
        """Scales of a layer's weight, which is among the `changed` constants where it is balanced."""
        assert layer.weight is not None, layer.name
        if layer.weight in changed:
            return scales_of(layer, changed[layer.weight], self._lite, settings)
        key = layer.name, settings.channel_wise, settings.weight_algorithm, settings.power_of_two
        if key not in self._of_weights:
            weight = known_constant(self._lite, layer.weight)
            self._of_weights[key] = scales_of(layer, weight, self._lite, settings)
        return self._of_weights[key]


def _of_bits(operators: Mapping[int, int], bits: int) -> Collection[int]:
    """The operators whose activations have so many bits."""
    return [index for index, own in operators.items() if own == bits]


def _steps(activations: Mapping[str, Affine], wide: Mapping[str, Affine], settings: LayerPlan) -> Mapping[str, float]:
    """The scale of each tensor for a layer with these settings, by name."""
    own = wide if settings.activation_bits == 16 else activations
    return {name: affine.scale for name, affine in own.items()}
