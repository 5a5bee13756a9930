"""Scales of everything in INT8 in a .tflite under a plan: of data, by the settings of layers nearby, and of weights."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.scales import Scales
from autoquant.calibration.statistics import Statistics
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import known_constant
from autoquant.quantization.affine import Affine
from autoquant.targets.litert_balance import Balance, balance_layers
from autoquant.targets.litert_library import operator_weight_scales, row_scales
from autoquant.targets.litert_operators import data_near, data_of, scale_keepers

LEAST = 1e-11
"""Weights with a smaller scale are all 0. LiteRT Quantizer has its own limit for that, just below."""
BIAS_STEPS = 2.0**30
"""Steps that a bias, INT32, may have: half of what there are, for the sums that are added."""


@dataclass(frozen=True, slots=True)
class LiteScales:
    """Scales by name of the tensor, of data and of weights, after balancing."""

    activations: Mapping[str, Affine]
    weights: Mapping[str, Array]
    balance: Balance


class LiteCalibrator:
    """Turns plans into scales from statistics; whatever plans share is computed once."""

    def __init__(self, lite: LiteGraph, layers: Mapping[str, Layer], statistics: Statistics) -> None:
        self._lite = lite
        self._layers = layers
        self._scales = Scales(statistics)
        self._of_weights: dict[tuple[str, bool, str], Array] = {}

    def balance(self, plan: Plan) -> Balance:
        """The changes by balancing. Raises as `balance_layers`."""
        return balance_layers(self._lite, self._layers, plan, self._scales)

    def scales(self, plan: Plan, int8: Collection[int], io: str) -> LiteScales:
        """Scales for INT8 operators, by index, and inputs and outputs of type `io`.

        Raises PlanError where the statistics lack a tensor, TrialError where a tensor has no scale, or a weight or bias
        holds NaN or infinity.
        """
        balance = self.balance(plan)
        activations = self._activations(plan, int8, io, balance)
        weights = {}
        for name, settings in plan.int8.items():
            layer = self._layers[name]
            if layer.weight is not None:
                scales = self._weight_scales(layer, settings, balance.constants)
                bias = balance.constants.get(layer.bias, self._lite.constant(layer.bias)) if layer.bias else None
                weights[layer.weight] = raised_for_bias(layer, scales, bias, activations[layer.activations[0]].scale)
        return LiteScales(activations, weights, balance)

    def _activations(self, plan: Plan, int8: Collection[int], io: str, balance: Balance) -> Mapping[str, Affine]:
        """Scale and offset of each tensor that is to be INT8; tensors that must have the same have the same."""
        finder = LayerFinder(self._lite, plan, int8)
        found: dict[int, Affine] = {}
        for tensor in data_near(self._lite, int8, io):
            source = finder.source(tensor)
            if source not in found:
                name, settings = self._lite.name_of(source), plan.int8[finder.layer(source)]
                axis, factors = balance.divided.get(name, (-1, ()))
                found[source] = self._scales.affine(name, name, settings, plan.batch_num, axis=axis, factors=factors)
            found[tensor] = found[source]
        return {self._lite.name_of(tensor): affine for tensor, affine in found.items()}

    def _weight_scales(self, layer: Layer, settings: LayerPlan, changed: Mapping[str, Array]) -> Array:
        """Scales of a layer's weight, which is among the `changed` constants where it is balanced."""
        assert layer.weight is not None, layer.name
        if layer.weight in changed:
            return scales_of(layer, changed[layer.weight], self._lite, settings)
        key = layer.name, settings.channel_wise, settings.weight_algorithm
        if key not in self._of_weights:
            weight = known_constant(self._lite, layer.weight)
            self._of_weights[key] = scales_of(layer, weight, self._lite, settings)
        return self._of_weights[key]


