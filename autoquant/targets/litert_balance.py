"""Balanced layers in a .tflite: factors go from output channels of one layer into input channels of the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import Plan
from autoquant.calibration.scales import Factors, Scales
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.model.litert.balance import balance_way
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.model.model import known_constant


@dataclass(frozen=True, slots=True)
class Balance:
    """The changes by balancing: factors by layer, float constants by name, and tensors whose channels are divided.

    `divided` gives for each such tensor the axis of its channels and their factors. With the constants the float model
    computes what it did, up to rounding.
    """

    factors: Mapping[str, Factors]
    constants: Mapping[str, Array]
    divided: Mapping[str, tuple[int, Factors]]


def balance_layers(lite: LiteGraph, layers: Mapping[str, Layer], plan: Plan, scales: Scales) -> Balance:
    """Balance the layers that the plan names, with factors from `scales`.

    Raises PlanError where the channels of a layer were not calibrated, TrialError where a weight would exceed float32.
    """
    factors: dict[str, Factors] = {}
    constants: dict[str, Array] = {}
    divided: dict[str, tuple[int, Factors]] = {}
    planned = [name for name in layers if name in plan.int8]  # in graph order, as products are rounded
    for name in planned:
        layer, settings = layers[name], plan.int8[name]
        own = scales.factors(layer, settings, plan.batch_num, partial(_input_maxima, lite, layer))
        if own:
            factors[name] = own
            divided |= dict.fromkeys(layer.rescaled, (layer.data_axis, own))
            for tensor, axis, scale in _changes(lite, layer, np.array(own)):
                constants[tensor] = _times(constants.get(tensor, known_constant(lite, tensor)), axis, scale)
    for tensor, value in constants.items():
        if not np.isfinite(value).all():
            hint = "remove dmq_balancer_param of the layer that it belongs to, or of the one behind that"
            raise TrialError(tensor, "balanced, it is beyond float32", hint=hint)
    return Balance(factors, constants, divided)


def tensors_between(lite: LiteGraph, operator: int) -> tuple[str, ...]:
    """The tensors before the data of a layer that has a source, up to what that makes, nearest first."""
    way = balance_way(lite, operator)
    return () if way is None else tuple(lite.name_of(lite.operators[index].inputs[0]) for index in way.between)


def _changes(lite: LiteGraph, layer: Layer, factors: Array) -> Iterator[tuple[str, int, Array]]:
    """Which constants are multiplied, along which axis, by what: the layer's weight, and all of its source."""
    operator = lite.layers[layer.name]
    way = balance_way(lite, operator)
    assert way is not None and layer.weight is not None, layer.name
    yield layer.weight, KINDS[lite.kind(operator)].input_axis, factors
    kind, inputs = KINDS[lite.kind(way.source)], lite.operators[way.source].inputs
    assert kind.weight is not None, layer.name
    yield lite.name_of(inputs[kind.weight]), kind.output_axis, 1.0 / factors
    if kind.bias is not None and kind.bias < len(inputs) and inputs[kind.bias] >= 0:
        yield lite.name_of(inputs[kind.bias]), 0, 1.0 / factors


def _input_maxima(lite: LiteGraph, layer: Layer, channels: int) -> Array:
    """The largest absolute value of each input channel; of a depthwise convolution over the outputs of each."""
    kind = KINDS[lite.kind(lite.layers[layer.name])]
    weight = known_constant(lite, layer.weight)
    largest = np.abs(np.moveaxis(weight, kind.input_axis, -1)).reshape(-1, weight.shape[kind.input_axis]).max(axis=0)
    whole = kind.op == "DepthwiseConv2dNative" and len(largest) % channels == 0
    return np.asarray(largest.reshape(channels, -1).max(axis=1) if whole else largest)


def _times(value: Array, axis: int, factors: Array) -> Array:
    """A constant times one factor for each place along an axis, or for each run of places, float32."""
    spread = np.repeat(factors, value.shape[axis] // len(factors))
    shape = [-1 if number == axis % value.ndim else 1 for number in range(value.ndim)]
    with np.errstate(over="ignore"):
        return np.asarray(value.astype(np.float64) * spread.reshape(shape), np.float32)
