"""A network with a training switch and a keep probability that are given by `feed`, on both targets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import SavedLite
from recurrent import run_pb

import autoquant
from autoquant.errors import ModelError, UsageError

FEED = {"is_training": False, "keep_prob": 1.0}
SNR = 25.0
"""Decibels: 8 bits give about 6 dB a bit, of which wide ranges and three roundings take some."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A convolution, a batch norm that is switched by Switch and Merge, a dropout, and a dense layer; its outputs."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util as util

    v1, rng = tf.compat.v1, np.random.default_rng(0)
    kernel, last = (rng.normal(0, 0.5, shape).astype(np.float32) for shape in ((3, 3, 2, 4), (4, 3)))
    scale, shift, mean, variance = (rng.uniform(0.5, 1.5, 4).astype(np.float32) for _ in range(4))
    before, util.ENABLE_CONTROL_FLOW_V2 = util.ENABLE_CONTROL_FLOW_V2, False
    with tf.Graph().as_default() as graph:
        x, training = v1.placeholder(tf.float32, (None, 6, 6, 2), name="x"), v1.placeholder(tf.bool, name="is_training")
        keep = v1.placeholder(tf.float32, name="keep_prob")
        t = tf.nn.conv2d(x, kernel, 1, "SAME", name="conv")
        norm = v1.nn.fused_batch_norm
        t = tf.cond(
            training,
            lambda: norm(t, scale, shift, is_training=True)[0],
            lambda: norm(t, scale, shift, mean, variance, is_training=False)[0],
        )
        t = tf.reduce_mean(tf.nn.relu(t), [1, 2])
        t = t * tf.floor(keep + tf.random.uniform(tf.shape(t))) / keep  # divided last, which no rule knows
        tf.identity(tf.linalg.matmul(t, last, name="dense"), name="y")
    util.ENABLE_CONTROL_FLOW_V2 = before
    folder = tmp_path_factory.mktemp("switch")
    (folder / "m.pb").write_bytes(graph.as_graph_def().SerializeToString())
    images = rng.normal(size=(60, 6, 6, 2)).astype(np.float32)
    np.savez(folder / "x.npz", x=images)
    with v1.Session(graph=graph) as session:
        wanted = session.run("y:0", {"x:0": images, "is_training:0": False, "keep_prob:0": 1.0})
    return {"model": folder / "m.pb", "data": folder / "x.npz", "x": images, "y": wanted}


def searched(files: dict[str, Any], run: Path, **options: Any) -> Any:
    data, shared = files["data"], {"metric": "sqnr", "tolerance": 300.0, "max_trials": 1, "certify": "none"}
    options = {**shared, "feed": FEED, "allow_overlap": True, **options}
    return autoquant.search(files["model"], data, calibration=data, run=run, **options)


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_all_layers_become_int8(target: str, files: dict[str, Any], tmp_path: Path) -> None:
    result = searched(files, tmp_path / "run", target=target)
    assert set(result.best.plan.int8) == {"conv", "dense"}
    if target == "tensorflow":
        (found,) = run_pb(result.model, ["y:0"], files["x"])
    else:
        (found,) = SavedLite(result.model.read_bytes()).run(files["x"]).values()
    noise = np.square(found.astype(np.float64) - files["y"]).sum()
    assert 10 * np.log10(np.square(files["y"].astype(np.float64)).sum() / noise) > SNR
    request = tomllib.loads((result.run / "run.toml").read_text())["request"]
    assert request["feed"] == ["is_training=false", "keep_prob=1.0"]
    assert autoquant.resume(result.run, max_trials=2).trials[0].number == 0
    with pytest.raises(UsageError, match="feed: cannot change when a run is resumed"):
        autoquant.resume(result.run, feed={"is_training": True})
    other = "litert" if target == "tensorflow" else "tensorflow"
    assert autoquant.export(result.run, tmp_path / "other", target=other).transferred is not None
    config = autoquant.export(result.run, tmp_path / "same").config
    made = autoquant.quantize(files["model"], config, files["data"], tmp_path / "new", target=target, feed=FEED)
    assert made.model.exists()


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({}, r"condition of TensorFlow 1 \(Switch\) on 'is_training', .*; give its value: --feed is_training=false"),
        (
            {"is_training": False},
            "has no array 'keep_prob', only x; add it, or give --feed keep_prob=VALUE",
        ),
    ],
)
def test_what_is_not_fed(feed: dict[str, Any], message: str, files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message):
        searched(files, tmp_path / "run", feed=feed)
    assert not (tmp_path / "run").exists()


def test_a_scalar_is_no_data(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        rate = tf.compat.v1.placeholder(tf.float32, (), name="rate")
        tf.linalg.matmul(x, tf.ones((4, 2)), name="dense") * rate
    (tmp_path / "m.pb").write_bytes(graph.as_graph_def().SerializeToString())
    assert [spec.name for spec in autoquant.inspect(tmp_path / "m.pb").model.inputs] == ["x", "rate"]
    data = {"x": np.ones((9, 4), np.float32), "rate": np.ones(9, np.float32)}
    with pytest.raises(ModelError, match=r"rate: .* a single value .*; give its value: --feed rate=1\.0"):
        autoquant.search(tmp_path / "m.pb", data, run=tmp_path / "run", metric="mse")


def test_a_benchmark_feeds_it_too(files: dict[str, Any]) -> None:
    found = autoquant.benchmark(files["model"], feed=FEED, repeat=3)
    assert {"conv", "dense"} <= {one.name for one in found.operators}
    with pytest.raises(ModelError, match="--feed"):
        autoquant.benchmark(files["model"], repeat=3)
