"""Small networks of every kind of layer, opened and surveyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graph_networks import Network
from lite_networks import LiteNetwork, calibrated

from autoquant.model.graph import Graph
from autoquant.model.model import Model
from autoquant.model.open import prepare_graph
from autoquant.model.survey import survey_graph
from autoquant.targets.litert import LiteRTTarget


@pytest.fixture(scope="session")
def network() -> Callable[..., Network]:
    """Makes the network that a function writes: it is given its placeholders, and names its output `y`."""
    import tensorflow as tf

    def made(write: Callable[..., Any], *, outputs: tuple[str, ...] = ("y",), **shapes: Any) -> Network:
        with tf.Graph().as_default() as tf_graph:
            write(*(tf.compat.v1.placeholder(tf.float32, shape, name=name) for name, shape in shapes.items()))
        graph = prepare_graph(Graph.from_graph_def(tf_graph.as_graph_def(), inputs=list(shapes), outputs=outputs))
        return Network(graph, survey_graph(graph).by_name)

    return made


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture(scope="session")
def lite_network() -> Callable[..., LiteNetwork]:
    """Makes the network that a function writes, as `network` does; `shape` is that of its one placeholder, x."""
    import tensorflow as tf

    def made(
        write: Callable[[Any], Any], shape: tuple[int | None, ...], *, outputs: tuple[str, ...] = ("y",), x: Any = None
    ) -> LiteNetwork:
        with tf.Graph().as_default() as tf_graph:
            write(tf.compat.v1.placeholder(tf.float32, shape, name="x"))
        graph = prepare_graph(Graph.from_graph_def(tf_graph.as_graph_def(), inputs=["x"], outputs=outputs))
        sizes = tuple(size or 24 for size in shape)
        x = np.random.default_rng(5).normal(size=sizes).astype(np.float32) if x is None else x
        return calibrated(LiteRTTarget().lowered(Model("net", graph, (), "")), x)

    return made
