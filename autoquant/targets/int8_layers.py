"""The INT8 layers of a saved graph, found by AMCT's operators in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.model.layer import Layer
from autoquant.model.nodes import channels_first, const_shape
from autoquant.model.operators import OPERATORS
from autoquant.targets.saved_graph import SavedGraph


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
