"""Small graphs, and a plain TensorFlow session to run them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoquant.model.graph import Graph
from autoquant.model.operators import OPERATORS


@pytest.fixture(scope="session")
def build() -> Callable[..., Graph]:
    """Make the graph that a function writes, with these inputs and outputs."""
    import tensorflow as tf

    def made(write: Callable[[], Any], *, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)) -> Graph:
        with tf.Graph().as_default() as graph:
            tf.compat.v1.set_random_seed(1)
            write()
        return Graph.from_graph_def(graph.as_graph_def(), inputs=inputs, outputs=outputs)

    return made


@pytest.fixture(scope="session")
def batch_norm() -> Callable[..., Any]:
    """Write a batch norm of a tensor with the name 'bn', with random statistics; all of its outputs."""
    import tensorflow as tf

    def written(rng: np.random.Generator, t: Any, channels: int, kind: str = "FusedBatchNormV3", **attrs: Any) -> Any:
        constants = {key: rng.normal(size=channels).astype(np.float32) for key in ("scale", "offset", "mean")}
        constants["variance"] = rng.uniform(0.1, 4, channels).astype(np.float32)
        attrs = {"is_training": False, "epsilon": 1e-3, **attrs}
        attrs.setdefault("data_format", "NDHWC" if t.shape.rank == 5 else "NHWC")
        return getattr(tf.raw_ops, kind)(x=t, name="bn", **constants, **attrs)

    return written


@pytest.fixture
def check(run: Callable[..., list[Any]]) -> Callable[..., set[str]]:
    """Check that every tensor which kept its name is what it was, and give the names of nodes that did.

    Constants and operators with a weight are left out: what is folded into them changes them.
    """
    scaled = {op for op, operator in OPERATORS.items() if operator.weight is not None} | {"Const", "Placeholder"}

    def checked(before: Graph, after: Graph, **feeds: Any) -> set[str]:
        assert after.outputs == before.outputs
        names = tuple(n.name for n in after.nodes.values() if n.op not in scaled and n.name in before.nodes)
        wanted, found = (run(replace(graph, outputs=names), feeds) for graph in (before, after))
        for name, old, new in zip(names, wanted, found, strict=True):
            assert old.shape == new.shape, name
            assert np.linalg.norm(old.astype(np.float64) - new) <= 1e-5 * np.linalg.norm(old), name
        return set(names)

    return checked
