"""Quantized graphs of TensorFlow as .tflite files with float kernels, so that they can be scored fast.

    TensorFlow   x -> [Mul] -> AscendQuant -> operator(INT8 weight) -> BiasAdd(INT32) -> AscendDequant
    .tflite      x -> [MUL] -> QUANTIZE -> DEQUANTIZE -> operator(its integers * scale, bias * scale)

Both compute sums of the same integers times the same scales; only where the scale comes in differs, so results differ
by rounding in float32 alone. (QUANTIZE of XNNPACK rounds half to even, as AscendQuant does.) The graph is converted
once, without any quantizers; for each saved file the layers that are quantized in it are edited in the flatbuffer, with
what that file itself holds, and so are layers in float that have other constants there, as in equalized graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from autoquant.errors import TrialError
from autoquant.evaluation.engines.fake_quant_layers import OTHER_ENGINE, Pair, RealLayer, changed_layers, real_layers
from autoquant.evaluation.engines.fake_quant_places import Place, find_places, is_transposed
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.convert import convert
from autoquant.model.litert.flatbuffer import Array
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.matching import laid_out
from autoquant.model.litert.operators import AddedOperators, hold_int8
from autoquant.targets.reading import Saved

FLOAT32 = schema.TensorType.FLOAT32


@dataclass(frozen=True)
class Simulation:
    """A graph converted once, and where its layers are in that; `reasons` says why others cannot be simulated.

    `layers` are those that have a place; `activations` gives for what they read, by its name in the graph, that of the
    tensor in the .tflite.
    """

    graph: Graph
    lite: LiteGraph
    layers: Mapping[str, Layer]
    places: Mapping[str, Place]
    reasons: Mapping[str, str]
    activations: Mapping[str, str]

    @classmethod
    def of(cls, graph: Graph, layers: Iterable[Layer]) -> Simulation:
        """Convert a normalized graph. Raises ModelError where an operator cannot be."""
        lite = convert(graph)
        given = list(layers)
        places = find_places(graph, given, lite)
        known = {layer.name: layer for layer in given if layer.name in places.found}
        read: dict[str, str] = {}
        for name, layer in known.items():
            read |= _read(layer, places.found[name], lite)
        return cls(graph, lite, known, places.found, places.reasons, read)

    def content(self, saved: Saved) -> bytes:
        """The .tflite that computes what a saved graph of this model computes.

        Raises TrialError where one of its layers cannot be simulated.
        """
        edit = _Edit(self.lite)
        quantized = real_layers(saved, self.graph)
        in_float = self.layers.keys() - {layer.layer.name for layer in quantized}
        changed = changed_layers(saved, self.graph, [self.layers[name] for name in in_float])
        layers = [(self._place(layer.layer.name), layer) for layer in (*quantized, *changed)]
        for place, layer in sorted(layers, key=lambda pair: pair[0].operator):
            edit.change(place, layer)
        return edit.content()

    def _place(self, layer: str) -> Place:
        if layer not in self.places:
            reason = self.reasons.get(layer, "it is not a layer of the float model")
            raise TrialError(layer, f"cannot be fake-quantized on LiteRT: {reason}", hint=OTHER_ENGINE)
        return self.places[layer]


def _read(layer: Layer, place: Place, lite: LiteGraph) -> Mapping[str, str]:
    """What a layer reads, and what its operator does; nothing where the channels are not on the same axis of both."""
    tensors = [lite.subgraph.tensors[lite.subgraph.operators[place.operator].inputs[number]] for number in place.data]
    last = (flatbuffer.shape_of(tensors[0]) or (None,))[-1]
    channels = layer.weight_shape[layer.operator.input_axis] * layer.groups if layer.weight else last
    if layer.data_axis != -1 or last != channels:
        return {}
    return dict(zip(layer.activations, map(flatbuffer.tensor_name, tensors), strict=True))


class _Edit:
    """A copy of a .tflite that shares all that is not changed; operators are edited in the order in which they run."""

    def __init__(self, lite: LiteGraph) -> None:
        self._model: Any = copy(lite.model)
        self._graph: Any = copy(lite.subgraph)
        self._model.subgraphs = [self._graph, *lite.model.subgraphs[1:]]
        self._model.operatorCodes = list(lite.model.operatorCodes)
        self._model.buffers = list(lite.model.buffers)
        self._graph.tensors = list(lite.subgraph.tensors)
        self._operators: dict[int, Any] = dict(enumerate(lite.subgraph.operators))
        self._before: dict[int, list[Any]] = {}
        self._new = AddedOperators(self._model)
        self._pairs: dict[tuple[int, float, int], int] = {}

    def change(self, place: Place, layer: RealLayer) -> None:
        """Let an operator compute what a layer does; without pairs that reads what it did."""
        op = self._operator(place.operator)
        for number, pair in zip(place.data if layer.pairs else (), layer.pairs, strict=True):
            op.inputs[number] = self._quantized(place.operator, int(op.inputs[number]), pair, layer.layer.name)
        if place.weight is not None and layer.weight is not None:
            value = laid_out(layer.weight, place.kind, transposed=is_transposed(op, place.kind))
            op.inputs[place.weight] = self._constant(int(op.inputs[place.weight]), value)
        if place.bias is None and layer.bias is not None and layer.bias.any():
            raise TrialError(layer.layer.name, "has a bias that it did not have on LiteRT", hint=OTHER_ENGINE)
        if place.bias is not None and layer.bias is not None:
            adding = self._operator(place.bias[0])
            adding.inputs[place.bias[1]] = self._constant(int(adding.inputs[place.bias[1]]), layer.bias)

    def content(self) -> bytes:
        """The bytes of the file."""
        operators = self._operators.items()
        self._graph.operators = [op for index, last in operators for op in (*self._before.get(index, ()), last)]
        self._drop_unread()
        return flatbuffer.write(self._model)

    def _drop_unread(self) -> None:
        """Empty the buffers of constants that nothing reads any more, mostly the weights as they were."""
        read = {tensor for op in self._graph.operators for tensor in op.inputs} | {*map(int, self._graph.outputs)}
        for number, tensor in enumerate(self._graph.tensors):
            if number not in read and tensor.buffer:
                self._graph.tensors[number] = unread = copy(tensor)
                unread.buffer = 0
        used = {tensor.buffer for graph in self._model.subgraphs for tensor in graph.tensors}
        used |= {entry.buffer for entry in self._model.metadata or ()}
        for number in range(len(self._model.buffers)):
            if number not in used:
                self._model.buffers[number] = schema.BufferT()

    def _operator(self, index: int) -> Any:
        """An operator whose inputs may be changed."""
        op = self._operators[index] = copy(self._operators[index])
        op.inputs = [int(tensor) for tensor in op.inputs]
        return op

    def _quantized(self, reader: int, tensor: int, pair: Pair, layer: str) -> int:
        """The tensor as a pair leaves it, for the operator that reads it, and for later ones that need the same."""
        before = self._before.setdefault(reader, [])
        key = tensor, pair.scale, pair.zero
        if pair.factors is None and key in self._pairs:
            return self._pairs[key]
        if pair.factors is not None:
            channels = flatbuffer.shape_of(self._graph.tensors[tensor])[-1:]
            if channels != pair.factors.shape:
                what = f"cannot be balanced on LiteRT, where its data has {channels} channels"
                raise TrialError(layer, what, hint=OTHER_ENGINE)
            factors = self._added(_tensor(f"{layer}/factors", FLOAT32, pair.factors.shape), pair.factors)
            product = self._added(self._like(tensor, f"{layer}/balanced"))
            before.append(self._new.made(schema.BuiltinOperator.MUL, [tensor, factors], product))
            tensor = product
        quantized = self._like(tensor, f"{layer}/quantized")
        hold_int8(quantized, scale=pair.scale, zero=pair.zero)
        steps = self._added(quantized)
        real = self._added(self._like(tensor, f"{layer}/real"))
        before.append(self._new.made(schema.BuiltinOperator.QUANTIZE, [tensor], steps))
        before.append(self._new.made(schema.BuiltinOperator.DEQUANTIZE, [steps], real))
        if pair.factors is None:
            self._pairs[key] = real
        return real

    def _like(self, tensor: int, name: str) -> Any:
        """A tensor of the same shape, of no constant."""
        made = copy(self._graph.tensors[tensor])
        made.name, made.buffer = name.encode(), 0
        return made

    def _constant(self, tensor: int, value: Array) -> int:
        """A constant in the place of another, which others may read too."""
        return self._added(copy(self._graph.tensors[tensor]), value)

    def _added(self, tensor: Any, value: Array | None = None) -> int:
        """Index of a tensor that is added, with its value if it is a constant."""
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.ascontiguousarray(value, np.float32).reshape(-1).view(np.uint8)
            tensor.buffer = len(self._model.buffers)
            self._model.buffers.append(buffer)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1


def _tensor(name: str, kind: int, shape: tuple[int, ...]) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.type, tensor.shape, tensor.buffer = name.encode(), kind, list(shape), 0
    return tensor
