"""Searches of models and data that a Python program has in memory, and what the folder of such a run can do alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import autoquant
from autoquant.errors import ModelError, RunError, UsageError
from autoquant.tuning.certification.certificate import Verdict

RNG = np.random.default_rng(3)
X = RNG.normal(size=(240, 8, 8, 1)).astype(np.float32)
TARGETS = pytest.mark.parametrize("target", ["tensorflow", "litert"])
OPTIONS: dict[str, Any] = {"tolerance": "20%", "max_trials": 1, "certify": "none", "seed": 1}


def network() -> Any:
    keras.utils.set_random_seed(5)
    layers = [keras.Input((8, 8, 1), name="image"), keras.layers.Conv2D(6, 3, activation="relu", name="conv")]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(4, name="dense")], name="net")


@pytest.fixture(scope="module")
def model() -> Any:
    return network()


@pytest.fixture(scope="module")
def labels(model: Any) -> Any:
    return np.asarray(model(X)).argmax(axis=1)


def plain_outputs(path: Path, images: Any) -> Any:
    """What a saved model computes, in a plain session or interpreter."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
        (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.resize_tensor_input(given["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(made["index"])
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run("dense:0", {"image:0": images})


@TARGETS
def test_a_run_goes_on_from_its_own_folder(target: str, model: Any, labels: Any, tmp_path: Path) -> None:
    """Searched in memory, moved elsewhere, and resumed, explained, reported and exported from there."""
    data = tf.data.Dataset.from_tensor_slices((X, labels)).batch(32)
    result = autoquant.search(model, data, target=target, **OPTIONS, run=tmp_path / "first")
    assert result.verdict is Verdict.MET and result.model is not None
    assert result.model.name == ("net_quantized.pb" if target == "tensorflow" else "net_int8.tflite")
    share = float((plain_outputs(result.model, X).argmax(axis=1) == labels).mean())
    # A few samples are for calibration.
    assert result.score == pytest.approx(share, abs=0.05)
    shutil.move(tmp_path / "first", tmp_path / "second")
    run = tmp_path / "second"
    tables = tomllib.loads((run / "run.toml").read_text())
    assert tables["request"]["model"] == "model/net.keras"
    resumed = autoquant.resume(run, data=data, max_trials=2)
    assert resumed.trials[0] == result.trials[0]
    assert tomllib.loads((run / "run.toml").read_text())["digests"] == tables["digests"]
    assert autoquant.explain(run).facts()
    assert subprocess.run([sys.executable, "-m", "autoquant", "report", str(run)], check=True).returncode == 0
    made = autoquant.export(run, tmp_path / "out")
    np.testing.assert_array_equal(plain_outputs(made.model, X[:9]), plain_outputs(result_model(run, result), X[:9]))
    other = "litert" if target == "tensorflow" else "tensorflow"
    assert autoquant.export(run, tmp_path / "other", target=other, data=data).transferred is not None


def result_model(run: Path, result: Any) -> Path:
    return run / "best" / str(result.model.name)


@pytest.mark.filterwarnings("ignore:__array__")  # of Keras, when it saves
@TARGETS
def test_the_same_as_from_files(target: str, model: Any, labels: Any, tmp_path: Path) -> None:
    """The same trials and scores as of the model and the data that were saved by hand."""
    model.save(tmp_path / "net.keras")
    np.savez(tmp_path / "data.npz", x=X, y=labels)
    options = {**OPTIONS, "target": target}
    from_files = autoquant.search(tmp_path / "net.keras", tmp_path / "data.npz", **options, run=tmp_path / "files")
    from_memory = autoquant.search(model, (X, labels), **options, run=tmp_path / "memory")
    facts = [
        [(trial.score, trial.drop, trial.int8_share, trial.plan) for trial in result.trials]
        for result in (from_files, from_memory)
    ]
    assert facts[0] == facts[1]
    assert from_files.model is not None and from_memory.model is not None
    assert from_files.model.read_bytes() == from_memory.model.read_bytes()


@TARGETS
def test_calibration_and_holdout_are_read_as_the_data_is(target: str, model: Any, labels: Any, tmp_path: Path) -> None:
    """Each in another form, with trials in a process of their own where nothing but the model is in memory."""
    options = {**OPTIONS, "target": target, "tolerance": "30%"}
    np.savez(tmp_path / "data.npz", x=X[:100], y=labels[:100])
    np.save(tmp_path / "calibration.npy", X[100:140])
    holdout = tf.data.Dataset.from_tensor_slices((X[140:], labels[140:])).batch(16)
    calibration = (X[start : start + 20] for start in (100, 120))
    more = {"calibration": calibration, "certify": holdout}
    result = autoquant.search(model, [(X[:100], labels[:100])], **{**options, **more}, run=tmp_path / "run")
    assert result.certificate is not None and result.certificate.samples == 100
    assert result.search_samples == 100
    more = {"calibration": tmp_path / "calibration.npy", "isolate": True}
    isolated = autoquant.search(model, tmp_path / "data.npz", **{**options, **more}, run=tmp_path / "isolated")
    assert [trial.score for trial in isolated.trials] == [trial.score for trial in result.trials]


@TARGETS
def test_inspect_quantize_and_benchmark_take_them_too(target: str, model: Any, labels: Any, tmp_path: Path) -> None:
    data = tf.data.Dataset.from_tensor_slices((X, labels))
    found = autoquant.inspect(model, target=target, calibration=data)
    assert len(found.survey.layers) == 2 and found.sensitivity is not None
    result = autoquant.search(model, (X, labels), target=target, **OPTIONS, run=tmp_path / "run")
    config = autoquant.export(result.run, tmp_path / "out").config
    made = autoquant.quantize(model, config, data.batch(50), tmp_path / "again", target=target)
    assert made.model.name == result_model(result.run, result).name
    assert plain_outputs(made.model, X[:9]).shape == (9, 4)
    assert [one.name for one in autoquant.benchmark(model, repeat=3).models] == ["net.keras"]


@TARGETS
def test_evaluate_takes_them_too(target: str, model: Any, labels: Any, tmp_path: Path) -> None:
    """The float model in memory beside the INT8 model of the run: scores and pairs as computed by hand."""
    result = autoquant.search(model, (X, labels), target=target, **OPTIONS, run=tmp_path / "run")
    assert result.model is not None
    wrong = np.where(np.arange(len(X)) % 4 == 0, (labels + 1) % 4, labels)  # so that FP32 is not always right
    data = tf.data.Dataset.from_tensor_slices((X, wrong)).batch(32)
    found = autoquant.evaluate(model, result.model, data=data, tolerance="20%")
    before = np.asarray(model(X)).argmax(axis=1) == wrong
    after = plain_outputs(result.model, X).argmax(axis=1) == wrong
    first, second = found.models
    assert (first.name, second.name, found.samples) == ("net.keras", result.model.name, 240)
    assert (first.score, second.score) == pytest.approx((before.mean(), after.mean()))
    assert (second.losses, second.gains) == ((before & ~after).sum(), (after & ~before).sum())
    assert second.verdict is Verdict.MET
    assert autoquant.evaluate(model, result, data=(X, wrong)).models[1].score == second.score


@TARGETS
def test_dry_runs_take_them_too(
    target: str, model: Any, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = autoquant.dry_run(model, tf.data.Dataset.from_tensor_slices((X, labels)).batch(32), target=target)
    assert (found.model, found.target, found.layers) == ("net", target, 2)
    assert found.search_samples + found.holdout_samples + found.calibration_samples == 240
    assert found.baseline == 1.0 and list(tmp_path.iterdir()) == []


def test_a_run_of_a_saved_model(labels: Any, tmp_path: Path) -> None:
    """A model with a class of its own is in the run as a SavedModel."""

    class Doubled(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def call(self, x: Any) -> Any:
            return 2 * x

    layers = network().layers
    own = keras.Sequential([keras.Input((8, 8, 1)), Doubled(), *layers], name="own")
    result = autoquant.search(own, (X, labels), **OPTIONS, run=tmp_path / "run")
    assert (tmp_path / "run" / "model" / "own" / "saved_model.pb").is_file()
    assert autoquant.resume(result.run, data=(X, labels), max_trials=2).trials[0] == result.trials[0]


def test_what_did_not_begin_leaves_nothing(model: Any, labels: Any, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(Exception, match="label"):
        autoquant.search(model, (X, labels + 100), **OPTIONS, run=tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(ModelError, match="was never built"):
        autoquant.search(keras.Sequential([keras.layers.Dense(2)]), (X, labels), run=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_model_of_a_run_cannot_be_given_as_an_object(model: Any, labels: Any, tmp_path: Path) -> None:
    autoquant.search(model, (X, labels), **OPTIONS, run=tmp_path / "run")
    with pytest.raises(UsageError, match="model: must be a path, got "):
        autoquant.resume(tmp_path / "run", model=model, data=(X, labels))
    shutil.rmtree(tmp_path / "run" / "model")
    with pytest.raises((ModelError, RunError), match="there is no such file"):
        autoquant.resume(tmp_path / "run", data=(X, labels), max_trials=2)
