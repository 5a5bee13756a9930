"""Whether a record fits the layers of a model, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping

from autoquant.calibration.plan import two_inputs
from autoquant.calibration.record import LayerRecord, Record
from autoquant.errors import PlanError, did_you_mean
from autoquant.model.layer import Layer

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
