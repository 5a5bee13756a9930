"""Records: scale and offset of every INT8 layer of a plan, and whether they fit the layers of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from autoquant.array import Array
from autoquant.calibration.plan import WEIGHT_BITS, LayerPlan, Plan, check_plan, two_inputs
from autoquant.calibration.scales import Factors, Scales
from autoquant.calibration.statistics import Statistics
from autoquant.errors import IN_FLOAT, PlanError, TrialError, did_you_mean
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
    given = np.array(values, np.float64)
    with np.errstate(over="ignore"):
        exact = given.astype(np.float32)
    if not ((exact == given) & (above < given) & (given < below)).all():  # NaN fails too
        raise ValueError(f"{name} must hold positive finite float32 numbers")


Record = Mapping[str, LayerRecord]
"""Layers by name. The second factor of a product of two activations has an entry of its own, `<layer>:1`."""


class Calibrator:
    """Turns plans into records from statistics alone; whatever plans share is computed once."""

    def __init__(self, program: Program, layers: Mapping[str, Layer], statistics: Statistics) -> None:
        self._program = program
        self._layers = layers
        self._scales = Scales(statistics)
        self._of_weights: dict[tuple[str, bool, int, str, bool, Factors], tuple[float, ...]] = {}

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
        own = settings.channel_wise, settings.weight_bits, settings.weight_algorithm, settings.power_of_two
        key = (layer.name, *own, balance)
        if key not in self._of_weights:
            weight = float_weight(self._program, layer, balance)
            axes = layer.channel_axes if settings.channel_wise else None
            scales = weight_scales(
                layer.name,
                weight,
                axes,
                bits=settings.weight_bits,
                algorithm=settings.weight_algorithm,
                power_of_two=settings.power_of_two,
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


MATCH = "please match the model and the record"
CALIBRATE = "please check the data calibration process"


def record_layers(
    layers: Mapping[str, Layer], record: Record, *, model: str = "the model"
) -> list[tuple[Layer, tuple[LayerRecord, ...]]]:
    """The layers that the record names, in its order, each with an entry for every activation.

    Raises PlanError where an entry belongs to no layer, is missing, or holds what a layer of its kind cannot have;
    `model` is what it calls the model.
    """
    owners = {entry: layer for layer in layers.values() for entry in layer.records}
    for entry in record:
        if entry not in owners:
            what = f"find {entry} failure in {model}: no layer has this name"
            raise PlanError(entry, what, hint=did_you_mean(entry, owners, otherwise=MATCH))
    named = {owners[entry].name: owners[entry] for entry in record}
    if both := two_inputs(named.values()):
        raise PlanError(both[1], f"'{both[0]}' of the same operator is in the record too", hint="remove one of them")
    return [(layer, _entries(layer, record)) for layer in named.values()]


def _entries(layer: Layer, record: Record) -> tuple[LayerRecord, ...]:
    for entry in layer.records:
        if entry not in record:
            raise PlanError(entry, f"cannot find scale_d of layer {entry} in the record", hint=CALIBRATE)
        if record[entry].activation.bits not in layer.can.activation_bits:
            what = f"act_type INT{record[entry].activation.bits} is not possible for a {layer.op} on this target"
            raise PlanError(entry, what, hint="calibrate the layer anew, or leave it out, which keeps it in float")
        if layer.symmetric_only and record[entry].activation.offset:
            what = f"offset_d is {record[entry].activation.offset}, but both factors of the product are activations"
            raise PlanError(entry, what, hint="calibrate it symmetrically: offset_d must be 0")
    for number, entry in enumerate(layer.records):
        if layer.weight is None or number:
            _check_no_weight(layer, entry, record[entry])
        else:
            _check_weight(layer, record[entry])
    return tuple(record[entry] for entry in layer.records)


def _check_no_weight(layer: Layer, entry: str, record: LayerRecord) -> None:
    extra = {"scale_w": record.scale_w, "tensor_balance_factor": record.balance, "shift_bit": record.shift_bit}
    for field, values in extra.items():
        if values:
            what = f"{field} is given, but this {layer.op} has no weight"
            raise PlanError(entry, what, hint=f"remove {field}, or {MATCH}")


def _check_weight(layer: Layer, record: LayerRecord) -> None:
    if not record.scale_w:
        raise PlanError(layer.name, f"cannot find scale_w of layer {layer.name} in the record", hint=CALIBRATE)
    if record.weight_bits != 8 and layer.op != "Conv2D":
        what = f"a weight of {record.weight_bits} bits is for Conv2D only, not for {layer.op}"
        raise PlanError(layer.name, what, hint="quantize it with 8 bits")
    if len(record.scale_w) not in (1, layer.channels):
        what = f"scale_w's length {len(record.scale_w)} should be 1 or the number of channels, {layer.channels}"
        raise PlanError(layer.name, what, hint=MATCH)
    if len(record.scale_w) > 1 and not layer.can.per_channel:
        what = (
            f"scale_w's length {len(record.scale_w)} should be 1: channel_wise must be false for layer type {layer.op}"
        )
        raise PlanError(layer.name, what, hint="calibrate it with one weight scale")
    if record.balance and not layer.can.balanceable:
        what = "tensor_balance_factor is given, but a convolution with groups of channels cannot be balanced"
        raise PlanError(layer.name, what, hint="calibrate it without dmq_balancer_param")
    inputs = layer.weight_shape[layer.operator.input_axis]
    if record.balance and len(record.balance) != inputs:
        what = f"tensor_balance_factor's length {len(record.balance)} should be the number of input channels, {inputs}"
        raise PlanError(layer.name, what, hint=MATCH)
