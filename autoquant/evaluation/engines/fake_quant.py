"""LiteRT for what the TensorFlow target saves: quantized graphs as .tflite files with kernels in float.

The graph is converted once, without any quantizers. For each saved file the layers that are quantized in it are
fake-quantized in the flatbuffer, with what that file itself holds; layers in float get the constants that they have
there, which differ in equalized graphs. What the integers of a saved graph stand for is told in real units.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.evaluation.engines.engine import Renamed, Runner
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized, fake_quantize
from autoquant.evaluation.engines.fake_quant_places import Place, convert_with_places
from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Program
from autoquant.model.operators import node_of
from autoquant.quantization.affine import Affine, spread
from autoquant.targets.saved_graph import Int8Layer, SavedGraph, int8_layers, read_saved_graph

OTHER_ENGINE = "choose --engine tensorflow"
FETCHED = "tensor "
"""What the names of tensors that are fetched begin with."""


@dataclass(frozen=True)
class FakeQuantEngine:
    """LiteRT with kernels in float for one graph, converted once to `lite`, and for its quantized graphs.

    `layers` are those that have a place in the .tflite; `reasons` says why others cannot be fake-quantized.
    `activations` gives for what layers read, by its name in the graph, that of the tensor in the .tflite. Where the
    converter has joined a layer with the zeros in front of it, that has none: `zeros` are the paddings of these.
    """

    name: ClassVar[str] = "litert"
    graph: Graph
    lite: LiteGraph
    layers: Mapping[str, Layer]
    places: Mapping[str, Place]
    reasons: Mapping[str, str]
    activations: Mapping[str, str]
    zeros: Mapping[str, Array]
    litert: LiteRTEngine = field(default_factory=LiteRTEngine)

    @classmethod
    def of(cls, graph: Graph, layers: Iterable[Layer]) -> FakeQuantEngine:
        """Convert a normalized graph. Raises ModelError where an operator cannot be."""
        every = list(layers)
        lite, places = convert_with_places(graph, every)
        known = {layer.name: layer for layer in every if layer.name in places.found}
        activations: dict[str, str] = {}
        for name, layer in known.items():
            activations |= _activations(layer, places.found[name], lite)
        found = ((name, _zeros(graph, name, lite, tensor)) for name, tensor in activations.items())
        zeros = {name: own for name, own in found if own is not None}
        return cls(graph, lite, known, places.found, places.reasons, activations, zeros)

    @property
    def version(self) -> str:
        """Of LiteRT."""
        return self.litert.version

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> Runner:
        """Open the float graph as it was converted, or one that differs in the constants of layers alone.

        Tensors that layers read or make are found in it. All else is converted anew. Raises ModelError as LiteRTEngine.
        """
        changed = other_constants(self.graph, graph, self.layers.values()) if isinstance(graph, Graph) else None
        if changed is None or not all(name in self.activations or name in self._results for name in fetches or ()):
            return self.litert.open_graph(graph, fetches)
        builder = LiteBuilder(self.lite)
        for one in (one for layer in changed for one in self._fake_quantized(layer)):
            fake_quantize(builder, builder.operator(one.operator), one, at=one.operator)
        if not fetches:
            content = builder.write() if changed else self.lite.content
            return LiteRTRunner(content, graph.inputs, graph.outputs, threads=self.litert.threads)
        tensors = {name: self._tensor(builder, name) for name in fetches}
        names = {name: f"{FETCHED}{tensor}" for name, tensor in tensors.items()}
        content = builder.write({names[name]: tensor for name, tensor in tensors.items()})
        made = LiteRTRunner(content, graph.inputs, list(dict.fromkeys(names.values())), self.litert.threads, cut=False)
        return Renamed(made, names)

    @cached_property
    def _results(self) -> Mapping[str, int]:
        """What layers make, before any activation, by its name in the graph, and the operator that does."""
        found = {}
        for name, layer in self.layers.items():
            place = self.places[name]
            if not layer.tensor_only and (place.bias is not None or layer.bias is None) and layer.data_axis == -1:
                operator = place.operator if place.bias is None else place.bias[0]
                if self.lite.channels_of(int(self.lite.operators[operator].outputs[0])) == layer.channels:
                    found[layer.bias or layer.node] = operator
        return found

    def _tensor(self, builder: LiteBuilder, name: str) -> int:
        """The tensor in the .tflite that is called so in the graph."""
        if name in self.activations:
            tensor = self.lite.tensors[self.activations[name]]
            return builder.padded(tensor, self.zeros[name]) if name in self.zeros else tensor
        return builder.without_activation(self._results[name])

    def open_file(self, path: Path, graph: Program) -> LiteRTRunner:
        """Open a saved .pb. Raises TrialError where a layer of it cannot be fake-quantized."""
        content = self.content(read_saved_graph(path))
        return LiteRTRunner(content, graph.inputs, graph.outputs, threads=self.litert.threads)

    def content(self, saved: SavedGraph) -> bytes:
        """The .tflite that computes what a saved graph of this model computes. Raises TrialError as `open_file`."""
        quantized = dequantized_layers(saved, self.graph)
        in_float = self.layers.keys() - {layer.layer.name for layer in quantized}
        changed = changed_layers(saved, self.graph, [self.layers[name] for name in in_float])
        wanted = [one for layer in (*quantized, *changed) for one in self._fake_quantized(layer)]
        builder = LiteBuilder(self.lite)
        for one in sorted(wanted, key=lambda one: one.operator):
            fake_quantize(builder, builder.operator(one.operator), one, at=one.operator)
        return builder.write()

    def _fake_quantized(self, layer: DequantizedLayer) -> Iterator[FakeQuantized]:
        """The layer's operator, and the one that adds its bias."""
        name = layer.layer.name
        if name not in self.places:
            reason = self.reasons.get(name, "it is not a layer of the float model")
            raise TrialError(name, f"cannot be fake-quantized on LiteRT: {reason}", hint=OTHER_ENGINE)
        place = self.places[name]
        constants = place.constants(self.lite, layer.weight)
        data = dict(zip(place.data, layer.activations, strict=True)) if layer.activations else {}
        added = layer.bias if place.bias is None else None
        yield FakeQuantized(name, place.operator, data, constants, layer.factors, added)
        if layer.bias is not None and place.bias is not None:
            operator, number = place.bias
            yield FakeQuantized(name, operator, {}, {number: layer.bias})


