"""LiteRT for what the TensorFlow target saves: quantized graphs as .tflite files with kernels in float.

The graph is converted once, without any quantizers. For each saved file the layers that are quantized in it are
fake-quantized in the flatbuffer, with what that file itself holds; layers in float get the constants that they have
there, which differ in equalized graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from autoquant.errors import TrialError
from autoquant.evaluation.engines.engine import Renamed, Runner
from autoquant.evaluation.engines.fake_quant_layers import (
    OTHER_ENGINE,
    DequantizedLayer,
    changed_layers,
    dequantized_layers,
)
from autoquant.evaluation.engines.fake_quant_operator import FakeQuantized, fake_quantize
from autoquant.evaluation.engines.fake_quant_places import Place, find_places
from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Program
from autoquant.targets.saved_graph import SavedGraph, read_saved_graph


@dataclass(frozen=True)
class FakeQuantEngine:
    """LiteRT with kernels in float for one graph, converted once to `lite`, and for its quantized graphs.

    `layers` are those that have a place in the .tflite; `reasons` says why others cannot be fake-quantized.
    `activations` gives for what layers read, by its name in the graph, that of the tensor in the .tflite.
    """

    name: ClassVar[str] = "litert"
    graph: Graph
    lite: LiteGraph
    layers: Mapping[str, Layer]
    places: Mapping[str, Place]
    reasons: Mapping[str, str]
    activations: Mapping[str, str]
    litert: LiteRTEngine = field(default_factory=LiteRTEngine)

    @classmethod
    def of(cls, graph: Graph, layers: Iterable[Layer]) -> FakeQuantEngine:
        """Convert a normalized graph. Raises ModelError where an operator cannot be."""
        lite = convert(graph)
        every = list(layers)
        places = find_places(graph, every, lite)
        known = {layer.name: layer for layer in every if layer.name in places.found}
        activations: dict[str, str] = {}
        for name, layer in known.items():
            activations |= _activations(layer, places.found[name], lite)
        return cls(graph, lite, known, places.found, places.reasons, activations)

    @property
    def version(self) -> str:
        """Of LiteRT."""
        return self.litert.version

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> Runner:
        """Open the float graph as it was converted; another one, and one of other tensors than layers read, anew.

        Raises ModelError as LiteRTEngine.
        """
        if graph is not self.graph or not self.activations.keys() >= set(fetches or ()):
            return self.litert.open_graph(graph, fetches)
        if not fetches:
            return self.litert.open_graph(self.lite)
        names = {name: self.activations[name] for name in fetches}
        return Renamed(self.litert.open_graph(self.lite, list(dict.fromkeys(names.values()))), names)

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
        yield FakeQuantized(name, place.operator, data, constants, layer.factors)
        if layer.bias is not None and place.bias is not None:
            operator, number = place.bias
            yield FakeQuantized(name, operator, {}, {number: layer.bias})
        elif layer.bias is not None and layer.bias.any():
            raise TrialError(name, "has a bias that it did not have on LiteRT", hint=OTHER_ENGINE)


def _activations(layer: Layer, place: Place, lite: LiteGraph) -> Mapping[str, str]:
    """What a layer reads, and what its operator does; nothing where the channels are not on the same axis of both."""
    tensors = [lite.subgraph.tensors[lite.operators[place.operator].inputs[number]] for number in place.data]
    last = (flatbuffer.shape_of(tensors[0]) or (None,))[-1]
    channels = layer.weight_shape[layer.operator.input_axis] * layer.groups if layer.weight else last
    if layer.data_axis != -1 or last != channels:
        return {}
    return dict(zip(layer.activations, map(flatbuffer.tensor_name, tensors), strict=True))
