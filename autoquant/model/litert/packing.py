"""Tables of a .tflite as bytes that are known from earlier files: packing them is most of what writing a file takes.

Files of one model, as trials and calibration write them, differ in few tensors and operators.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np

PLAIN = frozenset({bool, bytes, float, int, str, type(None)})
MOST_BYTES = 1 << 24
"""Bytes of tables, and of what they are known by, that are kept at most."""


@dataclass(frozen=True, slots=True)
class _Packed:
    """A table with all that it refers to, as it lies before the end of a file, but for the vtables.

    `tables` are what a builder knows the vtable of each by, and how far before the end of `content` the table begins;
    the last one is the table itself. The end must be `aligned` to so many bytes.
    """

    content: bytes
    tables: tuple[tuple[tuple[int, ...], int], ...]
    aligned: int

    @classmethod
    def of(cls, table: Any, builder: Any) -> _Packed:
        """Pack an object of the schema with an empty builder."""
        builder.vtables = _Vtables(builder)
        table.Pack(builder)
        content = bytes(memoryview(builder.Bytes)[builder.Head() :])
        return cls(content, tuple(builder.vtables.asked), builder.minalign)

    def place(self, builder: Any) -> int:
        """Add it to a file, and vtables that are not there yet; returns how far before the end the table is."""
        places = [_vtable(builder, key) for key, _ in self.tables]
        builder.Prep(self.aligned, 0)
        base, size = builder.Offset(), len(self.content)
        builder.Prep(1, size)  # makes room
        builder.head -= size
        builder.Bytes[builder.head : builder.head + size] = self.content
        for place, (_, own) in zip(places, self.tables, strict=True):
            struct.pack_into("<i", builder.Bytes, len(builder.Bytes) - base - own, place - base - own)
        return int(base + self.tables[-1][1])


class _Vtables:
    """Takes the place of a builder's known vtables, and has them all: none is written."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self.asked: list[tuple[tuple[int, ...], int]] = []

    def get(self, key: tuple[int, ...]) -> int:
        """Where it is: that is filled in later. The table that asks has just been begun."""
        self.asked.append((key, self._builder.Offset()))
        return 0


class _Known:
    """An object of the schema that is packed by what is known of it."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def Pack(self, builder: Any) -> int:  # noqa: N802  # the schema calls it so
        """Pack it as the object itself does."""
        return KNOWN.packed(self._table, type(builder)).place(builder)


class _Cache:
    """Packed tables by their content."""

    def __init__(self) -> None:
        self._packed: dict[Any, _Packed] = {}
        self._size = 0

    def packed(self, table: Any, new_builder: Callable[[int], Any]) -> _Packed:
        """A table as it was packed before, or anew with a builder of some bytes."""
        key = _content(table)
        if (found := self._packed.get(key)) is None:
            found = _Packed.of(table, new_builder(1024))
            if self._size > MOST_BYTES:
                self._packed, self._size = {}, 0
            self._packed[key] = found
            self._size += 4 * len(found.content)  # the key takes more than the bytes
        return found


KNOWN = _Cache()


def with_known(model: Any) -> Any:
    """A model (ModelT) to be packed, whose tensors and operators are packed by what is known of them."""
    result = copy(model)
    result.subgraphs = None if model.subgraphs is None else [copy(graph) for graph in model.subgraphs]
    for graph in result.subgraphs or ():
        graph.tensors = None if graph.tensors is None else [_Known(one) for one in graph.tensors]
        graph.operators = None if graph.operators is None else [_Known(one) for one in graph.operators]
    return result


def _vtable(builder: Any, key: tuple[int, ...]) -> int:
    """How far before the end of a file a vtable is, which is written where it is not there.

    The key has the places of fields in their table, the last field first, and the size of the table.
    """
    found = builder.vtables.get(key)
    if found is None:
        for number in (*key, 2 * len(key) + 2):
            builder.PrependVOffsetT(number)
        found = builder.vtables[key] = builder.Offset()
    return int(found)


def _content(value: Any) -> Any:
    """What tells an object of the schema, or a value in it, from others."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is np.ndarray:
        return value.dtype.str, value.tobytes()
    if kind is list:
        return tuple(map(_content, value))
    if hasattr(value, "__dict__"):
        return kind, *map(_content, vars(value).values())
    return value
