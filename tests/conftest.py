"""What all tests share: a quiet TensorFlow, a tiny model with its data, and the real models where they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real models, which lies beside the checkout; skips without it, except in CI, where it must be."""
    if not REAL.is_dir():
        message = "the real models are not beside this checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return REAL


@dataclass(frozen=True)
class Tiny:
    """A frozen .pb (`image` (batch, 8, 8, 2) -> `scores` (batch, 3)), its weights, and data with labels.

    Layers: `conv` (Conv2D, bias), `depthwise` (multiplier 2, stride 2, no bias), `dense` (MatMul, bias).
    """

    model: Path
    evaluation: Path
    calibration: Path
    weights: dict[str, Any]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny model. One label in ten is wrong, so that its FP32 accuracy is about 0.9."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(7)
    weights = {
        "conv": rng.normal(size=(3, 3, 2, 4)).astype(np.float32),
        "conv_bias": rng.normal(size=4).astype(np.float32),
        "depthwise": rng.normal(size=(3, 3, 4, 2)).astype(np.float32),
        "dense": rng.normal(size=(8, 3)).astype(np.float32),
        "dense_bias": rng.normal(size=3).astype(np.float32),
    }
    graph = tf.Graph()
    with graph.as_default():
        image = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 2), name="image")
        x = tf.nn.conv2d(image, tf.constant(weights["conv"]), 1, "SAME", name="conv")
        x = tf.nn.relu(tf.nn.bias_add(x, tf.constant(weights["conv_bias"]), name="conv_bias"))
        x = tf.compat.v1.nn.depthwise_conv2d_native(
            x, tf.constant(weights["depthwise"]), (1, 2, 2, 1), "VALID", name="depthwise"
        )
        x = tf.reduce_mean(tf.nn.relu(x), axis=(1, 2))
        x = tf.linalg.matmul(x, tf.constant(weights["dense"]), name="dense")
        scores = tf.nn.bias_add(x, tf.constant(weights["dense_bias"]), name="scores")
    (folder / "tiny.pb").write_bytes(graph.as_graph_def().SerializeToString())
    for name, count in (("evaluation", 200), ("calibration", 64)):
        images = rng.normal(size=(count, 8, 8, 2)).astype(np.float32)
        with tf.compat.v1.Session(graph=graph) as session:
            labels = session.run(scores, {image: images}).argmax(axis=1)
        wrong = rng.random(count) < 0.1
        np.savez(folder / f"{name}.npz", x=images, y=np.where(wrong, (labels + 1) % 3, labels))
    return Tiny(folder / "tiny.pb", folder / "evaluation.npz", folder / "calibration.npz", weights)
