"""Every kind of layer that AMCT quantizes, through the flow of a live graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant as amct
from autoquant.formats.record_text import load_record
from autoquant.targets.check import check

CONFIG, RECORD = Path("config.json"), Path("record.txt")
F = np.float32


def write() -> None:
    """`x` (batch, 8, 8, 2) -> `y` (batch, 3), through all of them."""
    import tensorflow as tf

    rng = np.random.default_rng(8)

    def weight(*shape: int) -> Any:
        return rng.normal(size=shape).astype(F) / F(np.sqrt(np.prod(shape[:-1])))

    x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 2), name="x")
    a = tf.nn.relu(tf.nn.conv2d(x, weight(3, 3, 2, 4), 1, "SAME", name="conv"))
    b = tf.compat.v1.nn.depthwise_conv2d_native(a, weight(3, 3, 4, 1), (1, 1, 1, 1), "SAME", name="depthwise")
    c = tf.nn.max_pool2d(tf.add(a, b, name="add"), 2, 2, "VALID", name="max_pool")
    volume = tf.nn.conv3d(c[:, None], weight(1, 3, 3, 4, 4), (1, 1, 1, 1, 1), "SAME", name="conv3d")[:, 0]
    up = tf.nn.conv2d_transpose(
        volume, weight(2, 2, 4, 4), tf.stack([tf.shape(x)[0], 8, 8, 4]), 2, "VALID", name="deconv"
    )
    rows = tf.reshape(tf.nn.avg_pool2d(tf.nn.relu(up), 2, 2, "VALID", name="avg_pool"), (-1, 16, 4))
    keys = tf.linalg.matmul(rows, weight(4, 4), name="keys")
    scores = tf.linalg.matmul(rows, tf.transpose(keys, (0, 2, 1)), name="scores")
    mixed = tf.linalg.matmul(tf.nn.softmax(scores), rows, name="mixed")
    flat = tf.reshape(mixed, (-1, 64))
    tf.nn.bias_add(tf.linalg.matmul(flat, weight(64, 3), name="dense"), np.array([1, 2, 3], F), name="y")


@pytest.fixture
def model(built: Callable[[Callable[[], Any]], Any]) -> Path:
    Path("model.pb").write_bytes(built(write).as_graph_def().SerializeToString())
    return Path("model.pb")


def outputs(graph: Any, images: Any) -> Any:
    import tensorflow as tf

    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        return session.run("y:0", {"x:0": images})


@pytest.mark.parametrize(
    ("cfg", "entries"),
    [
        ("", ()),
        ("activation_offset: false", ()),
        ("tensor_quantize { layer_name: 'max_pool' input_index: 0 }", ("max_pool:0",)),
        (
            "tensor_quantize { layer_name: 'add' input_index: 1 } common_config { hfmg_quantize { num_of_bins: 4096 } "
            "arq_quantize { channel_wise: false } dmq_balancer { migration_strength: 0.5 } }",
            ("add:1",),
        ),
    ],
)
def test_every_layer_is_calibrated_and_saved(
    model: Path, load_pb: Callable[[Path], Any], cfg: str, entries: tuple[str, ...]
) -> None:
    images = np.random.default_rng(9).normal(size=(64, 8, 8, 2)).astype(F)
    Path("c.cfg").write_text(cfg)
    graph = load_pb(model)
    amct.create_quant_config(CONFIG, graph, config_defination="c.cfg")
    variables = amct.quantize_model(graph, CONFIG, RECORD)
    outputs(graph, images)
    record = load_record(RECORD)
    always = {"conv", "depthwise", "conv3d", "deconv", "avg_pool", "keys", "scores", "mixed", "dense"}
    assert set(record) == {*always, "scores:1", "mixed:1", *entries}
    assert len(variables) == len(always) + len(entries)
    saved = amct.save_model(model, ["y:0"], RECORD, "out/model")
    assert check(saved.model, record).simulation
    expected, found = outputs(load_pb(model), images), outputs(load_pb(saved.model), images)
    assert 0 < np.abs(found - expected).max() < 0.1 * np.ptp(expected)


def test_fewer_bits_of_a_weight(model: Path, load_pb: Callable[[Path], Any]) -> None:
    graph = load_pb(model)
    amct.create_quant_config(CONFIG, graph)
    config = json.loads(CONFIG.read_text())
    config["conv"]["weight_quant_params"]["num_bits"] = 6
    CONFIG.write_text(json.dumps(config))
    amct.quantize_model(graph, CONFIG, RECORD)
    outputs(graph, np.ones((4, 8, 8, 2), F))
    record = load_record(RECORD)
    assert {name: entry.weight_bits for name, entry in record.items() if entry.weight_bits != 8} == {"conv": 6}
    saved = amct.save_model(model, ["y:0"], RECORD, "out/model")
    assert check(saved.model, record).layers["Conv2D"] == 1
