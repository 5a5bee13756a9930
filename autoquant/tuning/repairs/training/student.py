"""A quantized model in TensorFlow whose scales, roundings and biases can be trained, beside the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from autoquant.array import Array
from autoquant.quantization.affine import QMAX, QMIN, Affine
from autoquant.targets.base import Corrections
from autoquant.tuning.repairs.training.descent import Parameter

SCALE_UNIT = 0.05
"""By how much a step of rate 1 moves the logarithm of a scale."""
WEIGHT_UNIT = 0.2
"""By how much, in steps of INT8, it moves a weight."""
BIAS_UNIT = 0.1
"""By how much, in standard deviations of the layer's result, it moves a bias."""
SHIFT_UNIT = 1.0
"""The same of the binary logarithm of a scale that stays a power of two."""
WIDEST = 1.0
"""The most that the logarithm of a scale may move."""
ROUNDED = 0.5
"""How far, in steps of INT8, a weight may move: so only the choice is left between the integers below and above."""
NEAR = 0.49
"""How far, in steps, a weight starts at most from an integer that was chosen for it."""


class Compared(NamedTuple):
    """A tensor of the float model, and the same of the quantized one."""

    plain: Any
    quantized: Any


@dataclass(frozen=True)
class BothModels:
    """Both models in one tf.Graph: their placeholders by name, the results of INT8 layers and outputs by name.

    `ends` are results through which there is no way back.
    """

    graph: Any
    inputs: Mapping[str, Any]
    layers: Mapping[str, Compared]
    outputs: Mapping[str, Compared]
    ends: Sequence[Any] = ()


@dataclass(frozen=True)
class WeightGrid:
    """A float weight, its scales in a shape that broadcasts against it, and the integers chosen for it so far."""

    weight: Array
    scales: Array
    integers: Array
    low: int
    high: int


@dataclass
class Trainable:
    """Makes the parts of a quantized model that can be trained; each has a placeholder for its parameter.

    `half` rounds the scales of activations to float16; with `powers` those that are powers of two stay such. `grids`
    and `affines` are what training starts from.
    """

    half: bool = False
    powers: bool = False
    parameters: dict[str, Parameter] = field(default_factory=dict)
    placeholders: dict[str, Any] = field(default_factory=dict)
    affines: dict[str, Affine] = field(default_factory=dict)
    grids: dict[str, WeightGrid] = field(default_factory=dict)
    _made: dict[str, Any] = field(default_factory=dict)

    def activation(self, values: Any, name: str, affine: Affine) -> Any:
        """Values rounded to the steps of a scale, which is one for all that is called by the same name."""
        import tensorflow as tf

        if name not in self._made:
            self.affines[name] = affine
            shifts = self._shifts(affine)
            unit = SHIFT_UNIT if shifts else SCALE_UNIT
            moved = self._placeholder(_of_scale(name), Parameter(np.zeros((), np.float32), unit, -WIDEST, WIDEST))
            if shifts:
                scale = np.float32(affine.scale) * tf.pow(2.0, moved + tf.stop_gradient(tf.round(moved) - moved))
            else:
                scale = np.float32(affine.scale) * tf.exp(moved)
            if self.half:
                scale += tf.stop_gradient(tf.cast(tf.cast(scale, tf.float16), tf.float32) - scale)
            self._made[name] = scale
        return fake_quantized(values, self._made[name], affine.offset)

    def weight(self, name: str, grid: WeightGrid) -> Any:
        """The weight of a layer, rounded to its steps."""
        import tensorflow as tf

        self.grids[name] = grid
        steps = np.clip(grid.weight.astype(np.float64) / grid.scales, grid.low, grid.high)
        start = np.clip(steps, grid.integers - NEAR, grid.integers + NEAR).astype(np.float32)
        low, high = ((steps + side).astype(np.float32) for side in (-ROUNDED, ROUNDED))
        moved = self._placeholder(_of_weight(name), Parameter(start, WEIGHT_UNIT, low, high))
        rounded = moved + tf.stop_gradient(tf.round(moved) - moved)
        return tf.clip_by_value(rounded, float(grid.low), float(grid.high)) * grid.scales.astype(np.float32)

    def bias(self, name: str, bias: Any, start: Array) -> Any:
        """The bias of a layer, to which as much as `start` is added."""
        return bias + self._placeholder(_of_bias(name), Parameter(start.astype(np.float32), BIAS_UNIT))

    def corrections(self, values: Mapping[str, Array]) -> Corrections:
        """What values of the parameters mean."""
        weights = {}
        for name, grid in self.grids.items():
            weights[name] = np.clip(np.rint(values[_of_weight(name)]), grid.low, grid.high).astype(np.int8)
        biases = {name[len(BIAS) :]: value for name, value in values.items() if name.startswith(BIAS)}
        activations = {name: self._affine(one, values[_of_scale(name)]) for name, one in self.affines.items()}
        return Corrections(biases, weights, activations)

    def _affine(self, affine: Affine, moved: Array) -> Affine:
        if self._shifts(affine):
            return replace(affine, scale=float(np.ldexp(affine.scale, int(np.rint(moved)))))
        scale = np.float32(affine.scale) * np.exp(np.float32(moved))
        return Affine(float(np.float32(np.float16(scale) if self.half else scale)), affine.offset)

    def _shifts(self, affine: Affine) -> bool:
        return self.powers and float(np.frexp(affine.scale)[0]) == 0.5

    def _placeholder(self, name: str, parameter: Parameter) -> Any:
        import tensorflow as tf

        self.parameters[name] = parameter
        self.placeholders[name] = tf.compat.v1.placeholder(tf.float32, parameter.start.shape)
        return self.placeholders[name]


SCALE, WEIGHT, BIAS = "scale ", "weight ", "bias "


def _of_scale(name: str) -> str:
    return SCALE + name


def _of_weight(name: str) -> str:
    return WEIGHT + name


def _of_bias(name: str) -> str:
    return BIAS + name


def fake_quantized(values: Any, scale: Any, offset: int) -> Any:
    """Values in steps of a scale, as INT8 has them, with the gradients of a trained threshold (TQT, arXiv:1903.08066).

    With v = values / scale + offset the gradient for the scale is round(v) - v within -128..127, and beyond that the
    end that v is clipped to, less the offset; for the values it is 1 and 0.
    """
    import tensorflow as tf

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def rounded(values: Any, scale: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        low, high = (float(end - offset) * scale for end in (QMIN, QMAX))
        found = tf.quantization.fake_quant_with_min_max_vars(values, low, high)

        def gradients(upstream: Any) -> tuple[Any, Any]:
            own, below, above = tf.quantization.fake_quant_with_min_max_vars_gradient(upstream, values, low, high)
            inside = tf.reduce_sum(own * (found - values)) / scale
            return own, inside + below * float(QMIN - offset) + above * float(QMAX - offset)

        return found, gradients

    return rounded(values, scale)