def _activations(layer: Layer, place: Place, lite: LiteGraph) -> Mapping[str, str]:
    """What a layer reads, and what its operator does; nothing where the channels are not on the same axis of both."""
    tensors = [lite.subgraph.tensors[lite.operators[place.operator].inputs[number]] for number in place.data]
    last = (flatbuffer.shape_of(tensors[0]) or (None,))[-1]
    channels = layer.weight_shape[layer.operator.input_axis] * layer.groups if layer.weight else last
    if layer.data_axis != -1 or last != channels:
        return {}
    return dict(zip(layer.activations, map(flatbuffer.tensor_name, tensors), strict=True))


def _zeros(graph: Graph, name: str, lite: LiteGraph, tensor: str) -> Array | None:
    """The paddings, (axes, 2), of a Pad that in the .tflite is one with the operator that reads it; else None."""
    node, maker = graph.nodes.get(name), lite.makers.get(lite.tensors[tensor])
    if node is None or node.op not in ("Pad", "PadV2") or (maker is not None and lite.kind(maker) in ("PAD", "PADV2")):
        return None
    paddings = graph.constant(node.input[1])
    return None if paddings is None else paddings.astype(np.int32)


@dataclass(frozen=True)
class DequantizedLayer:
    """A layer as its INT8 values have it, in real units: its weight, in TensorFlow's layout, and its bias, float32.

    What it reads is rounded as `activations` say, after each channel was multiplied by its own of `factors`, where
    there are any; one in float has no activations. The operator's sum over data * weight, plus the bias, is what the
    saved graph has behind AscendDequant.
    """

    layer: Layer
    activations: tuple[Affine, ...] = ()
    factors: Array | None = None
    weight: Array | None = None
    bias: Array | None = None


def dequantized_layers(saved: SavedGraph, graph: Graph) -> list[DequantizedLayer]:
    """The layers that are quantized in a saved graph. `graph` is the float graph that it was made from.

    Raises PlanError where the file is not whole, TrialError where its layers have a form that real numbers cannot say.
    """
    return [_dequantized(saved, graph, found) for found in int8_layers(saved).values()]


