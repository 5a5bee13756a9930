"""Networks as people have them, from the file to all layers in INT8 on both targets; results are run without our code.

What their FP32 outputs are is computed by plain TensorFlow, or a plain interpreter, from the file as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lite_networks import SavedLite
from networks import without_warnings_of_keras

import autoquant

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning", "ignore:.*from_session")
SHAPE = (8, 8, 4)
BATCH = 16
SQNR = 30.0
"""dB of the outputs in INT8 to be reached; a layer of 8 bits has about 35."""
LITE_LAYERS = {"CONV_2D*", "DEPTHWISE_CONV_2D*", "FULLY_CONNECTED*"}
"""Layers of a .tflite in float, as `SavedLite.kinds` writes them."""
Write = Callable[[Any], Any]


def weight(*shape: int, kind: str = "float32") -> Any:
    import tensorflow as tf

    fan_in = np.prod(shape[:-1])
    return tf.constant(np.random.default_rng(len(shape)).normal(0, fan_in**-0.5, shape), kind)


def in_half(kind: str) -> Write:
    """A convolution with a batch norm, a loop with a condition in it, a MatMul, all of half precision."""

    def write(x: Any) -> Any:
        import tensorflow as tf

        t = tf.nn.conv2d(tf.cast(x, kind), weight(3, 3, 4, 8, kind=kind), 2, "SAME")
        moments = {"scale": [1.5] * 8, "offset": [0.25] * 8, "mean": [0.1] * 8, "variance": [2.0] * 8}
        t = tf.nn.relu(tf.raw_ops.FusedBatchNormV3(x=t, is_training=False, **moments)[0])

        def step(count: Any, t: Any) -> Any:
            return count + 1, tf.cond(count < 2, lambda: tf.nn.relu(t), lambda: t + tf.constant(0.5, kind))

        flat = tf.reshape(t, (-1, 128))
        t = tf.while_loop(lambda count, _: count < 4, step, [0, flat], shape_invariants=[flat.shape[:0], flat.shape])[1]
        return tf.cast(tf.matmul(t, weight(128, 10, kind=kind)), "float32")

    return write


def shared(x: Any) -> Any:
    """Two branches with one kernel, and two layers with one matrix."""
    import tensorflow as tf

    kernel, matrix = weight(3, 3, 4, 4), weight(64, 64)
    one, other = (tf.nn.relu(tf.nn.conv2d(t, kernel, 2, "SAME")) for t in (x, tf.abs(x)))
    return tf.matmul(tf.nn.relu(tf.matmul(tf.reshape(one + other, (-1, 64)), matrix)), matrix)


def tied(x: Any) -> Any:
    """A table that rows are gathered from, and that scores them."""
    import tensorflow as tf

    table = weight(12, 16)
    rows = tf.gather(table, tf.cast(tf.clip_by_value(tf.abs(x[:, 0, :, 0]) * 5.0, 0.0, 11.0), tf.int32))
    hidden = tf.nn.relu(tf.matmul(tf.reduce_mean(rows, axis=1), weight(16, 16)))
    return tf.matmul(hidden, table, transpose_b=True)


GRAPHS: Mapping[str, tuple[Write, int]] = {
    "half precision": (in_half("float16"), 2),
    "shared weights": (shared, 4),
    "tied embedding": (tied, 2),
}
"""What is written over x, and how many layers it has."""


def images(count: int = BATCH) -> Any:
    return np.random.default_rng(0).normal(size=(count, *SHAPE)).astype(np.float32)


def pb(write: Write, path: Path) -> Path:
    import tensorflow as tf
    from tensorflow.python.util import deprecation

    with tf.Graph().as_default() as graph:
        tf.compat.v1.enable_control_flow_v2()
        tf.identity(write(tf.compat.v1.placeholder(tf.float32, (None, *SHAPE), name="x")), name="y")
    with deprecation.silence():
        frozen = tf.compat.v1.graph_util.extract_sub_graph(graph.as_graph_def(), ["y"])
    path.write_bytes(frozen.SerializeToString())
    return path


def run_pb(path: Path, output: str = "y", given: str = "x") -> Any:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(path.read_bytes()), name="")
    with tf.compat.v1.Session(graph=graph) as session:
        return session.run(f"{output}:0", {f"{given}:0": images()})


def converted(pb: Path, path: Path, *, half: bool) -> Path:
    """The graph as a .tflite, where asked with weights of float16, by the converter alone."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(pb.read_bytes()), name="")
    with tf.compat.v1.Session(graph=graph) as session:
        tensors = [[graph.get_tensor_by_name(name)] for name in ("x:0", "y:0")]
        converter = tf.compat.v1.lite.TFLiteConverter.from_session(session, *tensors)
        if half:
            converter.optimizations, converter.target_spec.supported_types = [tf.lite.Optimize.DEFAULT], [tf.float16]
        path.write_bytes(converter.convert())
    return path


