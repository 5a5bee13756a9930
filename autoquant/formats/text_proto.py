"""Text protobuf files: message classes from the .proto files beside this one, read with errors that say where."""

from __future__ import annotations

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from autoquant.errors import PlanError

_Proto = descriptor_pb2.FieldDescriptorProto


@cache
def shipped_message(file: str, top: str, *, oneofs: bool = True) -> Any:
    """The class of message `top` of a .proto file beside this one, as `message_class` makes it."""
    return message_class(Path(__file__).with_name(file).read_text(encoding="utf-8"), top, oneofs=oneofs)


def message_class(schema: str, top: str, *, oneofs: bool = True) -> Any:
    """The class of message `top` of a .proto file's text. Without `oneofs` all members of a oneof can be set at once.

    Of the language (proto2) that is messages of fields and oneofs, and enums, one line each; no nesting, no options.
    """
    file = descriptor_pb2.FileDescriptorProto(name="text.proto", syntax="proto2")
    for line in schema.splitlines():
        match re.findall(r"\w+", line.partition("//")[0]):
            case [] | ["syntax", _]:
                pass
            case ["enum", name]:
                file.enum_type.add(name=name)
            case ["message", name]:
                file.message_type.add(name=name)
            case ["oneof", name]:
                file.message_type[-1].oneof_decl.add(name=name)
            case ["optional" | "repeated" as label, kind, name, number]:
                _add(file.message_type[-1], kind, name, int(number)).label = getattr(_Proto, f"LABEL_{label.upper()}")
            case [kind, name, number]:
                message = file.message_type[-1]
                _add(message, kind, name, int(number)).oneof_index = len(message.oneof_decl) - 1
            case [name, number]:
                file.enum_type[-1].value.add(name=name, number=int(number))
            case _:
                raise ValueError(f"is not a line of a .proto file: {line}")
    for message in () if oneofs else file.message_type:
        message.ClearField("oneof_decl")
        for field in message.field:
            field.ClearField("oneof_index")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(top))


def parse_text(text: str, message: Any, where: str, *, what: str, hint: str, last_wins: bool = False) -> None:
    """Fill a message from its text.

    A field that appears twice, or a second one of a oneof, is refused unless `last_wins`. Raises PlanError with line
    and column.
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


def _add(message: Any, kind: str, name: str, number: int) -> Any:
    """Add an optional field; a `kind` that is not a scalar is the name of a message or enum."""
    field = message.field.add(name=name, number=number, label=_Proto.LABEL_OPTIONAL)
    scalar = getattr(_Proto, f"TYPE_{kind.upper()}", None)
    if scalar is None:
        field.type_name = f".{kind}"  # the pool finds out which of the two
    else:
        field.type = scalar
    return field
