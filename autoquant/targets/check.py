"""A saved model against its record: everything that quantization wrote is read back and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.calibration.record import MATCH, LayerRecord, Record, record_layers
from autoquant.errors import ModelError
from autoquant.formats.quant_json import load_quant_json, quant_json_path
from autoquant.formats.record_text import load_record, record_path
from autoquant.model.nodes import FLOAT, attr_of, channels_first
from autoquant.model.operators import node_of, prefix_of
from autoquant.targets.ascend_functions import NAMES, functions_for
from autoquant.targets.ascend_nodes import (
    anti_quant_node,
    balance_node,
    bias_cast_node,
    deq_scales,
    dequant_node,
    inverse_factors,
    quant_node,
    weight_quant_node,
    zero_offsets,
)
from autoquant.targets.saved_graph import AGAIN, Int8Layer, SavedGraph, int8_layers, read_saved_graph


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A saved model that is as its record says.

    `layers` counts them by operator, `weights` the values in INT8. `left_out` are the entries of the record that are of
    operators which the file does not have, as none of its outputs depends on them. `simulation` says whether the file
    runs in stock TensorFlow, `mapping` whether <model>_quant.json is beside it, with the digest of its bytes.
    """

    layers: Mapping[str, int]
    weights: int
    left_out: tuple[str, ...]
    simulation: bool
    mapping: bool

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {operator}" for operator, count in self.layers.items())
        return f"<CheckResult: as recorded, {kinds}, {self.weights} weights in INT8>"


def check_file(pb: Path, record: Path | None = None) -> CheckResult:
    """`check` of files: without a record its own beside it, by the model's name or as record.txt.

    Raises ModelError where there is no such file, PlanError where the record cannot be read.
    """
    if not pb.is_file():
        raise ModelError(str(pb), "there is no such file", hint="give a quantized .pb")
    if record is None:
        own = record_path(pb)
        record = own if own.exists() else pb.with_name("record.txt")
    return check(pb, load_record(record))


def check(pb: Path, record: Record) -> CheckResult:
    """Read a saved model back, and compare all that quantization wrote with the record that it was saved with.

    The record may be that of a graph imported under a prefix. Every entry of it has its operators, unless the one that
    it is named after is not in the file at all, and no others exist; their attributes, constants and connections are
    bit for bit what the record gives, weights are within their bits, the functions are ours or not there, and the file
    has the digest that <model>_quant.json says, where that is beside it. What the record does not tell, such as the
    values of weights, only the digest protects. Raises ModelError where the file is not a graph, or a float one, and
    PlanError that names node and attribute where anything differs.
    """
    saved = read_saved_graph(pb)
    if not any(node.op in NAMES for node in saved.graph.nodes.values()):
        raise ModelError(str(pb), "has no operator of AMCT: it is a float model", hint="give a quantized .pb")
    found = int8_layers(saved)
    prefix = prefix_of(record, saved.graph.nodes)
    record = {name.removeprefix(prefix): entry for name, entry in record.items()}
    kept = {name: entry for name, entry in record.items() if node_of(name) in saved.graph.nodes}
    named = record_layers({name: one.layer for name, one in found.items()}, kept, model=pb.name)
    for name in sorted(found.keys() - {layer.name for layer, _ in named}):
        raise saved.error(name, "is in INT8, but not in the record", hint=MATCH)
    weights = sum(_check_layer(saved, found[layer.name], entries) for layer, entries in named)
    for node in saved.graph.nodes.values():
        if node.op in NAMES and node.name not in saved.checked:
            raise saved.error(node.name, f"is {node.op}, but belongs to no layer")
    kinds = Counter(layer.op for layer, _ in named)
    left_out = tuple(name for name in record if name not in kept)
    return CheckResult(dict(sorted(kinds.items())), weights, left_out, _has_functions(saved), _has_mapping(saved, pb))


