"""Balanced layers in a .tflite: factors go from output channels of one layer into input channels of the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Factors, factors_of
from autoquant.calibration.seen import Seen
from autoquant.calibration.statistics import Statistics
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.balance import balance_source
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS, Kind
from autoquant.quantization.affine import Array
from autoquant.targets.litert_operators import data_of


@dataclass(frozen=True, slots=True)
class Balance:
    """What balancing changes: factors by layer, constants of floats and what is then seen of tensors by name.

    With the constants the float model computes what it did, up to rounding.
    """

    factors: Mapping[str, Factors]
    constants: Mapping[str, Array]
    seen: Mapping[str, tuple[Seen, Factors]]


class Balancer:
    """Balances layers as plans want it; what two plans have in common is computed once."""

    def __init__(self, lite: LiteGraph, layers: Mapping[str, Layer], statistics: Statistics) -> None:
        self._lite = lite
        self._layers = layers
        self._statistics = statistics
        self._factors: dict[tuple[str, int, float], Factors] = {}
        self._seen: dict[tuple[str, int, Factors], Seen] = {}

    def balance(self, plan: Plan) -> Balance:
        """What the plan changes.

        Raises PlanError where the channels of a layer were not calibrated, TrialError where a weight would exceed
        float32.
        """
        factors: dict[str, Factors] = {}
        constants: dict[str, Array] = {}
        seen: dict[str, tuple[Seen, Factors]] = {}
        for name, layer in self._layers.items():  # in graph order, whatever the order of the plan: products are rounded
            settings = plan.layers.get(name)
            if settings is None or settings.dmq is None:
                continue
            factors[name] = self._factors_of(layer, plan.batch_num, settings.dmq)
            for tensor in layer.rescaled:
                seen[tensor] = self._divided(tensor, layer.data_axis, plan.batch_num, factors[name]), factors[name]
            for tensor, axis, scale in self._changes(layer, np.array(factors[name])):
                constants[tensor] = _times(constants.get(tensor, self._constant(tensor)), axis, scale)
        for tensor, value in constants.items():
            if not np.isfinite(value).all():
                hint = "remove dmq_balancer_param of the layer that it belongs to, or of the one behind that"
                raise TrialError(tensor, "balanced, it is beyond float32", hint=hint)
        return Balance(factors, constants, seen)

    def _factors_of(self, layer: Layer, batch_num: int, strength: float) -> Factors:
        key = layer.name, batch_num, strength
        if key not in self._factors:
            assert layer.weight is not None, layer.name
            kind = _kind(self._lite, self._lite.layers[layer.name])
            channels = self._statistics.channels(layer.activations[0], layer.data_axis, batch_num)
            weights = _input_maxima(kind, self._constant(layer.weight), len(channels.each))
            self._factors[key] = factors_of(layer.name, channels, weights, strength)
        return self._factors[key]

    def _divided(self, tensor: str, axis: int, batch_num: int, factors: Factors) -> Seen:
        key = tensor, batch_num, factors
        if key not in self._seen:
            self._seen[key] = self._statistics.channels(tensor, axis, batch_num).divided(np.array(factors))
        return self._seen[key]

    def _changes(self, layer: Layer, factors: Array) -> Iterator[tuple[str, int, Array]]:
        """Which constants are multiplied, along which axis, by what: the layer's weight, and all of its source."""
        operator = self._lite.layers[layer.name]
        source = balance_source(self._lite, operator)
        assert source is not None and layer.weight is not None, layer.name
        yield layer.weight, _kind(self._lite, operator).input_axis, factors
        made_by, inputs = _kind(self._lite, source), self._lite.subgraph.operators[source].inputs
        assert made_by.weight is not None, layer.name
        yield self._name(inputs[made_by.weight]), made_by.output_axis, 1.0 / factors
        if made_by.bias is not None and made_by.bias < len(inputs) and inputs[made_by.bias] >= 0:
            yield self._name(inputs[made_by.bias]), 0, 1.0 / factors

    def _constant(self, name: str) -> Array:
        value = self._lite.constant(name)
        assert value is not None, name
        return value

    def _name(self, tensor: int) -> str:
        return flatbuffer.tensor_name(self._lite.subgraph.tensors[tensor])


def between(lite: LiteGraph, operator: int) -> tuple[str, ...]:
    """The tensors before the data of a layer that has a source, up to what that makes, nearest first."""
    source = balance_source(lite, operator)
    tensor = int(lite.subgraph.operators[operator].inputs[_kind(lite, operator).data])
    names = []
    while lite.makers[tensor] != source:
        (tensor,) = data_of(lite, lite.subgraph.operators[lite.makers[tensor]].inputs)
        names.append(flatbuffer.tensor_name(lite.subgraph.tensors[tensor]))
    return tuple(names)


def _kind(lite: LiteGraph, operator: int) -> Kind:
    return KINDS[flatbuffer.op_name(lite.model, lite.subgraph.operators[operator])]


def _input_maxima(kind: Kind, weight: Array, channels: int) -> Array:
    """The largest absolute value of each input channel; of a depthwise convolution over the outputs of each."""
    largest = np.abs(np.moveaxis(weight, kind.input_axis, -1)).reshape(-1, weight.shape[kind.input_axis]).max(axis=0)
    whole = kind.op == "DepthwiseConv2dNative" and len(largest) % channels == 0
    return np.asarray(largest.reshape(channels, -1).max(axis=1) if whole else largest)


def _times(value: Array, axis: int, factors: Array) -> Array:
    """A constant times one factor for each place along an axis, or for each run of places, float32."""
    spread = np.repeat(factors, value.shape[axis] // len(factors))
    shape = [-1 if number == axis % value.ndim else 1 for number in range(value.ndim)]
    with np.errstate(over="ignore"):
        return np.asarray(value.astype(np.float64) * spread.reshape(shape), np.float32)
