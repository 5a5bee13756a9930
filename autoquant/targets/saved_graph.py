"""A saved graph, read back, and comparisons that name the node and the attribute that differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from autoquant.array import Array
from autoquant.errors import ModelError, PlanError
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.operators import node_of

AGAIN = "the file or the record was changed after it was saved: save it again, from the float model"


@dataclass(frozen=True)
class SavedGraph:
    """The graph of a saved file and the digest (SHA-256, hex) of its bytes; `where` is what errors call it.

    `checked` are the nodes that were found to be what they should be.
    """

    graph: Graph
    digest: str
    where: str
    checked: set[str] = field(default_factory=set)

    def error(self, place: str, what: str, *, hint: str = AGAIN) -> PlanError:
        """The error for a node, or for an attribute of one."""
        return PlanError(f"{self.where}: {place}", what, hint=hint)

    def source(self, reader: Any, index: int) -> Any:
        """The node whose first output an input reads. Raises PlanError where there is none."""
        if index >= len(reader.input):
            raise self.error(reader.name, f"has no input {index}")
        edge = reader.input[index]
        if edge != node_of(edge):
            raise self.error(reader.name, f"its input {index} is '{edge}', not the first output of a node")
        return self.graph.nodes[edge]

    def same(self, node: Any, expected: Any) -> None:
        """Raise PlanError unless operator, inputs and every attribute of a node are as expected."""
        if node.op != expected.op:
            raise self.error(node.name, f"is {node.op}, where {expected.op} is expected")
        if list(node.input) != list(expected.input):
            raise self.error(node.name, f"reads {_listed(node.input)}, where {_listed(expected.input)} is expected")
        for key in sorted({*node.attr, *expected.attr}):
            if _encoded(node, key) != _encoded(expected, key):
                raise self.error(f"{node.name}.{key}", f"is {_shown(node, key)}, expected is {_shown(expected, key)}")
        self.checked.add(node.name)

    def read_by(self, node: Any, reader: Any) -> None:
        """Raise PlanError unless one node, and no other, reads another one."""
        for other in self.graph.consumers[node.name]:
            if other != reader.name:
                raise self.error(other, f"reads '{node.name}', which is for '{reader.name}' alone")

    def constant(self, reader: Any, index: int, kind: type[np.generic], shape: Sequence[int] | None = None) -> Array:
        """The value of an input of this type, and this shape if given. Raises PlanError where it is none."""
        node = self.source(reader, index)
        if node.op != "Const" or {*node.attr} != {"dtype", "value"}:
            raise self.error(node.name, f"is {node.op}, where '{reader.name}' needs a plain constant")
        try:
            value = self.graph.constant(node.name)
        except (ValueError, TypeError, KeyError, MemoryError) as error:
            raise self.error(f"{node.name}.value", f"cannot be read ({error})") from None
        assert value is not None
        if value.dtype != kind or node.attr["dtype"].type != node.attr["value"].tensor.dtype:
            raise self.error(f"{node.name}.dtype", f"is {value.dtype}, expected is {np.dtype(kind)}")
        if shape is not None and value.shape != tuple(shape):
            raise self.error(f"{node.name}.value", f"has the shape {value.shape}, expected is {tuple(shape)}")
        return value

    def same_constant(self, reader: Any, index: int, expected: Array) -> None:
        """Raise PlanError unless an input is a constant of exactly these values."""
        value = self.constant(reader, index, expected.dtype.type, expected.shape)
        wrong = np.flatnonzero(value.reshape(-1) != expected.reshape(-1))
        if wrong.size:
            there, wanted = value.reshape(-1)[wrong[0]], expected.reshape(-1)[wrong[0]]
            what = f"is {there} at {wrong[0]}, expected is {wanted}"
            raise self.error(f"{node_of(reader.input[index])}.value", what)


def read_saved_graph(path: Path) -> SavedGraph:
    """Read a saved .pb. Raises ModelError where it is none, or not whole."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror or error}", hint="give a quantized .pb") from None
    graph_def = GraphDef()
    try:
        graph_def.ParseFromString(content)
    except DecodeError as error:
        raise ModelError(str(path), "is not a GraphDef, or is incomplete", hint="give a quantized .pb") from error
    graph = Graph.from_graph_def(graph_def, inputs=(), outputs=())
    return SavedGraph(graph, sha256(content).hexdigest(), path.name)


def _encoded(node: Any, key: str) -> bytes | None:
    """An attribute, bit for bit; None without it."""
    return bytes(node.attr[key].SerializeToString(deterministic=True)) if key in node.attr else None


def _shown(node: Any, key: str) -> str:
    text = " ".join(str(node.attr[key]).split()) if key in node.attr else "nothing"
    return re.sub(r"^\w+: ", "", text)  # which kind of value it is


def _listed(edges: Sequence[str]) -> str:
    return ", ".join(f"'{edge}'" for edge in edges) or "nothing"
