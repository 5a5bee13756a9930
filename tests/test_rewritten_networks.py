"""Networks that are rewritten on opening, with all layers in INT8, against the float network in plain TensorFlow."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal
from quantization_aware import fake

import autoquant
from autoquant.cli.inspect import text

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras and NumPy 2

Float = Callable[[Any], Any]
Writes = Callable[[Path], tuple[Path, Float]]
SAMPLES = 32
"""Few, but the network has few layers, and ranges of the same samples."""


def grouped(folder: Path) -> tuple[Path, Float]:
    """A block of ConvNeXt and a convolution with groups, as Keras writes them."""
    keras.utils.set_random_seed(1)
    layers = keras.layers
    image = keras.Input((8, 8, 8))
    x = layers.Conv2D(8, 5, padding="same", groups=8, name="depthwise")(image)
    x = layers.Add()([image, layers.Dense(8)(layers.Dense(32, activation="gelu")(layers.LayerNormalization()(x)))])
    x = layers.Conv2D(16, 3, groups=2, activation="relu", name="groups")(x)
    model = keras.Model(image, layers.Dense(4, name="y")(layers.GlobalAveragePooling2D()(x)))
    model.save(folder / "grouped.keras")
    return folder / "grouped.keras", model


def network(weights: list[Any], x: Any, rounding: Float, *, first: bool = False) -> Any:
    """Two convolutions, a residual, a MatMul."""
    step, axes = ([1, 1, 2, 2], [2, 3]) if first else ([1, 2, 2, 1], [1, 2])
    options = {"padding": "SAME", "data_format": "NCHW" if first else "NHWC"}
    t = rounding(tf.nn.relu(tf.nn.conv2d(rounding(x), rounding(weights[0]), step, **options)))
    t = t + rounding(tf.nn.relu(tf.nn.conv2d(t, rounding(weights[1]), 1, **options)))
    return tf.linalg.matmul(rounding(tf.reduce_mean(t, axes)), rounding(weights[2]))


def some_weights() -> list[Any]:
    rng = np.random.default_rng(2)
    return [0.2 * normal(rng, *shape) for shape in ((3, 3, 8, 8), (3, 3, 8, 8), (8, 4))]


def frozen(path: Path, write: Float, *shape: int | None) -> Path:
    with tf.Graph().as_default() as graph:
        tf.identity(write(tf.compat.v1.placeholder(tf.float32, shape, name="x")), name="y")
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def channels_first(folder: Path) -> tuple[Path, Float]:
    weights = some_weights()
    path = frozen(folder / "nchw.pb", lambda x: network(weights, x, tf.identity, first=True), None, 8, 8, 8)
    return path, lambda x: network(weights, np.moveaxis(x, 1, -1), tf.identity)


def quantization_aware(folder: Path) -> tuple[Path, Float]:
    weights = some_weights()
    path = frozen(folder / "qat.pb", lambda x: network(weights, x, fake), None, 8, 8, 8)
    return path, lambda x: network([fake(weight) for weight in weights], x, tf.identity)


def quantization_aware_lite(folder: Path) -> tuple[Path, Float]:
    weights = some_weights()
    concrete = tf.function(lambda x: network(weights, x, fake)).get_concrete_function(
        tf.TensorSpec((1, 8, 8, 8), tf.float32, name="x")
    )
    path = folder / "qat.tflite"
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert())
    return path, lambda x: network([fake(weight) for weight in weights], x, tf.identity)


def run_pb(path: Path, x: Any) -> Any:
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        tf.graph_util.import_graph_def(graph_def, name="")
        (fed,) = (node.name for node in graph_def.node if node.op == "Placeholder")
        last = next(name for name in ("y", "dense_2") if any(node.name == name for node in graph_def.node))
        return session.run(f"{last}:0", {f"{fed}:0": x})


def run_lite(path: Path, x: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    (name,) = runner.get_input_details()
    return next(iter(runner(**{name: x}).values()))


RUNS = {"tensorflow": run_pb, "litert": run_lite}


@pytest.mark.parametrize(
    ("write", "layers", "targets", "note"),
    [
        (grouped, 5, ["tensorflow", "litert"], None),
        (channels_first, 3, ["tensorflow", "litert"], "channels first (NCHW)"),
        (quantization_aware, 3, ["tensorflow", "litert"], "removed from 4 activations"),
        (quantization_aware_lite, 3, ["litert"], "removed from 4 activations"),
    ],
)
def test_all_in_int8(write: Writes, layers: int, targets: list[str], note: str | None, tmp_path: Path) -> None:
    path, plain = write(tmp_path)
    x = normal(np.random.default_rng(3), SAMPLES, 8, 8, 8)
    wanted = np.asarray(plain(x))
    np.savez(tmp_path / "calibration.npz", x=x)
    for target in targets:
        found = autoquant.inspect(path, target=target)
        assert not found.survey.rejected
        names = [layer.name for layer in found.survey.layers]
        assert len(names) == layers
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"batch_num": 1, **{name: {"quant_enable": True} for name in names}}))
        folder = tmp_path / target
        made = autoquant.quantize(path, config, tmp_path / "calibration.npz", folder, target=target)
        assert set(autoquant.formats.record_text.load_record(made.record)) == set(names)
        noise = np.asarray(RUNS[target](made.model, x)) - wanted
        assert 25 < 10 * np.log10(np.square(wanted).sum() / np.square(noise).sum()) < 60
        assert made.notes == found.model.notes
        assert len(made.notes) == (note is not None)
        assert note is None or note in made.notes[0]


def test_what_was_rewritten_is_said(tmp_path: Path) -> None:
    """On the screen, in run.toml, and with the result."""
    path, _ = quantization_aware(tmp_path)
    data = tmp_path / "data.npz"
    np.savez(data, x=normal(np.random.default_rng(3), 2 * SAMPLES, 8, 8, 8))
    (note,) = autoquant.inspect(path).model.notes
    assert f"note: {note}" in text(autoquant.inspect(path), columns=None)
    run = tmp_path / "run"
    result = autoquant.search(path, data, tolerance="50%", metric="sqnr", certify="none", max_trials=1, run=run)
    assert note in result.warnings
    assert tomllib.loads((run / "run.toml").read_text())["model"] == {"notes": [note]}
    assert note in json.loads((run / "result.json").read_text())["warnings"]