def changed_layers(saved: SavedGraph, graph: Graph, layers: Iterable[Layer]) -> Iterator[DequantizedLayer]:
    """Those of layers, in float in a saved graph, that have another weight or bias in it than in the float graph.

    Raises PlanError where a constant is none.
    """
    for layer in layers:
        node, place = saved.graph.nodes.get(layer.name), layer.operator.weight
        if node is None or place is None or layer.weight is None:
            continue
        weight, bias = saved.constant(node, place, np.float32), None
        was = [graph.constant(layer.weight)]
        if layer.bias is not None:
            bias = saved.constant(saved.graph.nodes[layer.bias], 1, np.float32)
            was.append(graph.constant(graph.nodes[layer.bias].input[1]))
        now = [weight] if bias is None else [weight, bias]
        if not all(value is not None and np.array_equal(value, new) for value, new in zip(was, now, strict=True)):
            yield DequantizedLayer(layer, weight=weight, bias=bias)


def other_constants(graph: Graph, other: Graph, layers: Iterable[Layer]) -> Sequence[DequantizedLayer] | None:
    """The layers that have another weight or bias in another graph; None where that differs in anything else."""
    if graph is other:
        return ()
    different = {name for name, node in other.nodes.items() if graph.nodes.get(name) is not node}
    found = []
    for layer in layers:
        adds = other.nodes.get(layer.bias or "")
        bias = None if adds is None else node_of(adds.input[1])
        own = different & {layer.weight, bias, layer.bias}
        if own and (adds is None or _adds_to_the_same(graph.nodes.get(adds.name), adds)):
            weight = None if layer.weight is None else other.constant(layer.weight)
            found.append(DequantizedLayer(layer, weight=weight, bias=None if bias is None else other.constant(bias)))
            different -= own
    same = (graph.inputs, graph.outputs) == (other.inputs, other.outputs) and graph.nodes.keys() <= other.nodes.keys()
    return found if same and not different else None


def _adds_to_the_same(before: Any, after: Any) -> bool:
    return before is not None and before.op == after.op and before.input[0] == after.input[0]


def _dequantized(saved: SavedGraph, graph: Graph, found: Int8Layer) -> DequantizedLayer:
    layer = found.layer
    quants = [saved.graph.nodes[name] for name in layer.activations]
    activations = tuple(Affine(step_of(quant.attr["scale"].f), int(quant.attr["offset"].f)) for quant in quants)
    if layer.tensor_only:  # AscendAntiQuant has the scale as it was
        return DequantizedLayer(layer, (replace(activations[0], scale=found.end.attr["scale"].f),))
    scales = _scales(saved, found)
    if layer.weight is None:
        return DequantizedLayer(layer, activations)
    quant = saved.source(found.operator, layer.operator.weight or 0)
    integers = saved.constant(quant, 0, np.int8).astype(np.float64) - saved.constant(quant, 1, np.int8)
    # The data come in steps of their own scale, so only the rest of the product is left for the weight.
    steps = spread(scales / activations[0].scale, integers.ndim, integers.shape, layer.channel_axes)
    weight, bias = np.asarray(integers * steps, np.float32), None
    if found.bias is not None:
        sums = saved.constant(saved.source(found.bias, 1), 0, np.int32).astype(np.float64)
        bias = np.asarray(sums * scales, np.float32)
    return DequantizedLayer(layer, activations, _factors(saved, graph, quants[0]), weight, bias)


def _factors(saved: SavedGraph, graph: Graph, quant: Any) -> Array | None:
    """What the channels of a balanced layer's data are multiplied by before they are quantized."""
    before = saved.source(quant, 0) if ":" not in quant.input[0] else None
    balanced = before is not None and before.op == "Mul" and before.name not in graph.nodes
    return saved.constant(before, 1, np.float32).reshape(-1) if balanced else None


def step_of(inverse: float) -> float:
    """The float32 scale whose inverse, in float32, is this number; the closest one where there is none.

    >>> step_of(4.0)
    0.25
    """
    wanted = np.float32(inverse)
    near = np.float32(1.0) / wanted
    around = (near, np.nextafter(near, np.float32(0.0)), np.nextafter(near, np.float32(np.inf)))
    return float(next((step for step in around if np.float32(1.0) / step == wanted), near))


def _scales(saved: SavedGraph, found: Int8Layer) -> Array:
    """The products of the scales of data and weight, for each channel or one for all, float64."""
    packed = saved.constant(found.end, 1, np.uint64)
    if (packed >> np.uint64(32)).any():
        raise TrialError(found.layer.name, "its shift_bit has no counterpart on LiteRT", hint=OTHER_ENGINE)
    return packed.astype(np.uint32).view(np.float32).astype(np.float64)
