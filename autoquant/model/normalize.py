"""Normalization: one form for graphs that compute the same, with batch norms folded away."""

from __future__ import annotations

from collections.abc import Mapping

from autoquant.errors import ModelError, PlanError, did_you_mean
from autoquant.model.folding import fold_constants
from autoquant.model.graph import Graph
from autoquant.model.model import EVERYTHING, Fusion
from autoquant.model.operators import OPERATORS
from autoquant.model.rules import CLEANING, Rule, folding
from autoquant.model.sources import BATCH_NORMS


def normalize(graph: Graph, fusion: Fusion = EVERYTHING) -> Graph:
    """The same function of the same inputs and outputs, in fewer nodes.

    Constants are folded, Identity and Dropout are gone; batch norms too, as far as `fusion` allows. A node that was
    there before computes what it did, except for operators with a weight, whose result contains what was folded into
    them, and the constants that they read.
    Raises ModelError for loops, for operators that TensorFlow does not know, and for batch norms in training mode.
    """
    graph = _cleaned(graph.pruned())
    _refuse_training(graph)
    rules = folding(fusion)
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
        simpler = one_pass(fold_constants(graph), CLEANING)
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
