"""Operators of quantization-aware training that round floats to a grid and give floats again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoquant.model.folding import foldable
from autoquant.model.graph import Graph
from autoquant.model.nodes import FLOAT, AttrValue, make_node
from autoquant.model.operators import canonical, node_of

NOTE = (
    "quantization-aware training: FakeQuant or Q/DQ operators were removed from {} activations, and weights keep the "
    "values that theirs give; FP32 is that network. `autoquant convert` keeps the ranges that were trained instead"
)
FAKE = frozenset({"FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"})
ROUNDING = FAKE | {f"QuantizeAndDequantize{version}" for version in ("", "V2", "V3", "V4")}
PAIRS: Mapping[str, str] = {"Dequantize": "QuantizeV2", "UniformDequantize": "UniformQuantize"}
"""Operator that gives floats -> the one before it that rounded them."""


def without_fakes(graph: Graph) -> Graph:
    """The graph with its FakeQuants and Q/DQ pairs of activations removed.

    Those of constants stay, to be computed once: a weight keeps the values that it was trained to have.
    """
    for name in rounded_activations(graph):
        source = _source(graph, graph.nodes[name])  # asked again: what it was before may be gone
        assert source is not None, name
        if name in graph.output_nodes:
            graph = graph.edit(put=[make_node(name, "Identity", [source], T=AttrValue(type=FLOAT))])
        else:
            graph = graph.edit(drop=[name], redirect={name: source})
    return graph.pruned()


def rounded_activations(graph: Graph) -> list[str]:
    """The nodes that give activations rounded to a grid."""
    constant = foldable(graph)
    others = (node for node in graph.nodes.values() if node.name not in constant)
    return [node.name for node in others if _source(graph, node) is not None]


def _source(graph: Graph, node: Any) -> str | None:
    """What a node rounds, as floats; None where it does something else."""
    if node.op in ROUNDING:
        return canonical(node.input[0])
    if node.op in PAIRS:
        quantize = graph.nodes[node_of(node.input[0])]
        while quantize.op == "Identity":
            quantize = graph.nodes[node_of(quantize.input[0])]
        return canonical(quantize.input[0]) if quantize.op == PAIRS[node.op] else None
    return None
