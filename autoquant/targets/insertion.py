"""One layer in INT8: the nodes that take the place of its operator.

    activation -> [Mul] -> AscendQuant -> operator -> BiasAdd -> AscendDequant -> readers
                 INT8 weight -> AscendWeightQuant ^      ^- INT32 bias

AscendDequant takes the name of the BiasAdd, or of the operator where there is none, so a layer's result is found under
its own name, in real units, in the INT8 graph as well. The Mul is there where a balancer moved channels of the
activation into the weight. An operator that is quantized by an input alone keeps its name and its work:

    activation -> AscendQuant -> AscendAntiQuant -> that one input of the operator
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.calibration.record import LayerRecord, float_weight
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.model import known_constant
from autoquant.model.nodes import changed_node, make_const
from autoquant.model.operators import node_of
from autoquant.quantization.affine import quantize_bias, quantize_weight
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
from autoquant.targets.base import NO_CORRECTIONS, Corrections


@dataclass(frozen=True, slots=True)
class NewNode:
    """A node of an INT8 graph, and the nodes of the float graph that it stands for."""

    node: Any
    stands_for: tuple[str, ...]


def layer_nodes(
    graph: Graph, layer: Layer, records: Sequence[LayerRecord], corrections: Corrections = NO_CORRECTIONS
) -> list[NewNode]:
    """All nodes of one INT8 layer; those that carry the name of a float node replace it.

    `records` has one entry for each of the layer's activations, and fits the layer. Raises TrialError where a bias
    exceeds INT32 or scales multiply to nothing.
    """
    return _tensor(graph, layer, records[0]) if layer.tensor_only else _operator(graph, layer, records, corrections)


def _operator(graph: Graph, layer: Layer, records: Sequence[LayerRecord], corrections: Corrections) -> list[NewNode]:
    float_node, record = graph.nodes[layer.name], records[0]
    weight = _weight(graph, layer, record, corrections.weights.get(layer.name)) if layer.weight else []
    bias = _bias(graph, layer, record, corrections.biases.get(layer.name)) if layer.bias else []
    edges, parts = list(float_node.input), [*weight, *bias]
    places = (layer.operator.data,) if len(records) == 1 else range(len(records))
    for number, (place, one) in enumerate(zip(places, records, strict=True)):
        quant = _quant(graph, layer, float_node, number, layer.activations[number], one)
        edges[place] = quant[-1].node.name
        parts += quant
    if layer.operator.weight is not None and weight:
        edges[layer.operator.weight] = weight[-1].node.name
    inner = layer.name if layer.bias else graph.free_name(f"{layer.name}/quant_op")
    parts.append(NewNode(changed_node(float_node, name=inner, inputs=edges), (layer.name,)))
    packed = deq_scales(layer.name, [one.activation for one in records], record.scale_w, record.shift_bit)
    scale = make_const(graph.free_name(f"{layer.name}/dequant/deq_scale"), packed)
    source = bias[-1].node.name if bias else inner
    own = (layer.name, layer.bias) if layer.bias else (layer.name,)
    dequant = dequant_node(own[-1], source, scale.name, float_node)
    return [*parts, NewNode(scale, (layer.name,)), NewNode(dequant, own)]


def _tensor(graph: Graph, layer: Layer, record: LayerRecord) -> list[NewNode]:
    (index,) = layer.places
    float_node, edge = graph.nodes[layer.node], layer.activations[0]
    parts = _quant(graph, layer, float_node, index, edge, record)
    name = graph.free_name(f"{_prefix(layer, index)}/AscendAntiQuant")
    anti = anti_quant_node(name, parts[-1].node.name, record.activation)
    edges = list(float_node.input)
    edges[index] = anti.name
    return [*parts, NewNode(anti, (node_of(edge),)), NewNode(changed_node(float_node, inputs=edges), (layer.node,))]


def _prefix(layer: Layer, index: int) -> str:
    return f"{layer.node}/act_quant_{index}" if index else f"{layer.node}/act_quant"


def _quant(graph: Graph, layer: Layer, node: Any, index: int, tensor: str, record: LayerRecord) -> list[NewNode]:
    """The nodes from an activation to its integers."""
    prefix, of, parts = _prefix(layer, index), (node_of(tensor),), []
    if record.balance:
        factors = make_const(graph.free_name(f"{prefix}/balance"), inverse_factors(record.balance, node))
        balanced = balance_node(graph.free_name(f"{prefix}/Mul"), tensor, factors.name)
        parts, tensor = [NewNode(factors, of), NewNode(balanced, of)], balanced.name
    return [*parts, NewNode(quant_node(graph.free_name(f"{prefix}/AscendQuant"), tensor, record.activation), of)]


def _weight(graph: Graph, layer: Layer, record: LayerRecord, integers: Array | None) -> list[NewNode]:
    """The INT8 weight, rounded to nearest where no `integers` are given, its offsets and AscendWeightQuant."""
    assert layer.weight is not None
    offsets = zero_offsets(record.scale_w, layer.weight_shape, layer.channel_axes)
    prefix, of = f"{layer.name}/weight_quant", (layer.weight,)
    if integers is None:
        weight, scales = float_weight(graph, layer, record.balance), np.array(record.scale_w, np.float32)
        integers = quantize_weight(weight, scales, layer.channel_axes, bits=record.weight_bits)
    steps = make_const(graph.free_name(f"{prefix}/weight"), integers)
    offset_w = make_const(graph.free_name(f"{prefix}/offset_w"), offsets)
    quant = weight_quant_node(graph.free_name(f"{prefix}/AscendWeightQuant"), steps.name, offset_w.name)
    return [NewNode(node, of) for node in (steps, offset_w, quant)]


def _bias(graph: Graph, layer: Layer, record: LayerRecord, correction: Array | None) -> list[NewNode]:
    """The INT32 bias, its Cast and the BiasAdd."""
    assert layer.bias is not None
    node = graph.nodes[layer.bias]
    prefix, of = f"{layer.name}/bias_quant", (node_of(node.input[1]),)
    scales = np.array(record.scale_w, np.float32)
    value = known_constant(graph, node.input[1])
    value = value if correction is None else value.astype(np.float64) + correction
    integers = quantize_bias(layer.name, value, record.activation.scale, scales)
    steps = make_const(graph.free_name(f"{prefix}/bias"), integers)
    cast = bias_cast_node(graph.free_name(f"{prefix}/Cast"), steps.name)
    adding = changed_node(node, name=graph.free_name(f"{prefix}/BiasAdd"), inputs=[layer.name, cast.name])
    return [NewNode(steps, of), NewNode(cast, of), NewNode(adding, (layer.bias,))]