class LayerFinder:
    """Finds the layer whose settings hold for a tensor."""

    def __init__(self, lite: LiteGraph, plan: Plan, int8: Collection[int]) -> None:
        self._lite = lite
        self._keeping = scale_keepers(lite) & frozenset(int8)
        self._layers = {lite.layers[name]: name for name in plan.int8}

    def source(self, tensor: int) -> int:
        """The tensor that has the scale of this one because INT8 operators between them keep it; often itself."""
        while (maker := self._lite.makers.get(tensor)) in self._keeping:
            (tensor,) = data_of(self._lite, self._lite.operators[maker].inputs)
        return tensor

    def layer(self, tensor: int) -> str:
        """The first INT8 layer that reads a tensor, directly or through INT8 operators that keep its scale.

        Else the last one before it, whatever is between; else the first one behind it; else the first one of all.
        """
        made = [self._lite.makers[tensor]] if tensor in self._lite.makers else []
        return (
            self._first(self._readers(tensor), self._behind, through=self._keeping)
            or self._first(made, self._before, sign=-1)
            or self._first(self._readers(tensor), self._behind)
            or self._layers[min(self._layers)]
        )

    def _first(
        self,
        start: Iterable[int],
        following: Callable[[int], Iterable[int]],
        *,
        sign: int = 1,
        through: Collection[int] | None = None,
    ) -> str | None:
        """The INT8 layer that comes first (last where `sign` is -1) among operators and those that follow them.

        Those behind an operator have a higher index. `through` are the operators that are passed; None is all.
        """
        found = set(start)
        waiting = [sign * operator for operator in found]
        heapify(waiting)
        while waiting:
            operator = sign * heappop(waiting)
            if operator in self._layers:
                return self._layers[operator]
            if through is None or operator in through:
                new = set(following(operator)) - found
                found |= new
                for one in new:
                    heappush(waiting, sign * one)
        return None

    def _readers(self, tensor: int) -> tuple[int, ...]:
        return self._lite.readers.get(tensor, ())

    def _behind(self, operator: int) -> list[int]:
        results = self._lite.operators[operator].outputs
        return [reader for result in results for reader in self._readers(int(result))]

    def _before(self, operator: int) -> list[int]:
        data = data_of(self._lite, self._lite.operators[operator].inputs)
        return [self._lite.makers[tensor] for tensor in data if tensor in self._lite.makers]


def scales_of(layer: Layer, weight: Array, lite: LiteGraph, settings: LayerPlan) -> Array:
    """Scales of a layer's weight as LiteRT Quantizer chooses them: float64 that float32 holds, of the weight's rank.

    Shape is 1 but for the output channels, where each has its own. Channels that are all 0 get the largest scale of the
    others, or 1. Raises TrialError where the weight holds NaN or infinity.
    """
    if not np.isfinite(weight).all():
        hint = "repair the model, or leave the layer in float"
        raise TrialError(layer.name, "its weights hold NaN or infinity", hint=hint)
    op = lite.operators[lite.layers[layer.name]]
    algorithm, channel_wise = settings.weight_algorithm, settings.channel_wise
    found = operator_weight_scales(lite.model, op, weight, algorithm, channel_wise=channel_wise)
    scales = found.astype(np.float64).reshape(_shape(layer, weight, settings))
    alive = scales > LEAST  # NaN fails too
    return np.where(alive, scales, scales[alive].max() if alive.any() else 1.0)


def clipped_scales(rows: Array, algorithm: str) -> Array:
    """The scale of each row of a weight, (channels, values), by the same algorithms, (channels,) float32.

    Rows that are all 0 get 1.
    """
    scales = row_scales(rows, algorithm)
    return np.where(scales > LEAST, scales, np.float32(1.0))


def raised_for_bias(layer: Layer, scales: Array, bias: Array | None, scale_d: float) -> Array:
    """The scales, raised where the bias would have more than BIAS_STEPS steps of scale_d times them.

    That takes weights 2^30 times as small as the bias, which it makes no difference to round. Shape as it was. Raises
    TrialError where the bias holds NaN or infinity.
    """
    if bias is None:
        return scales
    if not np.isfinite(bias).all():
        raise TrialError(layer.name, "its bias holds NaN or infinity", hint="repair the model, or leave it in float")
    least = np.abs(bias.astype(np.float64)) / (scale_d * BIAS_STEPS)
    least = least.reshape(scales.shape) if scales.size == least.size else least.max()
    return np.asarray(np.maximum(scales, least), np.float32).astype(np.float64)


def _shape(layer: Layer, weight: Array, settings: LayerPlan) -> tuple[int, ...]:
    axes = layer.channel_axes if settings.channel_wise else ()
    return tuple(size if axis in axes else 1 for axis, size in enumerate(weight.shape))
