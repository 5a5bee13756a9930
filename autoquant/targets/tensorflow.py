"""The TensorFlow target: one frozen graph with AMCT's operators, for Ascend and for stock TensorFlow alike.

A layer becomes

    activation -> AscendQuant -> operator -> BiasAdd -> AscendDequant -> readers
            INT8 weight -> AscendWeightQuant ^      ^- INT32 bias

AscendDequant takes the name of the BiasAdd, or of the operator where there is none, so a layer's result is found under
its own name, in real units, in the INT8 graph as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow.core.framework import function_pb2

from autoquant.calibration.record import LayerRecord, Record
from autoquant.errors import PlanError
from autoquant.files import write_bytes
from autoquant.model.graph import Graph, data_format, make_const, make_node
from autoquant.model.layers import Layer
from autoquant.quantization.affine import Array
from autoquant.quantization.weights import quantize_bias, quantize_weight, spread
from autoquant.targets.ascend_functions import FLOAT, INT32, WINDOW, library, type_attr


class TensorFlowTarget:
    """Writes `<name>_quantized.pb`."""

    name = "tensorflow"

    def file_name(self, model: str) -> str:
        """As AMCT names it."""
        return f"{model}_quantized.pb"

    def save(self, graph: Graph, layers: Mapping[str, Layer], record: Record, path: Path) -> None:
        """Write the graph with the layers of the record in INT8."""
        graph_def = quantized(graph, layers, record).to_graph_def()
        write_bytes(path, graph_def.SerializeToString(deterministic=True))


def quantized(graph: Graph, layers: Mapping[str, Layer], record: Record) -> Graph:
    """The graph with the layers of the record in INT8.

    Raises PlanError where the record does not fit the model, TrialError where a bias exceeds INT32.
    """
    nodes: list[Any] = []
    for name, scales in record.items():
        if name not in layers:
            raise PlanError(name, "is in the record but is no quantizable layer", hint="is the record of this model?")
        nodes.extend(_layer_nodes(graph, layers[name], scales))
    edited = graph.edit(put=nodes).pruned()
    functions = function_pb2.FunctionDefLibrary()
    functions.CopyFrom(library())
    if graph.library is not None:
        functions.MergeFrom(graph.library)
    return Graph(edited.nodes, graph.inputs, graph.outputs, functions)


def _layer_nodes(graph: Graph, layer: Layer, record: LayerRecord) -> list[Any]:
    """All nodes of one INT8 layer; those that carry the name of a float node replace it."""
    scales = np.array(record.scale_w, np.float32)
    if scales.size not in (1, layer.channels):
        what = f"scale_w's length {scales.size} should be 1 or the number of channels, {layer.channels}"
        raise PlanError(layer.name, what, hint="is the record of this model?")
    scale_d = record.activation.scale
    inner = layer.name if layer.bias else graph.free_name(f"{layer.name}/quant_op")
    quant = make_node(
        graph.free_name(f"{layer.name}/act_quant/AscendQuant"),
        "AscendQuant",
        [layer.activation],
        T=type_attr(FLOAT),
        quant_bits=8,
        scale=float(np.float32(1.0) / np.float32(scale_d)),
        offset=float(record.activation.offset),
    )
    weight = _weight_nodes(graph, layer, scales)
    operator = _renamed(graph.nodes[layer.name], inner, [quant.name, weight[-1].name])
    bias = _bias_nodes(graph, layer, scale_d, scales) if layer.bias else []
    deq_scale = make_const(
        graph.free_name(f"{layer.name}/dequant/deq_scale"), _deq_scale(graph, layer, scale_d, scales)
    )
    dequant = make_node(
        layer.bias or layer.name,
        "AscendDequant",
        [bias[-1].name if bias else inner, deq_scale.name],
        T=type_attr(FLOAT),
        ksize=WINDOW,
        data_format=data_format(graph.nodes[layer.name]),
    )
    return [quant, *weight, operator, *bias, deq_scale, dequant]


def _weight_nodes(graph: Graph, layer: Layer, scales: Array) -> list[Any]:
    weight = graph.constant(layer.weight)
    assert weight is not None, layer.name
    offsets = spread(np.zeros(scales.size, np.int8), weight.ndim, weight.shape, layer.channel_axes)
    prefix = f"{layer.name}/weight_quant"
    steps = make_const(graph.free_name(f"{prefix}/weight"), quantize_weight(weight, scales, layer.channel_axes))
    offset_w = make_const(graph.free_name(f"{prefix}/offset_w"), offsets)
    name = graph.free_name(f"{prefix}/AscendWeightQuant")
    return [steps, offset_w, make_node(name, "AscendWeightQuant", [steps.name, offset_w.name], T=type_attr(FLOAT))]


def _bias_nodes(graph: Graph, layer: Layer, scale_d: float, scales: Array) -> list[Any]:
    assert layer.bias is not None
    node = graph.nodes[layer.bias]
    bias = graph.constant(node.input[1])
    assert bias is not None, layer.bias
    prefix = f"{layer.name}/bias_quant"
    steps = make_const(graph.free_name(f"{prefix}/bias"), quantize_bias(layer.name, bias, scale_d, scales))
    cast = make_node(
        graph.free_name(f"{prefix}/Cast"), "Cast", [steps.name], SrcT=type_attr(INT32), DstT=type_attr(FLOAT)
    )
    return [steps, cast, _renamed(node, graph.free_name(f"{prefix}/BiasAdd"), [layer.name, cast.name])]


def _deq_scale(graph: Graph, layer: Layer, scale_d: float, scales: Array) -> Array:
    """Each scale_d * scale_w as the low 32 bits of a uint64; shift and offset_w above them are 0."""
    products = (np.float32(scale_d) * scales).astype(np.float32).view(np.uint32).astype(np.uint64)
    channels_first = data_format(graph.nodes[layer.name]) == b"NCHW" and products.size > 1
    return products.reshape(-1, 1, 1) if channels_first else products


def _renamed(node: Any, name: str, inputs: list[str]) -> Any:
    copy = type(node)()
    copy.CopyFrom(node)
    copy.name = name
    del copy.input[:]
    copy.input.extend(inputs)
    return copy
