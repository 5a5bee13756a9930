"""`result.load()`: the saved model called on arrays gives what a plain session or interpreter gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_model import Tiny

import autoquant
from autoquant.errors import DataError, ModelError, RunError
from autoquant.tuning.builder import front_path
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.int8_model import load_int8_model
from autoquant.tuning.result import Ended, SearchResult

OPTIONS: dict[str, Any] = {"tolerance": "30%", "max_trials": 1, "certify": "none", "batch_size": 32}
RNG = np.random.default_rng(4)


def lite_outputs(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    for one in interpreter.get_input_details():
        name = next(key for key in feeds if key in one["name"])
        interpreter.resize_tensor_input(one["index"], feeds[name].shape)
    interpreter.allocate_tensors()
    return dict(interpreter.get_signature_runner()(**feeds))


def graph_outputs(path: Path, feeds: dict[str, Any], *outputs: str) -> list[Any]:
    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            fed = {f"{name}:0": value for name, value in feeds.items()}
            return list(session.run([f"{name}:0" for name in outputs], fed))


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_the_best_model_is_called_on_arrays(tiny: Tiny, target: str, tmp_path: Path) -> None:
    result = autoquant.search(tiny.model, tiny.evaluation, target=target, **OPTIONS, run=tmp_path / "run")
    model = result.load()
    assert repr(model) == f"<Int8Model {model.path.name}: image (batch, 8, 8, 2) float32 -> scores>"
    stored = np.load(tiny.evaluation)
    images = stored["x"]
    if target == "tensorflow":
        (wanted,) = graph_outputs(model.path, {"image": images}, "scores")
    else:
        wanted = lite_outputs(model.path, {"image": images})["scores"]
    for given in (images, (images,), {"image": images}, tf.constant(images), images.astype(np.float64)):
        np.testing.assert_allclose(model(given), wanted, atol=1e-6)
    np.testing.assert_allclose(model(images[:1]), wanted[:1], atol=1e-6)
    # Apart from the samples for calibration, this is the score.
    assert float((model(images).argmax(axis=1) == stored["y"]).mean()) == pytest.approx(result.score, abs=0.05)
    with pytest.raises(DataError, match=r"takes \(batch, 8, 8, 2\), the data has \(batch, 8, 2\)"):
        model(images[0])
    with pytest.raises(DataError, match="has inputs picture, the model takes image"):
        model({"picture": images})
    model.path.unlink()
    with pytest.raises(ModelError, match="there is no such file; `autoquant export` builds it again"):
        result.load()


def test_int8_inputs_and_outputs(tiny: Tiny, tmp_path: Path) -> None:
    """Real numbers become what the file takes, and integers go in as they are."""
    more: dict[str, Any] = {"target": "litert", "io": "int8"}
    result = autoquant.search(tiny.model, tiny.evaluation, **more, **OPTIONS, run=tmp_path / "run")
    model, images = result.load(), np.load(tiny.evaluation)["x"][:20]
    assert model.inputs[0].dtype == np.int8
    from ai_edge_litert.interpreter import Interpreter

    details = Interpreter(str(model.path)).get_input_details()[0]
    scale, zero = details["quantization"]
    raw = np.clip(np.rint(images / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    found = lite_outputs(model.path, {"image": raw})["scores"]
    assert found.dtype == np.int8
    scale, zero = Interpreter(str(model.path)).get_output_details()[0]["quantization"]
    wanted = (found.astype(np.float32) - zero) * np.float32(scale)
    np.testing.assert_allclose(model(raw), wanted, atol=1e-6)
    np.testing.assert_allclose(model(images), wanted, atol=1e-6)


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_several_inputs_and_outputs(target: str, tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    left, right = keras.Input((6,), name="left"), keras.Input((5,), name="right")
    joined = keras.layers.Concatenate()([keras.layers.Dense(8)(left), keras.layers.Dense(8)(right)])
    float_model = keras.Model(
        [left, right], [keras.layers.Dense(3, name="z")(joined), keras.layers.Dense(2, name="a")(joined)]
    )
    x = {"left": RNG.normal(size=(90, 6)).astype(np.float32), "right": RNG.normal(size=(90, 5)).astype(np.float32)}
    options = {**OPTIONS, "metric": "sqnr", "tolerance": 25.0}
    result = autoquant.search(float_model, x, target=target, **options, run=tmp_path / "run")
    model = result.load()
    found = model(x)
    assert set(found) == {"z", "a"}
    with pytest.raises(DataError, match="give them by name"):  # the file does not say which was the first
        model((x["left"], x["right"]))
    wanted = float_model([x["left"], x["right"]])
    for name, one in zip(("z", "a"), wanted, strict=True):
        assert np.abs(found[name] - np.asarray(one)).mean() < 0.1 * np.abs(np.asarray(one)).mean()


def test_a_part_in_front_runs_too(tmp_path: Path) -> None:
    """Text goes in, also where the .tflite takes numbers that TensorFlow makes of it."""
    keras.utils.set_random_seed(2)
    texts = np.asarray([" ".join(RNG.choice(["red", "green", "blue"], 4)) for _ in range(80)], object)
    words = keras.layers.TextVectorization(vocabulary=["red", "green", "blue"], output_sequence_length=4)
    layers = [keras.Input((), dtype="string", name="text"), words, keras.layers.Embedding(6, 8), keras.layers.Flatten()]
    float_model = keras.Sequential([*layers, keras.layers.Dense(3, name="out")])
    labels = np.asarray(float_model(tf.constant(texts.tolist()))).argmax(axis=1)
    result = autoquant.search(float_model, (texts, labels), target="litert", **OPTIONS, run=tmp_path / "run")
    assert result.front is not None
    model = result.load()
    assert [spec.name for spec in model.inputs] == ["text"]
    assert (model(texts).argmax(axis=1) == labels).mean() > 0.9
    assert result.model is not None
    copy = Path(shutil.copy(result.model, tmp_path))
    front_path(copy).write_bytes(b"\xff\xff")
    uses: list[Callable[[], object]] = [
        lambda: load_int8_model(copy),
        lambda: autoquant.evaluate(copy, data=(texts, labels)),
    ]
    for use in uses:
        with pytest.raises(ModelError, match=r"_front.pb: is not a GraphDef, or is incomplete"):
            use()


def test_without_a_model(tmp_path: Path) -> None:
    terms: dict[str, Any] = {"metric": "top1", "baseline": 0.9, "max_drop": 0.1, "worst_score": 0.8, "best": None}
    result = SearchResult(
        Verdict.MISSED, **terms, trials=(), layers=3, seconds=1.0, model=None, run=tmp_path, ended=Ended.FAILURES
    )
    with pytest.raises(RunError, match="has no INT8 model"):
        result.load()
    (tmp_path / "bad.pb").write_bytes(b"\xff\xff")
    with pytest.raises(ModelError):
        load_int8_model(tmp_path / "bad.pb")
    (tmp_path / "bad.tflite").write_bytes(b"\xff\xff")
    with pytest.raises(ModelError):
        load_int8_model(tmp_path / "bad.tflite")
