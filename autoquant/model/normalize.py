"""Normalization: one form for graphs that compute the same, with batch norms folded away.

A rule takes a graph and one of its nodes, and gives a new graph, or None where it has nothing to do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from autoquant.errors import ModelError, PlanError, did_you_mean
from autoquant.model.affine import READERS, fold_affine
from autoquant.model.depthwise import depthwise_convolutions
from autoquant.model.folding import fold_constants
from autoquant.model.graph import Graph
from autoquant.model.loops import LOOPS
from autoquant.model.model import EVERYTHING, Fusion
from autoquant.model.nodes import attr_of, make_node
from autoquant.model.operators import OPERATORS, canonical, node_of
from autoquant.model.sources import BATCH_NORMS
from autoquant.model.weights import own_weight

Rule = Callable[[Graph, Any], Graph | None]

UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})


def normalize(graph: Graph, fusion: Fusion = EVERYTHING) -> Graph:
    """The same function of the same inputs and outputs, in fewer nodes.

    Constants are folded, Identity and Dropout are gone; batch norms too, as far as `fusion` allows. Each operator has a
    weight of its own, not transposed. A node that was there before computes what it did, except for operators with a
    weight, whose result contains what was folded into them, and the constants that they read.
    Raises ModelError for cycles, for operators that TensorFlow does not know, and for batch norms in training mode.
    """
    graph = depthwise_convolutions(_cleaned(graph.pruned()))
    _refuse_training(graph)
    # Only after cleaning, since dropout multiplies by a constant too; none where nothing is to be fused.
    rules = dict.fromkeys(READERS, (partial(fold_affine, fusion=fusion),)) if fusion.enabled else {}
    while True:
        simpler = one_pass(graph, rules)
        if simpler is graph:
            return graph
        graph = _cleaned(simpler)


def check_fusion(graph: Graph, fusion: Fusion) -> None:
    """Raise PlanError where a name that `fusion` skips is not an operator with a weight.

    Only of those can a record say that they stay as they are.
    """
    fusible = {op for op, operator in OPERATORS.items() if operator.weight is not None}
    known = [node.name for node in graph.nodes.values() if node.op in fusible]
    for name in sorted(fusion.skip.difference(known)):
        if name in graph.nodes:
            what = f"layer {name} is of type {graph.nodes[name].op}, which has no weight"
            hint = "name the layer in front of it, such as a Conv2D or MatMul"
        else:
            what = f"Layer {name} does not exist in the graph"
            hint = did_you_mean(name, known, otherwise="take it out of the list")
        raise PlanError("skip_fusion_layers", what, hint=hint)


def _refuse_training(graph: Graph) -> None:
    for node in graph.nodes.values():
        if node.op in BATCH_NORMS and ("is_training" not in node.attr or node.attr["is_training"].b):  # true if absent
            hint = "export the model in inference mode (training=False)"
            raise ModelError(node.name, "this batch norm is in training mode", hint=hint)


def _cleaned(graph: Graph) -> Graph:
    while True:
        simpler = fold_constants(one_pass(graph, CLEANING))  # in this order, since weights are often behind an Identity
        if simpler is graph:
            return graph
        graph = simpler


def one_pass(graph: Graph, rules: Mapping[str, tuple[Rule, ...]]) -> Graph:
    """Offer every node, inputs before readers, to the rules for its operator; verified and pruned."""
    for name in [node.name for node in graph.ordered()]:
        node = graph.nodes.get(name)
        for rule in rules.get(node.op, ()) if node is not None else ():
            changed = rule(graph, node)
            if changed is not None:
                graph = changed
                break
    graph.verify()
    return graph.pruned()


def drop_identity(graph: Graph, node: Any) -> Graph | None:
    """Bypass a node that computes nothing, unless it names the result of a loop."""
    if node.op == "Identity" and graph.nodes[node_of(node.input[0])].op in LOOPS:
        return None  # a live graph of TensorFlow 1 knows that by this name alone
    return bypass(graph, node, node.input[0])


def drop_identity_n(graph: Graph, node: Any) -> Graph | None:
    """Bypass an IdentityN that is not an output."""
    if node.name in graph.output_nodes:
        return None
    return graph.edit(drop=[node.name], redirect={f"{node.name}:{i}": edge for i, edge in enumerate(node.input)})


def drop_cast(graph: Graph, node: Any) -> Graph | None:
    """Bypass a Cast to the type that its data has, as what was of half precision leaves behind."""
    return bypass(graph, node, node.input[0]) if node.attr["SrcT"].type == node.attr["DstT"].type else None


def drop_inverse_transpose(graph: Graph, node: Any) -> Graph | None:
    """Bypass a Transpose that undoes the one before it."""
    before = graph.nodes[node_of(node.input[0])]
    if before.op != "Transpose":
        return None
    first, second = graph.constant(before.input[1]), graph.constant(node.input[1])
    if first is None or second is None or first[second].tolist() != list(range(first.size)):
        return None
    return bypass(graph, node, before.input[0])


def take_default(graph: Graph, node: Any) -> Graph | None:
    """Let a PlaceholderWithDefault that is no input be its constant default."""
    if node.name in graph.inputs or graph.constant(node.input[0]) is None:
        return None
    return bypass(graph, node, node.input[0])


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


def bypass(graph: Graph, node: Any, tensor: str) -> Graph | None:
    """Let all read `tensor` instead of the node; an output keeps its name by an Identity. None if nothing changes."""
    if node.name not in graph.output_nodes:
        return graph.edit(drop=[node.name], redirect={node.name: tensor})
    if node.op == "Identity":
        return None
    dtype = attr_of(node, {"Cast": "DstT", "PlaceholderWithDefault": "dtype"}.get(node.op, "T"))
    return graph.edit(put=[make_node(node.name, "Identity", [canonical(tensor)], T=dtype)])


def _without_dropout(graph: Graph, node: Any, scaled: str) -> Graph | None:
    """`scaled` is x * scale or x / keep; what dropout gives in inference is x."""
    made_by = graph.nodes[node_of(scaled)]
    if made_by.op == "RealDiv" and _is_scalar(graph, made_by.input[1]):
        return bypass(graph, node, made_by.input[0])
    if made_by.op == "Mul":
        for x, scale in (tuple(made_by.input), tuple(made_by.input)[::-1]):
            if _is_scalar(graph, scale):
                return bypass(graph, node, x)
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
    | {"Cast": (drop_cast,), "IdentityN": (drop_identity_n,), "PlaceholderWithDefault": (take_default,)}
    | {"SelectV2": (drop_selecting_dropout,), "Select": (drop_selecting_dropout,)}
    | {"Mul": (drop_multiplying_dropout,), "Transpose": (drop_inverse_transpose,)}
    | {op: (own_weight,) for op, operator in OPERATORS.items() if operator.weight is not None}
)
"""Operator -> rules that take away what inference does not need, and give each operator a weight of its own."""
