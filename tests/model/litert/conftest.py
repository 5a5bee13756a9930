"""Small models as .tflite files, and a plain interpreter to run them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_writing import normal, placeholder

from autoquant.model.graph import Graph
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph


@pytest.fixture(scope="session")
def ran_lite() -> Callable[[bytes, Mapping[str, Any]], Mapping[str, Any]]:
    """Run the content of a .tflite through its only signature: the outputs by name."""
    from ai_edge_litert.interpreter import Interpreter

    def ran(content: bytes, feeds: Mapping[str, Any]) -> Any:
        return Interpreter(model_content=content).get_signature_runner()(**feeds)

    return ran


@pytest.fixture(scope="session")
def small(build: Callable[..., Graph]) -> Graph:
    """A convolution of 3 x 3 (2 to 4 channels), ReLU, average pooling, and after flattening a MatMul with bias."""
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def write() -> None:
        t = tf.nn.conv2d(placeholder(None, 6, 6, 2), tf.constant(normal(rng, 3, 3, 2, 4)), 1, "SAME", name="conv")
        t = tf.nn.relu(tf.nn.bias_add(t, tf.constant(normal(rng, 4))))
        t = tf.nn.avg_pool2d(t, 2, 2, "VALID", name="pool")
        t = tf.reshape(t, tf.stack([tf.shape(t)[0], 36]))
        t = tf.linalg.matmul(t, tf.constant(normal(rng, 36, 3)), name="dense")
        tf.nn.bias_add(t, tf.constant(normal(rng, 3)), name="y")

    return build(write)


@pytest.fixture(scope="session")
def lite(small: Graph) -> LiteGraph:
    """The same, converted."""
    return convert(small)


@pytest.fixture
def saved(lite: LiteGraph, tmp_path: Path) -> Path:
    """The same as a file."""
    path = tmp_path / "small.tflite"
    path.write_bytes(lite.content)
    return path
