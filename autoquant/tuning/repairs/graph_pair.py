"""An INT8 graph of the TensorFlow target beside the float graph that it was made from, in one graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.engines.engine import Renamed
from autoquant.evaluation.engines.fake_quant import dequantized_layers
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.model.graph import FunctionDefLibrary, Graph
from autoquant.model.layer import Layer
from autoquant.model.model import known_constant
from autoquant.model.nodes import FLOAT, INT32, changed_node, make_const, make_node
from autoquant.model.operators import node_of
from autoquant.quantization.affine import balanced_weight
from autoquant.targets.ascend_functions import functions_for
from autoquant.targets.attributes import in_float, type_attr
from autoquant.targets.saved_graph import SavedGraph

FLOAT_PREFIX = "autoquant/float/"
"""What the names of the float nodes begin with."""
MEANS = "autoquant/mean/"


@dataclass(frozen=True)
class GraphPair:
    """See `FloatInt8Pair`."""

    saved: SavedGraph
    graph: Graph
    layers: Mapping[str, Layer]

    def input_axis(self, layer: Layer) -> int:
        """See `FloatInt8Pair`."""
        return layer.operator.input_axis

    def weight_errors(self) -> Iterator[tuple[Layer, Array]]:
        """See `FloatInt8Pair`."""
        for own in dequantized_layers(self.saved, self.graph):
            layer = self.layers.get(own.layer.name)
            if layer is None or own.weight is None:
                continue
            weight = known_constant(self.graph, layer.weight)
            if own.factors is not None:
                weight = balanced_weight(weight, np.float32(1.0) / own.factors, layer.operator.input_axis)
            yield layer, own.weight.astype(np.float64) - weight

    def open(self) -> Renamed:
        """See `FloatInt8Pair`."""
        names = {name: MEANS + name for name in self.layers}
        return Renamed(TensorFlowEngine().open_graph(self.joined(), list(names.values())), names)

    def joined(self) -> Graph:
        """The graph of both; the mean error of a layer is called MEANS and its name."""
        ends = {layer.bias: layer for layer in self.layers.values() if layer.bias is not None}
        correcting = (node for end, layer in ends.items() for node in _correcting(end, layer))
        both = self.saved.graph.edit(
            put=[*self._float_nodes(ends), *correcting],
            redirect={end: f"{MEANS}{end}/corrected" for end in ends},
        )
        library = FunctionDefLibrary()
        library.CopyFrom(functions_for(self.saved.graph))
        if self.graph.library is not None:
            library.MergeFrom(self.graph.library)
        return replace(both, inputs=self.graph.inputs, outputs=self.graph.outputs, library=library)

    def _float_nodes(self, ends: Collection[str]) -> Iterator[Any]:
        """The float nodes that biases depend on, but for the inputs, which both share."""
        own = self.graph.ancestors(*ends).keys() - set(self.graph.inputs)
        for node in map(self.graph.nodes.__getitem__, own):
            inputs = (FLOAT_PREFIX + edge if node_of(edge) in own else edge for edge in node.input)
            yield changed_node(node, name=FLOAT_PREFIX + node.name, inputs=inputs)


def _correcting(end: str, layer: Layer) -> Iterator[Any]:
    """The nodes that take the mean error off what a layer makes; channels first keep their place by axes of 1."""
    prefix, mean = f"{MEANS}{end}", MEANS + layer.name
    yield in_float(f"{prefix}/difference", "Sub", end, FLOAT_PREFIX + end)
    first = layer.data_axis == 1
    if first:
        others = [0, *range(2, layer.operator.rank or 2)]
        values = f"{prefix}/difference"
    else:
        others, values = [0], f"{prefix}/rows"
        yield make_const(f"{prefix}/shape", np.array([-1, layer.channels], np.int32))
        edges = f"{prefix}/difference", f"{prefix}/shape"
        yield make_node(values, "Reshape", edges, T=type_attr(FLOAT), Tshape=type_attr(INT32))
    yield make_const(f"{prefix}/axes", np.array(others, np.int32))
    yield make_node(
        mean, "Mean", [values, f"{prefix}/axes"], T=type_attr(FLOAT), Tidx=type_attr(INT32), keep_dims=first
    )
    yield in_float(f"{prefix}/corrected", "Sub", end, mean)
