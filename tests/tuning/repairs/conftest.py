"""The network of `repair_bench`, on each target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from repair_bench import COUNT, Bench, made_bench

from autoquant.targets.table import TARGETS


@pytest.fixture(scope="package")
def weights() -> dict[str, Any]:
    """Coarse weights of unequal channels, so that rounding shifts means."""
    rng = np.random.default_rng(4)
    sizes = {"conv": (3, 3, 2, 4), "depthwise": (3, 3, 4, 1), "dense": (16, 3)}
    found = {name: rng.laplace(size=size) * rng.uniform(0.05, 1, size[-1]) for name, size in sizes.items()}
    biases = {f"{name}_bias": rng.normal(size=count) for name, count in (("conv", 4), ("depthwise", 4), ("dense", 3))}
    return {name: values.astype(np.float32) for name, values in (found | biases).items()}


@pytest.fixture(scope="package")
def x() -> Any:
    return np.random.default_rng(5).uniform(0, 2, (COUNT, 6, 6, 2)).astype(np.float32)


@pytest.fixture(scope="package")
def file(weights: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network x -> conv -> relu -> depthwise -> relu -> dense -> y, each with a bias."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
        made = tf.nn.conv2d(x, weights["conv"], 1, "VALID", name="conv")
        made = tf.nn.relu(tf.nn.bias_add(made, weights["conv_bias"], name="conv_end"))
        made = tf.compat.v1.nn.depthwise_conv2d_native(
            made, weights["depthwise"], (1, 1, 1, 1), "VALID", name="depthwise"
        )
        made = tf.nn.relu(tf.nn.bias_add(made, weights["depthwise_bias"], name="depthwise_end"))
        made = tf.linalg.matmul(tf.reshape(made, (-1, 16)), weights["dense"], name="dense")
        tf.nn.bias_add(made, weights["dense_bias"], name="y")
    path = tmp_path_factory.mktemp("net") / "net.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.fixture(scope="package", params=sorted(TARGETS))
def bench(request: Any, file: Path, x: Any) -> Bench:
    return made_bench(request.param, file, x)
