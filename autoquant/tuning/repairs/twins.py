"""What quantization does to the mean of each layer's result: the float model and a quantized one, side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.engines.engine import Runner
from autoquant.model.layer import Layer
from autoquant.model.model import Program
from autoquant.quantization.bias_correction import mean_shift


class Twins(Protocol):
    """A saved model without corrections, and the float model that it is the quantized form of."""

    def shifts(self, means: Mapping[str, Array]) -> Mapping[str, Array]:
        """E[(W_q - W) x] of each output channel by layer, from the means of the input channels that the weight meets.

        Layers are those of `means`.
        """
        ...

    def open(self) -> Runner:
        """What computes both of a batch, and gives by layer the mean of its quantized result minus the float one.

        That is of each output channel, before the activation. Behind each layer its mean error is taken off before
        anything reads the result, so everything before a layer is quantized and corrected already, for this batch. A
        model of a fixed batch size gives one row of channels after the other.
        """
        ...


def _litert(path: Path, reference: Program, layers: Collection[Layer]) -> Twins:
    from autoquant.tuning.repairs.lite_twins import LiteTwins

    return LiteTwins.of(path, reference, layers)


def _tensorflow(path: Path, reference: Program, layers: Collection[Layer]) -> Twins:
    from autoquant.tuning.repairs.graph_twins import GraphTwins

    return GraphTwins.of(path, reference, layers)


TWINS: Mapping[str, Callable[[Path, Program, Collection[Layer]], Twins]] = MappingProxyType(
    {"litert": _litert, "tensorflow": _tensorflow}
)
"""The engine that what a target saves is made for -> how to open such a file beside its float model.

The layers, all with a weight and a bias, are those that are INT8 in the file and are looked at.
"""


def correctable(layer: Layer) -> bool:
    """Whether a layer has a bias that can make up for the error of its weight."""
    return layer.weight is not None and layer.bias is not None


def shift_of(layer: Layer, error: Array, means: Array, *, input_axis: int) -> Array:
    """`mean_shift` of a layer, `error` in the layout of its weight.

    To a transposed convolution with strides each value of its input comes once, but there are more results than
    values: they share it. Where their numbers are not known, nothing is said to shift.
    """
    shift = mean_shift(error, means, input_axis=input_axis, channel_axes=layer.channel_axes)
    return shift * _met(layer) if layer.op == "Conv2DBackpropInput" else shift


def _met(layer: Layer) -> float:
    """How many places of the input there are for each place of the result; 0 where that is not known."""
    results = prod(size or 0 for size in (layer.output_shape or ())[1:])
    return (layer.macs or 0) * layer.channels / (prod(layer.weight_shape) * results) if results else 0.0
