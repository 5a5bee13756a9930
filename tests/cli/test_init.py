"""A file of options for a search: what it says is true of model and data, and it is searched without any change."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_files import Files

from autoquant.cli.main import main
from autoquant.evaluation.statistics.bounds import exact_upper


def written(*words: str, file: str = "run.toml") -> tuple[dict[str, Any], str]:
    """The options in the file that a command writes, and its comments as one text."""
    assert main(["init", *words]) == 0
    text = Path(file).read_text(encoding="utf-8")
    told = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    return tomllib.loads(text)["request"], told


@pytest.fixture
def classifier(tensorflow: None) -> Path:
    """`x` (?, 8, 8, 3) of values from -1 to 1 -> scores of three classes: which channel is the largest on average."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        kernel = tf.constant(np.eye(3, dtype=np.float32)[None, None] * 4)
        same = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME", name="conv"))
        tf.linalg.matmul(tf.reduce_mean(same, [1, 2]), tf.constant(np.eye(3, dtype=np.float32)), name="scores")
    Path("net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return Path("net.pb")


def images(count: int) -> dict[str, Any]:
    """Pixels from 0 to 255; what is largest after x / 127.5 - 1 and ReLU is the label."""
    x = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    return {"x": x, "y": np.maximum(x / 127.5 - 1, 0).mean(axis=(1, 2)).argmax(axis=1)}


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_it_is_searched_without_any_change(
    classifier: Path, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("data.npz", **images(2000))
    options, told = written("net.pb", "--data", "data.npz", "--target", target)
    assert capsys.readouterr().out == "wrote run.toml: read it, then\n\nautoquant search --config run.toml\n"
    assert (options["model"], options["data"]) == ("net.pb", "data.npz")
    assert (options["target"], options["metric"], options["preprocess"]) == (target, "top1", "tf")
    assert "It takes x (float32 ?x8x8x3) and gives scores (float32 ?x3). 2 layers can be INT8" in told
    assert "1,600 samples to evaluate on, with labels (int64, of shape (batch,)). Values go from 0 to 255." in told
    assert "400 samples more of the same file are split off for calibration" in told
    assert "with this the FP32 model has top1 1.0000, with the data as they are it has top1 0." in told
    assert "It can be certified with half of the samples, 800, if INT8 changes few of them." in told
    assert exact_upper(0, 0, 800, confidence=0.95) <= 0.01
    assert main(["search", "--config", "run.toml", "--run", "run", "--quiet"]) in (0, 1, 3)
    result = json.loads(Path("run/result.json").read_text(encoding="utf-8"))
    assert result["search_samples"] == 800
    assert result["baseline"] > 0.99  # two channels may be as large but for rounding


def test_too_few_samples_to_certify_are_told(classifier: Path) -> None:
    np.savez("data.npz", **images(250))
    options, told = written("net.pb", "--data", "data.npz", "--preprocess", "tf", "--to", "few.toml", file="few.toml")
    assert options["preprocess"] == "tf"
    assert "As given." in told
    said = re.search(r"half of the samples are 100, and to certify 1% takes (\d+); with these, (\d)% can be", told)
    assert said is not None
    assert (
        exact_upper(0, 0, int(said[1]) - 1, confidence=0.95) > 0.01 >= exact_upper(0, 0, int(said[1]), confidence=0.95)
    )
    assert 0.02 < exact_upper(0, 0, 100, confidence=0.95) <= 0.05 == int(said[2]) / 100


def test_values_without_labels_and_outputs_of_no_classes(files: Files) -> None:
    options, told = written(
        str(files.model), "--data", str(files.calibration), "--to", "sub/run.toml", file="sub/run.toml"
    )
    assert options["metric"] == "agreement"
    assert "Compares with the outputs of FP32, as there are no labels." in told
    assert options["data"] == str(files.calibration)  # which is not below the folder of the file
    options, told = written(str(files.model), "--data", str(files.data), "--to", "labelled.toml", file="labelled.toml")
    assert options["metric"] == "mse"
    assert "in units of the metric" in told  # of a score of 0 no share can be taken
    assert options["tolerance"] == "0.01"


def test_options_that_were_given_are_written_and_a_lite_model_is_for_litert(files: Files, tensorflow: None) -> None:
    import tensorflow as tf

    graph = tf.compat.v1.GraphDef.FromString(files.model.read_bytes())
    function = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
    pruned = function.prune("x:0", "fc:0")
    Path("tiny.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([pruned]).convert())
    words = ["tiny.tflite", "--data", str(files.data), "--batch-size", "8", "--calibration", str(files.calibration)]
    options, told = written(*words)
    assert (options["target"], options["batch_size"]) == ("litert", 8)
    assert options["calibration"] == str(files.calibration)
    assert "There are 20 samples." in told
    assert main(["search", "--config", "run.toml", "--run", "run", "--quiet", "--max-trials", "1"]) in (0, 1, 3)


def test_nothing_is_overwritten_and_mistakes_are_told_first(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text("mine")
    assert main(["init", "net.pb", "--data", "d.npz"]) == 2
    assert "run.toml: exists already; name another file with --to" in capsys.readouterr().err
    assert main(["init", "net.pb", "--data", "d.npz", "--to", "other.toml"]) == 2
    assert "net.pb: there is no such file" in capsys.readouterr().err
    assert main(["init", "net.tflite", "--data", "d.npz", "--to", "other.toml", "--target", "tensorflow"]) == 2
    assert "of which --target tensorflow can make nothing" in capsys.readouterr().err
    assert Path("run.toml").read_text() == "mine"
    assert not Path("other.toml").exists()
