"""What the tests of fusions have in common: how small graphs are written, and what is left of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorflow.core.framework import types_pb2

from autoquant.model.graph import Graph
from autoquant.model.nodes import attr_of

NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
SMALL = {"Mul", "RealDiv", "Add", "AddV2", "Sub", "Rsqrt", *NORMS}
"""Operators of which batch norms are made."""


def ops(graph: Graph) -> list[str]:
    """Operators, without those that compute shapes."""
    nodes = (node for node in graph.nodes.values() if attr_of(node, "T").type != types_pb2.DT_INT32)
    return [node.op for node in nodes if node.op != "Const"]


def normal(rng: np.random.Generator, *shape: int) -> Any:
    """A random weight."""
    return rng.normal(size=shape).astype(np.float32)


def placeholder(*shape: int | None) -> Any:
    """The input x."""
    import tensorflow as tf

    return tf.compat.v1.placeholder(tf.float32, shape, name="x")
