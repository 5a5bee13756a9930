"""The record file: a text protobuf, one `record { key value }` a layer, as AMCT for TensorFlow writes it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from autoquant.calibration.record import LayerRecord, Record
from autoquant.errors import PlanError
from autoquant.files import write_text
from autoquant.quantization.affine import Affine

Field = descriptor_pb2.FieldDescriptorProto
_ONE, _MANY = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
_LAYER = (
    ("scale_d", 1, Field.TYPE_FLOAT, _ONE),
    ("offset_d", 2, Field.TYPE_INT32, _ONE),
    ("scale_w", 3, Field.TYPE_FLOAT, _MANY),
    ("offset_w", 4, Field.TYPE_INT32, _MANY),
)
"""Fields of a layer that this version uses: name, number, type, label. Others are refused by name."""


@cache
def _message() -> Any:
    """The message class ScaleOffsetRecord, built from the table above."""
    file = descriptor_pb2.FileDescriptorProto(name="autoquant_record.proto", package="autoquant", syntax="proto2")
    layer = file.message_type.add(name="SingleLayerRecord")
    for name, number, kind, label in _LAYER:
        layer.field.add(name=name, number=number, type=kind, label=label)
    entry = file.message_type.add(name="MapFiledEntry")
    entry.field.add(name="key", number=1, type=Field.TYPE_STRING, label=_ONE)
    entry.field.add(
        name="value", number=2, type=Field.TYPE_MESSAGE, label=_ONE, type_name=".autoquant.SingleLayerRecord"
    )
    top = file.message_type.add(name="ScaleOffsetRecord")
    top.field.add(name="record", number=1, type=Field.TYPE_MESSAGE, label=_MANY, type_name=".autoquant.MapFiledEntry")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("autoquant.ScaleOffsetRecord"))


def record_text(record: Record) -> str:
    """The text of a record, layers in the order given."""
    message = _message()()
    for name, layer in record.items():
        value = message.record.add(key=name).value
        value.scale_d, value.offset_d = layer.activation.scale, layer.activation.offset
        value.scale_w.extend(layer.scale_w)
        value.offset_w.extend([0] * len(layer.scale_w))
    return str(text_format.MessageToString(message))


def save_record(record: Record, path: Path) -> None:
    """Write a record file, whole or not at all."""
    write_text(path, record_text(record))


def parse_record(text: str, where: str) -> Record:
    """Read a record's text. Raises PlanError that names `where` and the layer or line."""
    message = _message()()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise PlanError(
            where, f"is no record file: {error}", hint="expected `record { key: ... value { ... } }`"
        ) from None
    layers: dict[str, LayerRecord] = {}
    for entry in message.record:
        if not entry.key:
            raise PlanError(where, 'cannot find "key" in a record', hint="every record needs a key and a value")
        if entry.key in layers:
            raise PlanError(f"{where}: {entry.key}", "is there twice", hint="remove one of the two records")
        layers[entry.key] = _layer(entry.value, f"{where}: {entry.key}")
    if not layers:
        raise PlanError(where, "record file is empty, no layers to be quantized", hint="finish the calibration first")
    return MappingProxyType(layers)


def load_record(path: Path) -> Record:
    """Read a record file. Raises PlanError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(str(path), f"cannot be read ({error})", hint="give a record file") from None
    return parse_record(text, str(path))


def _layer(value: Any, where: str) -> LayerRecord:
    for needed in ("scale_d", "offset_d"):
        if not value.HasField(needed):
            raise PlanError(where, f"cannot find {needed}", hint="please check the data calibration process")
    if len(value.scale_w) != len(value.offset_w):
        raise PlanError(
            where,
            f"scale_w's length {len(value.scale_w)}, offset_w's length {len(value.offset_w)} should be equal",
            hint="give one of each per channel, or one for all",
        )
    if any(value.offset_w):
        raise PlanError(where, "offset_w's value should be 0", hint="weights are symmetric")
    try:
        return LayerRecord(Affine(value.scale_d, value.offset_d), tuple(value.scale_w))
    except ValueError as error:
        raise PlanError(where, str(error), hint="calibrate again") from None
