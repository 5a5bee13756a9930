from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from cli_files import Files

from autoquant import api
from autoquant.cli.inspect import text
from autoquant.cli.main import main
from autoquant.model.litert.graph import LiteGraph

LAYERS = {"conv1", "conv2", "fc"}


@pytest.fixture
def words(files: Files) -> list[str]:
    return ["inspect", str(files.model), "--sensitivity", "--calibration", str(files.calibration), "--batch-size", "10"]


def test_the_table_has_the_most_sensitive_layer_first(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    begin = next(number for number, line in enumerate(lines) if "sensitivity" in line)
    assert lines[begin].split() == ["layer", "operator", "best", "range", "sensitivity", "share"]
    rows = [line.split() for line in lines[begin + 1 : begin + 4]]
    assert {row[0] for row in rows} == LAYERS
    assert {row[2] for row in rows} <= {"ifmr", "minmax", "percentile"}
    bars = [row[3] for row in rows]
    values, shares = [float(row[4]) for row in rows], [float(row[5].rstrip("%")) for row in rows]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert bars[0] == "#" * 24
    assert [len(bar) for bar in bars] == pytest.approx([24 * share / shares[0] for share in shares], abs=1)
    assert lines[begin + 5] == "with default settings; found by gradients on 20 samples"


def test_json_has_every_setting(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["sensitivity"]
    assert told["method"] == "fisher"
    assert told["reason"] == ""
    assert told["samples"] == 20
    assert told["unit"] == "nats"
    assert told["layers"].keys() == LAYERS
    for values in told["layers"].values():
        assert values.keys() == {"ifmr", "minmax", "percentile"}
        assert all(value > 0 for value in values.values())


def test_for_litert_the_given_model_is_measured(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--json", "--target", "litert"]) == 0
    told = json.loads(capsys.readouterr().out)["sensitivity"]
    assert (told["method"], told["layers"].keys()) == ("fisher", LAYERS)


def test_a_tflite_is_measured_and_says_why(files: Files, tmp_path: Path) -> None:
    program = api.inspect(files.model, target="litert").model.program
    assert isinstance(program, LiteGraph)
    (tmp_path / "tiny.tflite").write_bytes(program.content)
    found = api.inspect(tmp_path / "tiny.tflite", calibration=files.calibration, batch_size=10)
    wide = text(found, columns=None)
    assert "found one layer at a time on 20 samples\nas a .tflite has no gradients" in wide
    narrow = text(found, columns=50)
    assert len(re.findall("best range (ifmr|minmax|percentile)", narrow)) == 3


def test_layers_that_cannot_be_calibrated_are_shown_so(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4], name="x")
        huge = tf.tanh(tf.matmul(x, tf.constant(np.eye(4) * 3e38, tf.float32), name="huge"))
        tf.identity(huge + tf.matmul(x, tf.constant(np.eye(4), tf.float32), name="fine"), name="y")
    (tmp_path / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    found = api.inspect(tmp_path / "net.pb", calibration=(x, None))
    rows = [line.split() for line in text(found, columns=None).splitlines()]
    assert ["huge", "MatMul", "-", "cannot", "be", "calibrated", "-"] in rows


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--sensitivity"], "--sensitivity: needs samples to run the model on; give --calibration DATA"),
        (["--calibration", "x.npz"], "--calibration: is for --sensitivity alone; give that too, or leave it out"),
        (["--batch-size", "5"], "--batch-size: is for --sensitivity alone; give that too, or leave it out"),
        (["--sensitivity", "--calibration", "no.npz"], "no.npz: there is no such file"),
    ],
)
def test_contradictory_options_are_refused(
    files: Files, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    assert main(["inspect", str(files.model), *given]) == 2
    assert said in capsys.readouterr().err
