"""Dataclasses as the objects of JSON files, and back: what such a file holds is written down in the dataclass alone.

A field is a bool, int, float, str, an enum of strings, another dataclass, a tuple or a mapping of these, or any of them
or None. None is null, and so is an infinite number that is the field's default; null, or no such key, is the default.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from autoquant.errors import InputError
from autoquant.files import write_text
from autoquant.formats.strict import Fields, load_object

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
ELSEWHERE: Mapping[str, Any] = MappingProxyType({"elsewhere": True})
"""Metadata of a field that is not in the object: whoever reads that passes its value."""


def encode(value: Any) -> Any:
    """A value of these kinds as JSON has it; what it holds is what `decode` reads."""
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: _encode_field(value, entry) for entry in _stored(type(value))}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key: encode(each) for key, each in value.items()}
    return [encode(each) for each in value] if isinstance(value, tuple | list) else value


def without_nulls(facts: Any) -> Any:
    """The same facts with no key whose value is null, at any depth."""
    if isinstance(facts, dict):
        return {key: without_nulls(value) for key, value in facts.items() if value is not None}
    return [without_nulls(value) for value in facts] if isinstance(facts, list) else facts


def json_text(facts: Any) -> str:
    """The text of a JSON file, keys sorted; raises ValueError for NaN and infinity."""
    return json.dumps(facts, indent=2, sort_keys=True, allow_nan=False) + "\n"


def json_object_text(texts: Mapping[str, str]) -> str:
    """The `json_text` of an object of which that of each value is known.

    >>> json_object_text({"a": json_text([1])}) == json_text({"a": [1]})
    True
    """
    entries = (f"{json.dumps(name)}: {texts[name].rstrip()}".replace("\n", "\n  ") for name in sorted(texts))
    return "{\n  " + ",\n  ".join(entries) + "\n}\n" if texts else json_text({})


def file_facts(value: Any) -> dict[str, Any]:
    """What a JSON file of a dataclass holds: its version, and all that is known."""
    return {"version": 1, **without_nulls(encode(value))}


def save(value: Any, path: Path) -> None:
    """Write a dataclass to a JSON file, whole or not at all. Raises RunError."""
    write_text(path, json_text(file_facts(value)))


def load(kind: type[T], path: Path, error: type[InputError], *, hint: str) -> T:
    """Read what `save` wrote, and nothing else. Raises `error` that names the file and the key."""
    found = load_object(path, error, hint=hint)
    found.only("version", [1], 0)
    value = decode(kind, found)
    found.done()
    return value


def decode(kind: type[T], found: Fields, **elsewhere: Any) -> T:
    """The dataclass whose `encode` is an object; `elsewhere` are the values of fields that are not in it.

    Other keys are left to be read, or refused by `found.done()`; in objects inside they are refused. Raises the error
    of `found`, with the path, for what is missing, of another kind, or refused by the dataclass itself.
    """
    hints, values = _hints(kind), dict(elsewhere)
    for entry in _stored(kind):
        value = found.raw(entry.name)
        if value is not None:
            values[entry.name] = _decode_value(hints[entry.name], found, entry.name, value)
        elif entry.default is MISSING and entry.default_factory is MISSING:
            what = f"is missing, expected {_name(hints[entry.name])}"
            raise found.error(entry.name, what, hint=f'add "{entry.name}"')
    return found.build(lambda: kind(**values))


def _encode_field(value: Any, entry: Field[Any]) -> Any:
    found = getattr(value, entry.name)
    endless = isinstance(found, float) and math.isinf(found) and found == entry.default
    return None if endless else encode(found)


def _decode_value(kind: Any, found: Fields, key: str, value: Any) -> Any:
    kind = _without_none(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        inside = found.nested(value, key)
        made = decode(kind, inside)
        inside.done()
        return made
    if get_origin(kind) is Mapping:
        inside = found.nested(value, key)
        return {name: _decode_value(get_args(kind)[1], inside, name, each) for name, each in inside.rest().items()}
    if get_origin(kind) is tuple:
        listed = found.checked(key, value, list)
        return tuple(
            _decode_value(get_args(kind)[0], found, f"{key}[{place}]", each) for place, each in enumerate(listed)
        )
    if issubclass(kind, Enum):
        return kind(found.chosen(key, value, [each.value for each in kind]))
    right = found.checked(key, value, kind)
    if kind is float and not math.isfinite(right):
        raise found.error(key, f"must be finite, got {value!r}", hint="leave it out where there is none")
    return right


def _without_none(kind: Any) -> Any:
    """The one kind of `kind | None`."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    (only,) = (each for each in get_args(kind) if each is not NoneType)
    return only


def _name(kind: Any) -> str:
    """What JSON calls values of a kind, or Python where it has the same word."""
    kind = _without_none(kind)
    if is_dataclass(kind) or get_origin(kind) is Mapping:
        return "an object"
    if get_origin(kind) is tuple:
        return "list"
    return "str" if issubclass(kind, str) else str(kind.__name__)


def _stored(kind: type[DataclassInstance]) -> list[Field[Any]]:
    """The fields that are in the object."""
    return [entry for entry in fields(kind) if not entry.metadata.get("elsewhere")]


_hints = cache(get_type_hints)
