"""FakeQuant operators, with which TensorFlow trains for INT8: their grids, and the graph without them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tensorflow.core.framework import attr_value_pb2, types_pb2

from autoquant.array import Array
from autoquant.errors import ModelError
from autoquant.model.folding import foldable
from autoquant.model.graph import Graph
from autoquant.model.nodes import attr_of, make_node
from autoquant.model.operators import node_of
from autoquant.quantization.affine import EPSILON, QMIN, Affine

WITH_RANGES = frozenset({"FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"})
FAKE = WITH_RANGES | {"FakeQuantWithMinMaxArgs"}
KEEPING = frozenset({"ExpandDims", "Identity", "MaxPool", "Pad", "Reshape", "Squeeze", "StopGradient", "Transpose"})
"""Operators whose results are values of their first input, or 0: what was on a grid still is."""
BITS = 8


@dataclass(frozen=True, slots=True)
class Grid:
    """What a FakeQuant rounds to: (q - offset) * scale with q in -128..127, or -127..127 where it is `narrow`.

    `scales` float32 and `offsets` int64 are vectors of one value, or one for each index of the last axis.
    """

    scales: Array
    offsets: Array
    narrow: bool

    def activation(self, node: str) -> Affine:
        """The one scale and offset of an activation. Raises ModelError where INT8 does not have such a grid."""
        if self.scales.size != 1 or self.narrow:
            what = "is narrow_range" if self.narrow else "has a range for every channel"
            raise ModelError(node, f"{what}, which is for weights", hint="train again with FakeQuantWithMinMaxVars")
        try:
            return Affine(float(self.scales[0]), int(self.offsets[0]))
        except ValueError as error:
            raise ModelError(node, str(error), hint="train again, or remove the FakeQuant") from None

    def weight(self, node: str) -> Array:
        """The scales of a weight. Raises ModelError where its grid is not symmetric.

        The zero point of min = -max falls between two steps where it is not narrow, and nudging takes either: offset 0,
        or -1, whose steps are the same ones, of which INT8 lacks the uppermost.
        """
        wrong = self.offsets[(self.offsets != 0) & ((self.offsets != -1) | self.narrow)]
        if wrong.size:
            what = f"quantizes a weight with offset {wrong[0]}, not 0"
            raise ModelError(node, what, hint="train again with symmetric ranges of weights, min = -max")
        return self.scales


def nudged(low: Array, high: Array, *, narrow: bool) -> Grid:
    """The grid of ranges [low, high], vectors, as TensorFlow nudges them so that 0 is on it.

    scale = (high - low) / (quant_max - quant_min); the zero point is quant_min - low / scale, rounded and kept within
    quant_min..quant_max, with quant_max 255 and quant_min 0, or 1 where it is narrow (documentation of
    FakeQuantWithMinMaxVars; ties away from zero, in float32, as its kernel has it). A range of nothing has scale 1.

    >>> nudged(np.float32([-1.0]), np.float32([1.0]), narrow=True).offsets
    array([0])
    """
    least, most = np.float32(narrow), np.float32(2**BITS - 1)
    scales = (np.asarray(high, np.float32) - np.asarray(low, np.float32)) / (most - least)
    empty = scales < EPSILON
    scales = np.where(empty, np.float32(1.0), scales)
    zero = np.clip(np.floor(least - np.asarray(low, np.float32) / scales + np.float32(0.5)), least, most)
    return Grid(scales, np.where(empty, 0, zero.astype(np.int64) + QMIN), narrow)


def grid_of(graph: Graph, node: Any) -> Grid:
    """The grid of a FakeQuant. Raises ModelError for other than 8 bits, and for ranges that are not constant."""
    bits = attr_of(node, "num_bits").i or BITS
    if bits != BITS:
        raise ModelError(node.name, f"has num_bits {bits}, not {BITS}", hint=f"train again with num_bits={BITS}")
    narrow = attr_of(node, "narrow_range").b
    low, high = _range(graph, node)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise ModelError(node.name, "its min is above its max, or not finite", hint="train again, or remove it")
    return nudged(low, high, narrow=narrow)


def fake_before(graph: Graph, tensor: str) -> Any | None:
    """The FakeQuant on whose grid the values of a tensor are; None where there is none."""
    node = graph.nodes[node_of(tensor)]
    while node.op in KEEPING:
        node = graph.nodes[node_of(node.input[0])]
    return node if node.op in FAKE else None


def without_fakes(graph: Graph) -> Graph:
    """The graph with its FakeQuants of activations removed; those of constants stay, to be computed once."""
    constant = foldable(graph)
    for name in [node.name for node in graph.nodes.values() if node.op in FAKE and node.name not in constant]:
        source = graph.nodes[name].input[0]
        if name in graph.output_nodes:
            kind = attr_value_pb2.AttrValue(type=types_pb2.DT_FLOAT)
            graph = graph.edit(put=[make_node(name, "Identity", [source], T=kind)])
        else:
            graph = graph.edit(drop=[name], redirect={name: source})
    return graph


def _range(graph: Graph, node: Any) -> tuple[Array, Array]:
    """The smallest and largest values, vectors, that a FakeQuant was trained to keep apart."""
    if node.op in WITH_RANGES:
        low, high = (np.atleast_1d(_constant(graph, node, edge)) for edge in node.input[1:3])
    else:  # what a file leaves out is the operator's default
        low, high = (
            np.array([node.attr[key].f if key in node.attr else default]) for key, default in (("min", -6), ("max", 6))
        )
    return low, high


def _constant(graph: Graph, fake: Any, tensor: str) -> Array:
    """The value of a tensor that a Const makes, directly or through Identity."""
    node = graph.nodes[node_of(tensor)]
    while node.op == "Identity":
        node = graph.nodes[node_of(node.input[0])]
    value = graph.constant(node.name)
    if value is None:
        raise ModelError(fake.name, f"its range '{tensor}' is not constant", hint="freeze the graph after training")
    return value
