"""What all tests share: a quiet TensorFlow, a tiny model with its data, and the real models where they are."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_tests import is_fast, loads_heavy
from hypothesis import HealthCheck, settings
from tiny_model import Tiny

# A busy machine is no failure.
settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# Where the processor has AVX-512, TensorFlow takes oneDNN's kernels, which say so and refuse empty batches.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

# Files survive a process without it; a machine that dies is no test, and it is a quarter of a small search.
setattr(os, "fsync", lambda _: None)  # noqa: B010  # mypy allows no other way

LOADED = pytest.StashKey[frozenset[str]]()
REAL = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """The fast tests alone try a quarter of the examples, in one process unless `-n` asks for more.

    Another process would import and collect everything once more, which takes a fifth of the time that all tests do.
    """
    if config.option.markexpr == "fast":
        settings.register_profile("fast", settings.get_profile("untimed"), max_examples=25)
        settings.load_profile("fast")
        if not any(str(word).startswith(("-n", "--numprocesses")) for word in config.invocation_params.args):
            config.option.dist, config.option.tx = "no", []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """For the fast tests alone, what would load TensorFlow or LiteRT is not imported."""
    return True if config.option.markexpr == "fast" and loads_heavy(collection_path) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the fast tests, where that is asked for: it takes a moment."""
    if "fast" in config.option.markexpr:
        for item in items:
            if is_fast(getattr(item, "originalname", item.name), item.path):
                item.add_marker("fast")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests in memory are no garbage: to look at them takes a second, again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What of TensorFlow and LiteRT was loaded before a test is not this test's doing."""
    item.stash[LOADED] = _loaded()
    return (yield)


def pytest_runtest_teardown(item: pytest.Item) -> None:
    """With the fast tests alone, each fails that loads TensorFlow or LiteRT after all."""
    before = item.stash[LOADED]
    if item.config.option.markexpr == "fast" and (loaded := _loaded() - before):
        pytest.fail(f"{min(loaded)} is loaded; let the test ask for the fixture `tensorflow`", pytrace=False)


def _loaded() -> frozenset[str]:
    return frozenset(name for name in ("tensorflow", "ai_edge_litert") if name in sys.modules)


@pytest.fixture(scope="session")
def tensorflow() -> Any:
    """TensorFlow, for tests that let autoquant load it and do not import it themselves."""
    import tensorflow as tf

    return tf


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real models, which lies beside the checkout; skips without it, except in CI, where it must be."""
    if not REAL.is_dir():
        message = "the real models are not beside this checkout"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return REAL


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
        "dense_bias": np.zeros(3, np.float32),
    }
    images = rng.normal(size=(264, 8, 8, 2)).astype(np.float32)
    # Without a bias that centers the scores, a random network gives nearly all samples one class.
    weights["dense_bias"] = -_scores(tf, weights, images)[1].mean(axis=0)
    graph, scores = _scores(tf, weights, images)
    (folder / "tiny.pb").write_bytes(graph.as_graph_def().SerializeToString())
    labels = np.where(rng.random(264) < 0.1, (scores.argmax(axis=1) + 1) % 3, scores.argmax(axis=1))
    for name, part in (("evaluation", slice(200)), ("calibration", slice(200, None))):
        np.savez(folder / f"{name}.npz", x=images[part], y=labels[part])
    return Tiny(folder / "tiny.pb", folder / "evaluation.npz", folder / "calibration.npz", weights)


@pytest.fixture(scope="session")
def run() -> Callable[..., list[Any]]:
    """Run a Graph on values by input: the values of its outputs."""
    import tensorflow as tf

    from autoquant.model.shapes import import_graph, tensor_name

    def ran(graph: Any, feeds: Mapping[str, Any]) -> list[Any]:
        with tf.compat.v1.Session(graph=import_graph(graph)) as session:
            fed = {tensor_name(name): value for name, value in feeds.items()}
            return [np.asarray(v) for v in session.run([tensor_name(o) for o in graph.outputs], fed)]

    return ran


@pytest.fixture(scope="session")
def regression(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data whose labels are the tiny model's outputs: no INT8 plan has the metric mse within a tolerance of 0."""
    import tensorflow as tf

    images = np.load(tiny.evaluation)["x"][:60]
    path = tmp_path_factory.mktemp("regression") / "data.npz"
    np.savez(path, x=images, y=_scores(tf, tiny.weights, images)[1])
    return path


def _scores(tf: Any, weights: dict[str, Any], images: Any) -> tuple[Any, Any]:
    """The network as a graph, and its scores for the images."""
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
        with tf.compat.v1.Session() as session:
            return graph, session.run(scores, {image: images})


@pytest.fixture(scope="session")
def lite_pair() -> Any:
    """A float .tflite of many kinds of operators, and an INT8 one of the same, as `lite_models.Pair`."""
    import lite_models

    return lite_models.pair()
