"""Small recurrent networks of Keras with an open batch, frozen in either control flow, and an LSTM in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from networks import without_warnings_of_keras

STEPS, FEATURES = 6, 4
KINDS = ("lstm", "gru", "bidirectional", "stacked", "masked", "open steps", "states")


def recurrent(kind: str, *, batch: int | None = None) -> Any:
    """Dense in front of and behind a recurrence; a Keras model with random weights, of any batch or a fixed one."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    steps = None if kind == "open steps" else STEPS
    x = given = keras.Input((steps, FEATURES), batch_size=batch, name="x")
    x = layers.Masking()(x) if kind == "masked" else x
    x = layers.Dense(8, activation="relu", name="front")(x)
    states: list[Any] = []
    if kind == "gru":
        x = layers.GRU(5)(x)
    elif kind == "bidirectional":
        x = layers.Bidirectional(layers.LSTM(5))(x)
    elif kind == "stacked":
        x = layers.Dense(5, name="between")(layers.LSTM(6, return_sequences=True)(x))
        x = layers.LSTM(5)(x)
    elif kind == "states":
        x, *states = layers.LSTM(5, return_state=True)(x)
    else:
        x = layers.LSTM(5)(x)
    x = layers.Dense(7, activation="relu", name="hidden")(x)
    model = keras.Model(given, [layers.Dense(3, activation="softmax", name="head")(x), *states])
    rng = np.random.default_rng(2)
    with without_warnings_of_keras():
        for weight in model.weights:
            weight.assign(rng.normal(0, 1.2 / np.sqrt(weight.shape[0]), weight.shape))
    return model


def sequences(count: int, seed: int = 0) -> Any:
    """Samples of such networks; every other one ends in zeros, which are masked."""
    x = np.random.default_rng(seed).normal(size=(count, STEPS, FEATURES)).astype(np.float32)
    x[::2, 4:] = 0
    return x


def predict(model: Any, x: Any) -> list[Any]:
    """The outputs of a Keras model."""
    found = model(x, training=False)
    return [np.asarray(one) for one in (found if isinstance(found, list) else [found])]


def freeze(model: Any, path: Path, *, lowered: bool) -> Path:
    """A frozen .pb: loops as operators of TensorFlow 1, which is what TensorFlow writes by default, or as functions."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(lambda x: model(x, training=False))
    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), name="x")
    with without_warnings_of_keras():
        frozen = convert_variables_to_constants_v2(function.get_concrete_function(spec), lower_control_flow=lowered)
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return path


def run_pb(path: Path, outputs: list[str], x: Any) -> list[Any]:
    """What a plain session gives for a frozen file."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(path.read_bytes()), name="")
    with tf.compat.v1.Session(graph=graph) as session:
        return list(session.run(outputs, {"x:0": x}))


def lstm(x: Any, kernel: Any, recurrent_kernel: Any, bias: Any) -> Any:
    """The last output of an LSTM for (batch, steps, features), in float64 (Hochreiter and Schmidhuber, as in Keras)."""
    state = output = np.zeros((len(x), recurrent_kernel.shape[0]))
    for step in range(x.shape[1]):
        gates = x[:, step] @ kernel + output @ recurrent_kernel + bias
        enter, forget, new, leave = np.split(gates, 4, axis=1)
        state = _sigmoid(forget) * state + _sigmoid(enter) * np.tanh(new)
        output = _sigmoid(leave) * np.tanh(state)
    return output


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))
