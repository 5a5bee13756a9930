"""The record file: a text protobuf, one `record { key value }` a layer, as AMCT for TensorFlow writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from google.protobuf import text_format

from autoquant.calibration.record import LayerRecord, Record
from autoquant.errors import PlanError
from autoquant.files import write_text
from autoquant.formats.layer_settings import FP16
from autoquant.formats.strict import read_text
from autoquant.formats.text_proto import parse_text, shipped_message
from autoquant.quantization.affine import QMAX, QMIN, Affine, in_float16

MESSAGE = ("scale_offset_record.proto", "ScaleOffsetRecord")
PRUNED = "the layer was pruned, and pruning is not supported"
RECURRENT = "recurrent layers are not quantized"
UNSUPPORTED: Mapping[str, str] = MappingProxyType(
    {
        "cluster": "non-uniform quantization (NUQ) is not supported, as hardware gains nothing by it",
        "prune_consumer": PRUNED,
        "prune_producer": PRUNED,
        **dict.fromkeys(("scale_h", "offset_h", "scale_r", "offset_r"), RECURRENT),
    }
)
"""Fields of AMCT for what cannot be done here, and why."""
ONLY: Mapping[str, str] = MappingProxyType({"dst_type": "INT8", "op_data_type": "FLOAT32"})
"""Fields of which one value can be carried out."""
WEIGHT_TYPES: Mapping[str, int] = MappingProxyType({"INT8": 8, "INT7": 7, "INT6": 6})
ACTIVATION_TYPES: Mapping[str, int] = MappingProxyType({"INT8": 8, "INT16": 16})


def record_path(model: Path) -> Path:
    """Where the record of a quantized model is, if it has the model's name: of x_quantized.pb it is x_record.txt.

    >>> record_path(Path("net_quantized.pb")).name
    'net_record.txt'
    """
    return model.with_name(f"{model.stem.removesuffix('_quantized')}_record.txt")


def record_text(record: Record) -> str:
    """The text of a record, layers in the order given: as protobuf writes it, which takes ten times as long."""
    entry = shipped_message(*MESSAGE)().record.add()
    lines: list[str] = []
    for name, layer in record.items():
        entry.key = name
        fields: Mapping[str, Iterable[object]] = {
            "scale_d": _floats((layer.activation.scale,)),
            "offset_d": [layer.activation.offset],
            "scale_w": _floats(layer.scale_w),
            "offset_w": [0] * len(layer.scale_w),
            "shift_bit": layer.shift_bit,
            "skip_fusion": ["true"] if layer.skip_fusion else [],
            "tensor_balance_factor": _floats(layer.balance),
            "act_type": [f'"INT{layer.activation.bits}"'] if layer.activation.bits != 8 else [],
            "wts_type": [f'"INT{layer.weight_bits}"'] if layer.weight_bits != 8 else [],
        }
        lines += ["record {", f"  {text_format.MessageToString(entry).rstrip()}", "  value {"]
        lines += [f"    {field}: {value}" for field, values in fields.items() for value in values]
        lines += ["  }", "}"]
    return "\n".join([*lines, ""])


@lru_cache(maxsize=4096)  # most scales of weights are those of the trial before
def _floats(values: tuple[float, ...]) -> tuple[str, ...]:
    """With six digits, or as many more as it takes to tell a float32 from its neighbours."""
    exact = np.array(values, np.float32)
    short = [float(f"{value:.6}") for value in exact.tolist()]
    enough = np.array(short, np.float32) == exact
    return tuple(
        str(six if fits else float(all_of_it))
        for six, fits, all_of_it in zip(short, enough, exact.astype(str), strict=True)
    )


def save_record(record: Record, path: Path) -> None:
    """Write a record file, whole or not at all."""
    write_text(path, record_text(record))


def parse_record(text: str, where: str) -> Record:
    """Read a record's text.

    `is_tensor_quantize` says nothing that the key `<operator>:<index>` does not; under `fakequant_precision_mode`
    FORCE_FP16_QUANT the scale is rounded to float16. Raises PlanError that names `where` and the layer, or the line
    and column: no record or an unfinished one, a layer twice, values out of range, and what cannot be carried out.
    """
    message = shipped_message(*MESSAGE)()
    parse_text(
        text,
        message,
        where,
        what=f"the record_file{{{where}}} cannot be parsered",
        hint="please ensure it matches with scale_offset_record.proto: `record { key: ... value { ... } }`",
    )
    if message.prune_record:
        raise PlanError(where, "prune_record: pruning is not supported", hint="use the record of a model without it")
    layers: dict[str, LayerRecord] = {}
    for number, entry in enumerate(message.record):
        if not entry.key:
            what = f'Cannot find "key" in record file, in record {number + 1}'
            raise PlanError(where, what, hint="every record needs a key and a value")
        if entry.key in layers:
            raise PlanError(f"{where}: {entry.key}", "appears twice", hint="remove one of the two records")
        layers[entry.key] = _layer(entry, f"{where}: {entry.key}")
    if not layers:
        what = "record_file is empty, no layers to be quantized"
        raise PlanError(where, what, hint="please ensure calibration is finished: run batch_num batches")
    return MappingProxyType(layers)


def load_record(path: Path) -> Record:
    """Read a record file. Raises PlanError."""
    return parse_record(read_text(path, hint="give a record file"), str(path))


def _layer(entry: Any, where: str) -> LayerRecord:
    if not entry.HasField("value"):
        raise PlanError(where, f"cannot find 'value' in {entry.key} in record_file", hint="remove the record")
    value = entry.value
    _check_finished(entry.key, value, where)
    _check_possible(value, where)
    _check_offsets(entry.key, value, where)
    scale = in_float16(value.scale_d) if value.fakequant_precision_mode == FP16 else value.scale_d
    try:
        return LayerRecord(
            activation=Affine(scale, value.offset_d, ACTIVATION_TYPES[value.act_type or "INT8"]),
            scale_w=tuple(value.scale_w),
            balance=tuple(value.tensor_balance_factor),
            weight_bits=WEIGHT_TYPES[value.wts_type or "INT8"],
            shift_bit=tuple(value.shift_bit),
            skip_fusion=value.skip_fusion,
        )
    except ValueError as error:
        raise PlanError(where, str(error), hint="calibrate again") from None


def _check_finished(key: str, value: Any, where: str) -> None:
    """Raise PlanError where calibration did not fill a record in."""
    if not value.ListFields():
        what = "its record is empty: the calibration of this layer is not finished"
        raise PlanError(where, what, hint="run batch_num batches through the outputs that quantize_model names")
    for needed in ("scale_d", "offset_d"):
        if not value.HasField(needed):
            what = f"cannot find {needed} of layer {key} in record_file"
            raise PlanError(where, what, hint="please check data calibration process")


def _check_possible(value: Any, where: str) -> None:
    """Raise PlanError where a record asks for what cannot be carried out."""
    given = {field.name: found for field, found in value.ListFields()}
    for name in filter(UNSUPPORTED.get, given):
        raise PlanError(where, f"{name}: {UNSUPPORTED[name]}", hint="leave the layer out, which keeps it in float")
    choices: dict[str, tuple[str, ...]] = {name: (only,) for name, only in ONLY.items()}
    choices |= {
        "wts_type": tuple(WEIGHT_TYPES),
        "act_type": tuple(ACTIVATION_TYPES),
        "fakequant_precision_mode": ("DEFAULT", FP16),
    }
    for name, possible in choices.items():
        if given.get(name, possible[0]) not in possible:
            what = f"{name} {given[name]} is not supported, only {', '.join(possible)}"
            raise PlanError(where, what, hint="calibrate the layer anew, or leave it out, which keeps it in float")


def _check_offsets(key: str, value: Any, where: str) -> None:
    """Raise PlanError where offsets are out of range, or not as many as scales."""
    if not QMIN <= value.offset_d <= QMAX:
        what = f"offset_d's value should be in [{QMIN}, {QMAX}] in layer {key}, got {value.offset_d}"
        raise PlanError(where, what, hint="calibrate again")
    scales, offsets = len(value.scale_w), len(value.offset_w)
    if scales != offsets:
        what = f"scale_w's length, offset_w's length should be equal in layer {key}, got {scales} and {offsets}"
        raise PlanError(where, what, hint="give one of each per channel, or one for all")
    if any(value.offset_w):
        raise PlanError(where, f"offset_w's value should be 0 in layer {key}", hint="weights are symmetric")
