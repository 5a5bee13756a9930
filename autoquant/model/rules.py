"""Rules that make a graph simpler: each takes a graph and one of its nodes, and gives a new graph or None."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from autoquant.model.affine import READERS, fold_affine
from autoquant.model.graph import Graph, attr_of, make_node
from autoquant.model.model import Fusion
from autoquant.model.names import canonical, node_of

Rule = Callable[[Graph, Any], Graph | None]

UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})


def drop_identity(graph: Graph, node: Any) -> Graph | None:
    """Bypass a node that computes nothing."""
    return bypassed(graph, node, node.input[0])


def drop_identity_n(graph: Graph, node: Any) -> Graph | None:
    """Bypass an IdentityN that is not an output."""
    if node.name in graph.output_nodes:
        return None
    return graph.edit(drop=[node.name], redirect={f"{node.name}:{i}": edge for i, edge in enumerate(node.input)})


def take_default(graph: Graph, node: Any) -> Graph | None:
    """Let a PlaceholderWithDefault that is no input be its constant default."""
    if node.name in graph.inputs or graph.constant(node.input[0]) is None:
        return None
    return bypassed(graph, node, node.input[0])


def drop_selecting_dropout(graph: Graph, node: Any) -> Graph | None:
    """Bypass the dropout that TensorFlow 2 writes: SelectV2(uniform >= rate, x * scale, 0)."""
    mask, scaled, zero = node.input
    value = graph.constant(zero)
    if value is None or value.any() or not _is_random_comparison(graph, mask):
        return None
    return _without_dropout(graph, node, scaled)


def drop_multiplying_dropout(graph: Graph, node: Any) -> Graph | None:
    """Bypass the dropout that TensorFlow 1 writes: (x / keep) * Floor(uniform + keep), or * Cast(uniform >= rate)."""
    for scaled, mask in (tuple(node.input), tuple(node.input)[::-1]):
        made_by = graph.nodes[node_of(mask)]
        if made_by.op == "Floor" and _is_uniform(graph, made_by.input[0]):
            return _without_dropout(graph, node, scaled)
        if made_by.op == "Cast" and _is_random_comparison(graph, made_by.input[0]):
            return _without_dropout(graph, node, scaled)
    return None


def bypassed(graph: Graph, node: Any, tensor: str) -> Graph | None:
    """Let all read `tensor` instead of the node; an output keeps its name by an Identity. None if nothing changes."""
    if node.name not in graph.output_nodes:
        return graph.edit(drop=[node.name], redirect={node.name: tensor})
    if node.op == "Identity":
        return None
    dtype = attr_of(node, "dtype" if node.op == "PlaceholderWithDefault" else "T")
    return graph.edit(put=[make_node(node.name, "Identity", [canonical(tensor)], T=dtype)])


def _without_dropout(graph: Graph, node: Any, scaled: str) -> Graph | None:
    """`scaled` is x * scale or x / keep; what dropout gives in inference is x."""
    made_by = graph.nodes[node_of(scaled)]
    if made_by.op == "RealDiv" and _is_scalar(graph, made_by.input[1]):
        return bypassed(graph, node, made_by.input[0])
    if made_by.op == "Mul":
        for x, scale in (tuple(made_by.input), tuple(made_by.input)[::-1]):
            if _is_scalar(graph, scale):
                return bypassed(graph, node, x)
    return None


def _is_scalar(graph: Graph, tensor: str) -> bool:
    """A constant of one value, or what is computed from a keep probability that is fed."""
    value = graph.constant(tensor)
    if value is not None:
        return value.size == 1
    node = graph.nodes[node_of(tensor)]
    if node.op.startswith("Placeholder"):
        return not attr_of(node, "shape").shape.dim  # TensorFlow 1 code rarely gave a keep probability a shape
    return node.op in {"Sub", "RealDiv"} and all(_is_scalar(graph, edge) for edge in node.input)


def _is_random_comparison(graph: Graph, tensor: str) -> bool:
    node = graph.nodes[node_of(tensor)]
    return node.op in {"GreaterEqual", "Greater"} and _is_uniform(graph, node.input[0])


def _is_uniform(graph: Graph, tensor: str) -> bool:
    """Whether it is uniform noise, shifted or scaled by scalars."""
    node = graph.nodes[node_of(tensor)]
    if node.op in {"Add", "AddV2", "Mul"}:
        first, second = node.input
        return (_is_uniform(graph, first) and _is_scalar(graph, second)) or (
            _is_uniform(graph, second) and _is_scalar(graph, first)
        )
    return node.op in UNIFORM


CLEANING: Mapping[str, tuple[Rule, ...]] = MappingProxyType(
    dict.fromkeys(("Identity", "StopGradient", "PreventGradient", "CheckNumerics", "Snapshot"), (drop_identity,))
    | {"IdentityN": (drop_identity_n,), "PlaceholderWithDefault": (take_default,)}
    | {"SelectV2": (drop_selecting_dropout,), "Select": (drop_selecting_dropout,)}
    | {"Mul": (drop_multiplying_dropout,)}
)
"""Operator -> rules that take away what inference does not need."""


def folding(fusion: Fusion) -> Mapping[str, tuple[Rule, ...]]:
    """Operator -> rules that fold it into what is before it; none where the user keeps everything apart.

    Only after cleaning: dropout multiplies by a constant too.
    """
    rule = partial(fold_affine, fusion=fusion)
    return MappingProxyType(dict.fromkeys(READERS, (rule,)) if fusion.enabled else {})
