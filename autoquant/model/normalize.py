"""Normalization: one form for graphs that compute the same, with batch norms folded away."""

from __future__ import annotations

from collections.abc import Mapping

from autoquant.model.folding import fold_constants
from autoquant.model.graph import Graph
from autoquant.model.rules import CLEANING, FOLDING, Rule


def normalize(graph: Graph) -> Graph:
    """The same function of the same inputs and outputs, in fewer nodes.

    Constants and batch norms are folded, Identity and Dropout are gone. Raises ModelError for loops, for operators that
    TensorFlow does not know, and for batch norms in training mode.
    """
    graph = graph.pruned()
    while True:
        simpler = one_pass(_cleaned(graph), FOLDING)
        if simpler is graph:
            return graph
        graph = simpler


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
