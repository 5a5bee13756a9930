"""The INT8 layers of a saved graph: found by AMCT's operators in it, and compared with what a record says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from autoquant.calibration.record import LayerRecord
from autoquant.model.layer import Layer
from autoquant.model.nodes import attr_of, channels_first, const_shape
from autoquant.model.operators import OPERATORS
from autoquant.targets import ascend_nodes as made
from autoquant.targets.attributes import FLOAT
from autoquant.targets.reading import Saved


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


def int8_layers(saved: Saved) -> Mapping[str, Int8Layer]:
    """Every layer that AscendDequant or AscendAntiQuant stands for, by name. Raises PlanError where it is not whole."""
    found = {}
    for node in saved.graph.nodes.values():
        if node.op in ("AscendDequant", "AscendAntiQuant"):
            one = _layer(saved, node) if node.op == "AscendDequant" else _tensor(saved, node)
            found[one.layer.name] = one
    return MappingProxyType(found)


def _layer(saved: Saved, dequant: Any) -> Int8Layer:
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


def _weight(saved: Saved, operator: Any, index: int) -> Any | None:
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


def _tensor(saved: Saved, anti: Any) -> Int8Layer:
    readers = [saved.graph.nodes[name] for name in saved.graph.consumers[anti.name]]
    if len(readers) != 1 or list(readers[0].input).count(anti.name) != 1:
        raise saved.error(anti.name, "is not read by one input of one operator")
    operator = readers[0]
    if operator.op not in OPERATORS or not OPERATORS[operator.op].tensor_only:
        raise saved.error(anti.name, f"is read by {operator.op}, whose inputs are not quantized by themselves")
    name = f"{operator.name}:{list(operator.input).index(anti.name)}"
    layer = Layer(name, operator.op, (saved.source(anti, 0).name,), -1, None, (), (), None, None, 0)
    return Int8Layer(layer, operator, None, anti)


def check_layer(saved: Saved, found: Int8Layer, records: Sequence[LayerRecord]) -> int:
    """Compare a layer with its entries, which fit it; the number of its weights. Raises PlanError where it differs."""
    for name, record in zip(found.layer.activations, records, strict=True):
        reader = found.end if found.layer.tensor_only else found.operator
        _check_quant(saved, saved.graph.nodes[name], reader, found.operator, record)
    if found.layer.tensor_only:
        saved.same(found.end, made.anti_quant_node(found.end.name, found.layer.activations[0], records[0].activation))
        return 0
    _check_float(saved, found.operator)
    weights = _check_weight(saved, found, records[0]) if found.layer.weight else 0
    if found.bias is not None:
        _check_bias(saved, found)
    _check_dequant(saved, found, records)
    return weights


def _check_quant(saved: Saved, quant: Any, reader: Any, operator: Any, record: LayerRecord) -> None:
    if not quant.input:
        raise saved.error(quant.name, "has no input")
    saved.same(quant, made.quant_node(quant.name, quant.input[0], record.activation))
    saved.read_by(quant, reader)
    if record.balance:
        mul = saved.source(quant, 0)
        saved.same_constant(mul, 1, made.inverse_factors(record.balance, operator))
        saved.same(mul, made.balance_node(mul.name, *mul.input[:2]))


def _check_weight(saved: Saved, found: Int8Layer, record: LayerRecord) -> int:
    index = found.layer.operator.weight
    assert index is not None
    quant = saved.source(found.operator, index)
    weight = saved.constant(quant, 0, np.int8)
    limit = 2 ** (record.weight_bits - 1)
    outside = weight[(weight < -limit) | (weight >= limit)]
    if outside.size:
        what = f"holds {outside[0]}, which is not a weight of {record.weight_bits} bits"
        raise saved.error(f"{quant.input[0]}.value", what)
    saved.same_constant(quant, 1, made.zero_offsets(record.scale_w, weight.shape, found.layer.channel_axes))
    saved.same(quant, made.weight_quant_node(quant.name, *quant.input[:2]))
    saved.read_by(quant, found.operator)
    return weight.size


def _check_bias(saved: Saved, found: Int8Layer) -> None:
    bias = found.bias
    assert bias is not None
    _check_float(saved, bias)
    if channels_first(bias) != channels_first(found.operator):
        raise saved.error(f"{bias.name}.data_format", f"is not that of '{found.operator.name}'")
    cast = saved.source(bias, 1)
    saved.constant(cast, 0, np.int32, (found.layer.channels,))
    saved.same(cast, made.bias_cast_node(cast.name, cast.input[0]))
    saved.read_by(found.operator, bias)


def _check_dequant(saved: Saved, found: Int8Layer, records: Sequence[LayerRecord]) -> None:
    before, one = saved.source(found.end, 0), records[0]
    activations = [record.activation for record in records]
    saved.same_constant(found.end, 1, made.deq_scales(found.layer.name, activations, one.scale_w, one.shift_bit))
    saved.same(found.end, made.dequant_node(found.end.name, before.name, found.end.input[1], found.operator))
    saved.read_by(before, found.end)


def _check_float(saved: Saved, node: Any) -> None:
    if attr_of(node, "T").type != FLOAT:
        raise saved.error(f"{node.name}.T", "is not DT_FLOAT")
