"""AMCT's functions on a graph of half precision whose layers share a weight, or transpose it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autoquant as amct
from autoquant.formats.record_text import load_record
from autoquant.targets.check import check


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_a_graph_of_half_precision_is_calibrated_and_saved(kind: str, built: Callable[..., Any]) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def write() -> None:
        kernel = tf.constant(rng.normal(size=(3, 3, 4, 4)) / 6, kind)
        matrix = tf.constant(rng.normal(size=(10, 256)) / 16, kind)
        t = tf.nn.relu(tf.nn.conv2d(tf.compat.v1.placeholder(kind, (None, 8, 8, 4), name="x"), kernel, 1, "SAME"))
        t = tf.reshape(tf.nn.conv2d(t, kernel, 1, "SAME"), [-1, 256])
        tf.matmul(t, matrix, transpose_b=True, name="y")

    graph = built(write)
    Path("m.pb").write_bytes(graph.as_graph_def().SerializeToString())
    amct.create_quant_config("config.json", graph)
    assert len(amct.quantize_model(graph, "config.json", "record.txt")) == 3
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    with graph.as_default(), tf.compat.v1.Session(graph=graph) as session:
        session.run(tf.compat.v1.global_variables_initializer())
        wanted = np.asarray(session.run("y:0", {"x:0": x}), np.float32)
    saved = amct.save_model("m.pb", ["y"], "record.txt", "out/m")
    assert check(saved.model, load_record(Path("record.txt"))).layers == {"Conv2D": 2, "MatMul": 1}
    with tf.Graph().as_default() as int8:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(saved.model.read_bytes()), name="")
    with tf.compat.v1.Session(graph=int8) as session:
        found = session.run("y:0", {"x:0": x})
    assert found.dtype == np.float32
    assert 0 < ((found - wanted) ** 2).mean() < 1e-3 * (wanted**2).mean()
