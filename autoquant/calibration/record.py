"""Records: scale and offset of every INT8 layer of a plan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import WEIGHT_BITS, LayerPlan, Plan, check_plan
from autoquant.calibration.scales import IN_FLOAT, Factors, Scales
from autoquant.calibration.statistics import Statistics
from autoquant.errors import TrialError
from autoquant.model.layer import Layer
from autoquant.model.model import Program, known_constant
from autoquant.quantization.affine import EPSILON, Affine, balanced_weight, in_float16, input_maxima, weight_scales


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """Scale and offset of a layer's input (`_d`) and of its weight (`_w`, one for all or one per output channel).

    Scales are real units a step, exact in float32; the weight's offsets are 0. `scale_w` is empty where there is no
    weight. `balance` are the factors, one per input channel, by which the input is divided and the weight multiplied;
    empty means 1. `weight_bits` are those of the weight. `shift_bit`, as many as `scale_w` or none, says by how many
    bits the sums are shifted before they are scaled; 0 is not at all. `skip_fusion` keeps what is behind the layer
    apart from it.
    """

    activation: Affine
    scale_w: tuple[float, ...] = ()
    balance: tuple[float, ...] = ()
    weight_bits: int = 8
    shift_bit: tuple[int, ...] = ()
    skip_fusion: bool = False

    def __post_init__(self) -> None:
        _check_float32("scale_w", self.scale_w, 0.0, math.inf)
        _check_float32("tensor_balance_factor", self.balance, EPSILON / 2, 2 / EPSILON)
        if self.weight_bits not in WEIGHT_BITS:
            raise ValueError(f"a weight has 8, 7 or 6 bits, not {self.weight_bits}")
        if self.shift_bit and len(self.shift_bit) != len(self.scale_w):
            raise ValueError(f"there are {len(self.shift_bit)} shift_bit for {len(self.scale_w)} scale_w")
        if any(self.shift_bit) and not all(1 <= bits <= 16 for bits in self.shift_bit):
            raise ValueError("shift_bit must be all 0, or all in [1, 16]")


def _check_float32(name: str, values: tuple[float, ...], above: float, below: float) -> None:
    with np.errstate(over="ignore"):
        exact = np.array(values, np.float32)
    if not np.array_equal(exact, values) or not all(above < value < below for value in values):
        raise ValueError(f"{name} must hold positive finite float32 numbers")


Record = Mapping[str, LayerRecord]
"""Layers by name. The second factor of a product of two activations has an entry of its own, `<layer>:1`."""


class Calibrator:
    """Turns plans into records from statistics alone; whatever plans share is computed once."""

    def __init__(self, program: Program, layers: Mapping[str, Layer], statistics: Statistics) -> None:
        self._program = program
        self._layers = layers
        self._scales = Scales(statistics)
        self._of_weights: dict[tuple[str, bool, int, str, Factors], tuple[float, ...]] = {}

    def record(self, plan: Plan) -> Record:
        """Scale and offset of every INT8 layer of the plan.

        Raises PlanError where the model cannot follow the plan or the statistics lack what it wants, and TrialError
        where a layer's values have no scale.
        """
        check_plan(plan, self._layers)
        record: dict[str, LayerRecord] = {}
        for name, layer in self._layers.items():  # in graph order, whatever the order of the plan
            settings = plan.layers.get(name)
            if settings is not None:
                record.update(self._entries(layer, settings, plan))
        return record

    def _entries(self, layer: Layer, settings: LayerPlan, plan: Plan) -> Iterator[tuple[str, LayerRecord]]:
        """The record of each activation of one layer, with its name."""
        balance = self._scales.factors(layer, settings, plan.batch_num, lambda channels: self._input_maxima(layer))
        scale_w = self._weight_scales(layer, settings, balance) if layer.weight else ()
        skip_fusion = layer.weight is not None and not plan.fusion.allows(layer.name)
        for name, tensor in zip(layer.records, layer.activations, strict=True):
            activation = self._scales.affine(
                name, tensor, settings, plan.batch_num, axis=layer.data_axis, factors=balance
            )
            activation = _float16(name, activation) if plan.fp16_scales else activation
            yield name, LayerRecord(activation, scale_w, balance, settings.weight_bits, skip_fusion=skip_fusion)

    def _input_maxima(self, layer: Layer) -> Array:
        return input_maxima(known_constant(self._program, layer.weight), layer.operator.input_axis)

    def _weight_scales(self, layer: Layer, settings: LayerPlan, balance: Factors) -> tuple[float, ...]:
        key = (layer.name, settings.channel_wise, settings.weight_bits, settings.weight_algorithm, balance)
        if key not in self._of_weights:
            weight = float_weight(self._program, layer, balance)
            axes = layer.channel_axes if settings.channel_wise else None
            scales = weight_scales(
                layer.name, weight, axes, bits=settings.weight_bits, algorithm=settings.weight_algorithm
            )
            self._of_weights[key] = tuple(map(float, scales))
        return self._of_weights[key]


def float_weight(program: Program, layer: Layer, balance: Factors = ()) -> Array:
    """The weight of a layer, each input channel multiplied by its factor where there are any."""
    weight = known_constant(program, layer.weight)
    return balanced_weight(weight, np.array(balance, np.float32), layer.operator.input_axis) if balance else weight


def _float16(name: str, activation: Affine) -> Affine:
    """The scale in the precision of float16. Raises TrialError where it is beyond that."""
    try:
        return Affine(in_float16(activation.scale), activation.offset)
    except ValueError:
        what = f"its scale {activation.scale:.3g} is beyond float16 (fakequant_precision_mode FORCE_FP16_QUANT)"
        raise TrialError(name, what, hint=f"set that mode to DEFAULT, or {IN_FLOAT}") from None
