"""Searches on maps, sequences and several outputs, without labels: their scores are those of plain sessions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import without_warnings_of_keras

import autoquant
from autoquant.array import Array
from autoquant.errors import DataError, UsageError
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.study.trial import State

SHAPES = {"image": (12, 12, 3), "steps": (10, 6)}
METRICS = {"agreement": "5%", "sqnr@25": "10%"}


def data(name: str, count: int = 500, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, *SHAPES[name])).astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network that gives each pixel one of four classes and the image one of three, and one that tags steps."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    image = layers.Input(SHAPES["image"], name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu", name="wide")(x)
    whole = layers.Dense(3, name="whole")(layers.GlobalAveragePooling2D()(x))
    maps = layers.Conv2D(4, 1, name="map")(layers.Conv2D(16, 3, padding="same", activation="relu", name="deep")(x))
    steps = layers.Input(SHAPES["steps"], name="steps")
    tags = layers.Dense(5, activation="softmax", name="tags")(layers.Dense(24, activation="relu", name="first")(steps))
    made = {"image": keras.Model(image, maps), "steps": keras.Model(steps, tags)}
    made["both"] = keras.Model(image, [whole, maps])
    with without_warnings_of_keras():
        for name, model in made.items():
            model.save(folder / f"{name}.keras")
    return {name: folder / f"{name}.keras" for name in made}


def outputs(path: Path, x: Array, name: str, output: str) -> Array:
    """What a saved model makes of samples, in a plain session or interpreter, without any of our code."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        run = Interpreter(model_content=path.read_bytes()).get_signature_runner()
        return np.concatenate([run(**{name: x[i : i + 1]})[output] for i in range(len(x))])
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return np.asarray(session.run(f"{output}:0", {f"{name}:0": x}))


def cap(metric: str) -> float:
    """The score of FP32."""
    return float(metric.partition("@")[2] or 1)


def plain_rows(metric: str, ours: Array, theirs: Array) -> Array:
    """Each sample's agreement, or its SQNR up to the cap."""
    if metric == "agreement":
        return np.asarray((ours.argmax(axis=-1) == theirs.argmax(axis=-1)).reshape(len(ours), -1).mean(axis=1))
    one, other = (array.reshape(len(array), -1).astype(np.float64) for array in (ours, theirs))
    ratio = np.square(other).sum(axis=1) / np.square(one - other).sum(axis=1)
    return np.asarray(np.clip(10 * np.log10(ratio), 0, cap(metric)))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("target", ["tensorflow", "litert"])
@pytest.mark.parametrize(("name", "output"), [("image", "map"), ("steps", "tags")])
def test_what_is_certified(
    models: dict[str, Path], tmp_path: Path, name: str, output: str, target: str, metric: str
) -> None:
    import keras

    x, run = data(name), tmp_path / "run"
    options: dict[str, Any] = {"calibration": (data(name, 96, 1), None), "max_trials": 6, "run": run}
    found = autoquant.search(
        models[name], (x, None), metric=metric, tolerance=METRICS[metric], target=target, **options
    )
    assert found.verdict is Verdict.CERTIFIED
    assert found.model is not None and found.certificate is not None and found.best is not None
    theirs = keras.models.load_model(models[name]).predict(x, verbose=0)
    rows = plain_rows(metric, outputs(found.model, x, name, output), theirs)
    splits = np.load(run / "splits.npz")
    tolerance = 1e-3 if metric == "agreement" else 0.02  # batches of other sizes round otherwise
    assert found.certificate.score == pytest.approx(rows[splits["holdout"]].mean(), abs=tolerance)
    assert found.score == pytest.approx(rows[splits["search"]].mean(), abs=tolerance)
    assert found.certificate.baseline == found.baseline == cap(metric)
    assert found.certificate.method == "betting (bounded mean)"
    assert (found.certificate.losses, found.certificate.gains) == (None, None)
    assert found.certificate.drop < found.certificate.upper_bound <= found.max_drop


@pytest.mark.parametrize(("metric", "max_drop"), [("agreement", 0.004), ("sqnr@40", 0.5)])
def test_trials_that_stop_early_are_what_they_are_said_to_be(
    models: dict[str, Path], tmp_path: Path, metric: str, max_drop: float
) -> None:
    """Of every trial the drop on all samples, from plain sessions, lies where the trial says."""
    import keras

    x, run, space = data("image", 1500), tmp_path / "run", tmp_path / "space.toml"
    space.write_text("[global]\nchannel_wise = [false, true]\n[layer]\nquant_enable = [true, false]\n")
    options: dict[str, Any] = {"certify": "none", "keep_all_models": True, "max_trials": 6, "space": space, "run": run}
    calibration = data("image", 96, 1), None
    found = autoquant.search(
        models["image"], (x, None), calibration=calibration, metric=metric, tolerance=max_drop, **options
    )
    theirs = keras.models.load_model(models["image"]).predict(x, verbose=0)
    near = 1e-3 * cap(metric)  # batches of other sizes round otherwise
    assert any(trial.state is State.STOPPED and trial.within is False for trial in found.trials)
    for trial in found.trials:
        model = run / "trials" / f"{trial.number:04d}" / "image_quantized.pb"
        drop = cap(metric) - plain_rows(metric, outputs(model, x, "image", "map"), theirs).mean()
        if trial.low is not None and trial.high is not None:
            assert trial.low - near <= drop <= trial.high + near
        if trial.within is not None:
            assert drop <= max_drop + near if trial.within else drop > max_drop - near


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_the_output_that_is_scored(models: dict[str, Path], tmp_path: Path, target: str) -> None:
    import keras

    x, run = data("image", 120), tmp_path / "run"
    theirs = keras.models.load_model(models["both"]).predict(x, verbose=0)
    options: dict[str, Any] = {"calibration": (data("image", 96, 1), None), "certify": "none", "target": target}
    found = autoquant.search(
        models["both"], (x, theirs[1].argmax(axis=-1)), metric="miou@output=map", tolerance=0.2, run=run, **options
    )
    assert found.model is not None
    assert found.metric == "miou@output=map"
    guess, truth = outputs(found.model, x, "image", "map").argmax(axis=-1), theirs[1].argmax(axis=-1)
    pairs = [(guess == number, truth == number) for number in np.unique(truth)]
    assert found.score == pytest.approx(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]), abs=5e-3)
    assert found.baseline == 1.0
    other = {"tensorflow": "litert", "litert": "tensorflow"}[target]
    made = autoquant.export(run, tmp_path / "other", target=other, data=(x, truth), calibration=options["calibration"])
    assert made.transferred is not None
    guess = outputs(made.model, x, "image", "map").argmax(axis=-1)
    pairs = [(guess == number, truth == number) for number in np.unique(truth)]
    expected = np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs])
    assert made.transferred.score == pytest.approx(expected, abs=5e-3)
    score = json.loads((run / "best" / "score.json").read_text())
    assert score["metric"] == "miou@output=map"


def test_an_output_that_is_not_there_and_one_that_does_not_fit(models: dict[str, Path], tmp_path: Path) -> None:
    x = data("image", 60)
    options: dict[str, Any] = {"calibration": (data("image", 96, 1), None), "run": tmp_path / "run"}
    with pytest.raises(UsageError, match="the model has no output 'maps'; its outputs, the nearest first: map, whole"):
        autoquant.search(models["both"], (x, None), metric="agreement@output=maps", **options)
    labels = np.arange(60) % 3
    options["run"] = tmp_path / "other"
    with pytest.raises(DataError, match="use --metric top1@output=whole, or write"):
        autoquant.search(models["both"], (x, labels), metric="top1@output=map", **options)
