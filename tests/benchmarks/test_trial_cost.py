"""The benchmark runs, and prints every part; what it measures is not for a test to judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trial_cost
from tiny_model import Tiny


def printed(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    """Check what every run prints, and give its first line."""
    trial_cost.main([*map(str, words), "--repeat", "2"])
    lines = capsys.readouterr().out.splitlines()
    names = [*trial_cost.PARTS, "all but scoring"]
    if "--bias-correction" in words:
        names.insert(1, "correct")
    parts = lines[4 : 4 + len(names)]
    assert [line.split("  ")[0] for line in parts] == names
    assert all(float(number) > 0 for line in parts for number in line.split()[-2:])
    assert lines[4 + len(names)].startswith("all but scoring of a later trial: ")
    elsewhere = [line for line in lines if "in TensorFlow takes" in line]
    assert len(elsewhere) == (0 if {"litert", "tensorflow"} & {*words} else 1)
    return lines[0]


@pytest.mark.parametrize(
    "options",
    [(), ("--dmq", 0.5), ("--bias-correction", "analytic"), ("--target", "litert"), ("--engine", "tensorflow")],
    ids=str,
)
def test_it_runs(tiny: Tiny, capsys: pytest.CaptureFixture[str], options: tuple[float | str, ...]) -> None:
    words = (tiny.model, tiny.evaluation, "--calibration", tiny.calibration, *options)
    assert printed(capsys, *words) == "tiny: 3 layers, 200 samples"


def test_inputs_of_operators_are_no_layers_of_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        y = tf.matmul(x, tf.constant(np.eye(4, dtype=np.float32) * 2.0)) + tf.nn.relu(x)
        tf.identity(y, name="y")
    (tmp_path / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    samples = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=samples, y=samples.argmax(axis=1))
    assert printed(capsys, tmp_path / "net.pb", tmp_path / "data.npz") == "net: 1 layers, 96 samples"
