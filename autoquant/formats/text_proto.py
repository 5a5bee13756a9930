"""Text protobuf files: messages made from tables, read with errors that say where."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from autoquant.errors import PlanError

_Proto = descriptor_pb2.FieldDescriptorProto
SCALARS: Mapping[str, int] = MappingProxyType(
    {
        "bool": _Proto.TYPE_BOOL,
        "bytes": _Proto.TYPE_BYTES,
        "double": _Proto.TYPE_DOUBLE,
        "float": _Proto.TYPE_FLOAT,
        "int32": _Proto.TYPE_INT32,
        "int64": _Proto.TYPE_INT64,
        "string": _Proto.TYPE_STRING,
        "uint32": _Proto.TYPE_UINT32,
    }
)


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message: `kind` is one of SCALARS, or the name of a message or enum; of a `oneof` one can be set."""

    name: str
    number: int
    kind: str
    many: bool = False
    oneof: str = ""


Messages = Mapping[str, Sequence[Field]]
Enums = Mapping[str, Sequence[str]]
NO_ENUMS: Enums = MappingProxyType({})


def message_class(top: str, messages: Messages, enums: Enums = NO_ENUMS, *, oneofs: bool = True) -> Any:
    """The class of message `top` (proto2). Without `oneofs` all members of a oneof can be set at once."""
    file = descriptor_pb2.FileDescriptorProto(name="text.proto", syntax="proto2")
    for name, values in enums.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        choices = list(dict.fromkeys(field.oneof for field in fields if field.oneof and oneofs))
        for choice in choices:
            message.oneof_decl.add(name=choice)
        for field in fields:
            _add(message, field, enums, choices)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(top))


def parse_text(text: str, message: Any, where: str, *, what: str, hint: str, last_wins: bool = False) -> None:
    """Fill a message from its text.

    What is given twice, or is of one oneof, is refused unless `last_wins`. Raises PlanError with line and column.
    """
    try:
        with warnings.catch_warnings():  # that is all protobuf says of a backslash that escapes nothing
            warnings.simplefilter("error")
            (text_format.Merge if last_wins else text_format.Parse)(text, message)
    except Warning as error:
        raise PlanError(where, f"{what}: {error}", hint=hint) from None
    except text_format.ParseError as error:
        line, column = error.GetLine(), error.GetColumn()
        place = "" if line is None else f":{line}:{column}"
        reason = str(error).removeprefix(f"{line}:{column} : ")
        raise PlanError(where + place, f"{what}: {reason}", hint=hint) from None


def _add(message: Any, field: Field, enums: Enums, choices: Sequence[str]) -> None:
    made = message.field.add(
        name=field.name, number=field.number, label=_Proto.LABEL_REPEATED if field.many else _Proto.LABEL_OPTIONAL
    )
    if field.kind in SCALARS:
        made.type = SCALARS[field.kind]
    else:
        made.type = _Proto.TYPE_ENUM if field.kind in enums else _Proto.TYPE_MESSAGE
        made.type_name = f".{field.kind}"
    if field.oneof in choices:
        made.oneof_index = choices.index(field.oneof)