def _check_layer(saved: SavedGraph, found: Int8Layer, records: Sequence[LayerRecord]) -> int:
    """Compare a layer with its entries, which fit it; the number of its weights. Raises PlanError where it differs."""
    for name, record in zip(found.layer.activations, records, strict=True):
        reader = found.end if found.layer.tensor_only else found.operator
        _check_quant(saved, saved.graph.nodes[name], reader, found.operator, record)
    if found.layer.tensor_only:
        saved.same(found.end, anti_quant_node(found.end.name, found.layer.activations[0], records[0].activation))
        return 0
    _check_float(saved, found.operator)
    weights = _check_weight(saved, found, records[0]) if found.layer.weight else 0
    if found.bias is not None:
        _check_bias(saved, found)
    _check_dequant(saved, found, records)
    return weights


def _check_quant(saved: SavedGraph, quant: Any, reader: Any, operator: Any, record: LayerRecord) -> None:
    if not quant.input:
        raise saved.error(quant.name, "has no input")
    saved.same(quant, quant_node(quant.name, quant.input[0], record.activation))
    saved.read_by(quant, reader)
    if record.balance:
        mul = saved.source(quant, 0)
        saved.same_constant(mul, 1, inverse_factors(record.balance, operator))
        saved.same(mul, balance_node(mul.name, *mul.input[:2]))


def _check_weight(saved: SavedGraph, found: Int8Layer, record: LayerRecord) -> int:
    index = found.layer.operator.weight
    assert index is not None
    quant = saved.source(found.operator, index)
    weight = saved.constant(quant, 0, np.int8)
    limit = 2 ** (record.weight_bits - 1)
    outside = weight[(weight < -limit) | (weight >= limit)]
    if outside.size:
        what = f"holds {outside[0]}, which is not a weight of {record.weight_bits} bits"
        raise saved.error(f"{quant.input[0]}.value", what)
    saved.same_constant(quant, 1, zero_offsets(record.scale_w, weight.shape, found.layer.channel_axes))
    saved.same(quant, weight_quant_node(quant.name, *quant.input[:2]))
    saved.read_by(quant, found.operator)
    return weight.size


def _check_bias(saved: SavedGraph, found: Int8Layer) -> None:
    bias = found.bias
    assert bias is not None
    _check_float(saved, bias)
    if channels_first(bias) != channels_first(found.operator):
        raise saved.error(f"{bias.name}.data_format", f"is not that of '{found.operator.name}'")
    cast = saved.source(bias, 1)
    saved.constant(cast, 0, np.int32, (found.layer.channels,))
    saved.same(cast, bias_cast_node(cast.name, cast.input[0]))
    saved.read_by(found.operator, bias)


def _check_dequant(saved: SavedGraph, found: Int8Layer, records: Sequence[LayerRecord]) -> None:
    before, one = saved.source(found.end, 0), records[0]
    activations = [record.activation for record in records]
    saved.same_constant(found.end, 1, deq_scales(found.layer.name, activations, one.scale_w, one.shift_bit))
    saved.same(found.end, dequant_node(found.end.name, before.name, found.end.input[1], found.operator))
    saved.read_by(before, found.end)


def _check_float(saved: SavedGraph, node: Any) -> None:
    if attr_of(node, "T").type != FLOAT:
        raise saved.error(f"{node.name}.T", "is not DT_FLOAT")


def _has_functions(saved: SavedGraph) -> bool:
    """Whether the functions are there. Raises PlanError where they are not those that run the graph."""
    library = saved.graph.library.function if saved.graph.library is not None else ()
    there = [function for function in library if function.signature.name in NAMES]
    ours = {function.signature.name: function for function in functions_for(saved.graph).function}
    for function in there:
        if function != ours[function.signature.name]:
            raise saved.error(f"function {function.signature.name}", "is not the one that runs this graph")
    if there and sorted(function.signature.name for function in there) != list(NAMES):
        raise saved.error("functions", f"of {', '.join(NAMES)} each must be there once, or none")
    return bool(there)


def _has_mapping(saved: SavedGraph, pb: Path) -> bool:
    """Whether <model>_quant.json is there. Raises PlanError where it is of another file."""
    path = quant_json_path(pb)
    if not path.exists():
        return False
    mapping = load_quant_json(path)
    if mapping.sha256 != saved.digest:
        raise saved.error("sha256", f"is not the one in {path.name}")
    for name in mapping.nodes:
        if name not in saved.graph.nodes:
            raise saved.error(name, f"is in {path.name}, but not in the graph", hint=AGAIN)
    return True