def int8_outputs(model: Path, layers: int, target: str) -> Any:
    """Those of the model with all of its layers in INT8, which must be so many."""
    folder = model.parent
    looked_at = autoquant.inspect(model, target=target)
    survey = looked_at.survey
    assert len(survey.layers) == layers
    assert {one.op for one in survey.rejected} <= {"StatelessWhile", "While", "WHILE"}
    (folder / "config.json").write_text(json.dumps({"batch_num": 1} | {layer.name: {} for layer in survey.layers}))
    np.savez(folder / "calibration.npz", x=images())
    made = autoquant.quantize(
        model, folder / "config.json", folder / "calibration.npz", folder / target, target=target, batch_size=BATCH
    )
    if target == "litert":
        saved = SavedLite(made.model.read_bytes())
        assert not LITE_LAYERS.intersection(saved.kinds)
        return next(iter(saved.run(images()).values()))
    assert sum(autoquant.check(made.model).layers.values()) == layers
    return run_pb(made.model, looked_at.model.graph.outputs[0], looked_at.model.graph.inputs[0])


def sqnr(wanted: Any, found: Any) -> float:
    wanted, found = np.asarray(wanted, np.float64), np.asarray(found, np.float64)
    assert wanted.shape == found.shape
    return float(10 * np.log10((wanted**2).sum() / ((wanted - found) ** 2).sum()))


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
@pytest.mark.parametrize("name", GRAPHS)
def test_frozen_graphs(name: str, target: str, tmp_path: Path) -> None:
    write, layers = GRAPHS[name]
    model = pb(write, tmp_path / "m.pb")
    assert sqnr(run_pb(model), int8_outputs(model, layers, target)) > SQNR


@pytest.mark.parametrize(("name", "half"), [("float32", True), ("shared weights", False)])
def test_lite_files(name: str, half: bool, tmp_path: Path) -> None:
    """With weights of float16; with weights that the converter writes once, and two operators read each."""
    write, layers = GRAPHS.get(name, (in_half("float32"), 2))
    model = converted(pb(write, tmp_path / "m.pb"), tmp_path / "m.tflite", half=half)
    saved = SavedLite(model.read_bytes())
    read = [op for op, kind in zip(saved.graph.operators, saved.kinds, strict=True) if kind in LITE_LAYERS]
    assert half or (len(read), len({saved.tensor(op.inputs[1]).buffer for op in read})) == (4, 2)
    (wanted,) = saved.run(images()).values()
    assert sqnr(wanted, int8_outputs(model, layers, "litert")) > SQNR


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_of_keras(policy: str, target: str, tmp_path: Path) -> None:
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        x = given = keras.Input(SHAPE, name="x")
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3)(x)))
        x = layers.ReLU()(layers.BatchNormalization()(layers.DepthwiseConv2D(3)(x)))
        model = keras.Model(given, layers.Dense(10)(layers.Flatten()(x)))
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    path = tmp_path / "m.keras"
    with without_warnings_of_keras():
        model.save(path)
        wanted = np.asarray(model(images()))
    assert sqnr(wanted, int8_outputs(path, 3, target)) > SQNR
