"""A saved graph, read back: its INT8 layers, and comparisons that name the node and the attribute that differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from autoquant.array import Array
from autoquant.errors import ModelError, PlanError
from autoquant.model.graph import Graph, GraphDef
from autoquant.model.layer import Layer
from autoquant.model.nodes import channels_first, const_shape
from autoquant.model.operators import OPERATORS, node_of

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


@dataclass(frozen=True, slots=True)
class Int8Layer:
    """A layer in a graph, as it was in the float graph but for its activations, which are its AscendQuant.

    `end` is its AscendDequant, of an input that is quantized by itself the AscendAntiQuant; `bias` the BiasAdd where
    there is one.
    """

    layer: Layer
    operator: Any
    bias: Any | None
    end: Any


def int8_layers(saved: SavedGraph) -> Mapping[str, Int8Layer]:
    """Every layer that AscendDequant or AscendAntiQuant stands for, by name. Raises PlanError where it is not whole."""
    found = {}
    for node in saved.graph.nodes.values():
        if node.op in ("AscendDequant", "AscendAntiQuant"):
            one = _layer(saved, node) if node.op == "AscendDequant" else _tensor(saved, node)
            found[one.layer.name] = one
    return MappingProxyType(found)


def _layer(saved: SavedGraph, dequant: Any) -> Int8Layer:
    before = saved.source(dequant, 0)
    bias = before if before.op == "BiasAdd" else None
    operator = saved.source(bias, 0) if bias is not None else before
    known = OPERATORS.get(operator.op)
    if known is None or known.tensor_only:
        raise saved.error(dequant.name, f"reads '{operator.name}' ({operator.op}), which has no form in INT8")
    weight = None if known.weight is None else _weight(saved, operator, known.weight)
    places = range(2) if known.rank is None and weight is None else [known.data]
    layer = Layer(
        name=dequant.name if bias is None else operator.name,
        op=operator.op,
        activations=tuple(saved.source(operator, place).name for place in places),
        data_axis=1 if channels_first(operator) else -1,
        weight=None if weight is None else weight.name,
        weight_shape=() if weight is None else const_shape(weight),
        channel_axes=() if weight is None else known.channel_axes,
        bias=None if bias is None else dequant.name,
        output_shape=None,
        macs=None,
    )
    return Int8Layer(layer, operator, bias, dequant)


def _weight(saved: SavedGraph, operator: Any, index: int) -> Any | None:
    """The Const of a layer's INT8 weight; None where the operator multiplies two activations."""
    known, quant = OPERATORS[operator.op], saved.source(operator, index)
    if quant.op == "AscendQuant" and known.rank is None:
        return None
    if quant.op != "AscendWeightQuant":
        raise saved.error(operator.name, f"its weight comes from {quant.op}, where AscendWeightQuant is expected")
    weight = saved.constant(quant, 0, np.int8)
    rank = 1 + max(known.input_axis, *known.channel_axes)
    if weight.ndim != rank:
        raise saved.error(f"{quant.input[0]}.value", f"has {weight.ndim} axes, expected are {rank}")
    return saved.source(quant, 0)


def _tensor(saved: SavedGraph, anti: Any) -> Int8Layer:
    readers = [saved.graph.nodes[name] for name in saved.graph.consumers[anti.name]]
    if len(readers) != 1 or list(readers[0].input).count(anti.name) != 1:
        raise saved.error(anti.name, "is not read by one input of one operator")
    operator = readers[0]
    if operator.op not in OPERATORS or not OPERATORS[operator.op].tensor_only:
        raise saved.error(anti.name, f"is read by {operator.op}, whose inputs are not quantized by themselves")
    name = f"{operator.name}:{list(operator.input).index(anti.name)}"
    layer = Layer(name, operator.op, (saved.source(anti, 0).name,), -1, None, (), (), None, None, 0)
    return Int8Layer(layer, operator, None, anti)
