"""Small graphs, and a plain TensorFlow session to run them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from autoquant.model.graph import Graph
from autoquant.model.shapes import imported, tensor_name


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
def run() -> Callable[..., list[Any]]:
    """Run a graph on values by input: the values of its outputs."""
    import tensorflow as tf

    def ran(graph: Graph, feeds: Mapping[str, Any]) -> list[Any]:
        with tf.compat.v1.Session(graph=imported(graph)) as session:
            fed = {tensor_name(name): value for name, value in feeds.items()}
            return [np.asarray(v) for v in session.run([tensor_name(o) for o in graph.outputs], fed)]

    return ran
