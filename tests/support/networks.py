"""Networks small enough to be built and trained in a test, for operators that the real models lack.

Each has samples, `f(count, rng)` -> x and y, and a training, `f(folder, draw)`, to which `draw(count)` gives samples.
A training returns the file, a function that gives the outputs for x, and weights as the inference graph has them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

Draw = Callable[[int], tuple[Any, Any]]
Weights = Mapping[str, tuple[Any, Any]]
"""Layer -> weight and bias."""
Predict = Callable[[Any], Any]


@contextmanager
def without_warnings_of_keras() -> Iterator[None]:
    """Keras 3.15 copies TensorFlow variables in a way that NumPy 2 deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy", DeprecationWarning)
        yield


def volumes(count: int, rng: Any) -> tuple[Any, Any]:
    """A ball in noise that moves right, left, down or up with depth: (n, 8, 12, 12, 1), which of the four."""
    y = rng.integers(0, 4, count)
    way = np.array([[0, 1], [0, -1], [1, 0], [-1, 0]])[y][:, None]
    start = rng.uniform(4, 8, (count, 1, 2)) - way * rng.uniform(2, 3, (count, 1, 1))
    centre = start + way * rng.uniform(0.5, 0.8, (count, 1, 1)) * np.arange(8)[:, None]
    cells = np.arange(12)
    rows, columns = (np.square(cells - centre[..., axis, None]) for axis in (0, 1))
    ball = np.exp(-(rows[..., :, None] + columns[..., None, :]) / 4.5)
    return (ball + rng.normal(0, 0.6, ball.shape))[..., None].astype(np.float32), y


def train_volume(folder: Path, draw: Draw) -> tuple[Path, Predict, Weights]:
    """Conv3D, batch norm, pooling, Conv3D, batch norm, MatMul; a .keras file."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            layers.Input((8, 12, 12, 1), name="volume"),
            layers.Conv3D(8, 3, use_bias=False, name="stem"),
            layers.BatchNormalization(momentum=0.9, name="stem_norm"),
            layers.ReLU(),
            layers.MaxPooling3D((1, 2, 2)),
            layers.Conv3D(16, 3, use_bias=False, name="motion"),
            layers.BatchNormalization(momentum=0.9, name="motion_norm"),
            layers.ReLU(),
            layers.GlobalAveragePooling3D(),
            layers.Dense(4, name="logits"),
        ],
        name="volumes",
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(1e-2), loss)
    network.fit(*draw(960), batch_size=32, epochs=3, verbose=0)
    network.save(folder / "volume.keras")
    return folder / "volume.keras", predicting(network), {name: folded(network, name) for name in ("stem", "motion")}


def predicting(network: Any) -> Predict:
    return lambda x: network.predict(x, batch_size=len(x), verbose=0)


def folded(network: Any, name: str) -> tuple[Any, Any]:
    """Weight and bias of a convolution with the batch norm behind it, in float64."""
    (weight,) = network.get_layer(name).get_weights()
    norm = network.get_layer(f"{name}_norm")
    gamma, beta, mean, variance = (value.astype(np.float64) for value in norm.get_weights())
    factor = gamma / np.sqrt(variance + norm.epsilon)
    return weight * factor, beta - mean * factor


def sequences(count: int, rng: Any) -> tuple[Any, Any]:
    """Six pairs of a key (of 8) and a value (of 4), then one of the keys again: (n, 7, 12), and the value it had."""
    keys = rng.permuted(np.tile(np.arange(8), (count, 1)), axis=1)[:, :6]
    values, asked = rng.integers(0, 4, (count, 6)), rng.integers(0, 6, count)
    each = np.arange(count)
    x = rng.normal(0, 0.15, (count, 7, 12))
    x[:, :6, :8] += np.eye(8)[keys]
    x[:, :6, 8:] += np.eye(4)[values]
    x[:, 6, :8] += np.eye(8)[keys[each, asked]]
    return x.astype(np.float32), values[each, asked]


SIZE = 24
WEIGHTS = {"embed": (12, SIZE), **dict.fromkeys(("query", "key", "value", "mix"), (SIZE, SIZE)), "logits": (SIZE, 4)}


def attention(x: Any, weights: Mapping[str, Any], biases: Mapping[str, Any]) -> Any:
    """One block: products with constants and of two activations are BatchMatMulV2, the last one is a MatMul."""
    import tensorflow as tf

    hidden = tf.nn.relu(tf.add(tf.matmul(x, weights["embed"], name="embed"), biases["embed"], name="embed_bias"))
    query, key, value = (tf.matmul(hidden, weights[name], name=name) for name in ("query", "key", "value"))
    scores = tf.matmul(query, tf.transpose(key, (0, 2, 1)), name="scores")
    context = tf.matmul(tf.nn.softmax(scores / np.float32(np.sqrt(SIZE))), value, name="context")
    mixed = tf.add(tf.matmul(context, weights["mix"], name="mix"), biases["mix"], name="mix_bias")
    last = tf.nn.relu(tf.add(hidden, mixed, name="sum"))[:, -1]
    return tf.nn.bias_add(tf.matmul(last, weights["logits"], name="logits"), biases["logits"], name="answer")


def train_attention(folder: Path, draw: Draw) -> tuple[Path, Predict, Weights]:
    """A frozen .pb."""
    import keras
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x, y = draw(4000)
    weights = {
        name: tf.Variable(rng.normal(0, shape[0] ** -0.5, shape), dtype=tf.float32) for name, shape in WEIGHTS.items()
    }
    biases = {name: tf.Variable(tf.zeros(WEIGHTS[name][1])) for name in ("embed", "mix", "logits")}
    variables = [*weights.values(), *biases.values()]
    optimizer = keras.optimizers.Adam(5e-3)
    optimizer.build(variables)

    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow ships no types
    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            logits = attention(x, weights, biases)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        optimizer.apply(tape.gradient(loss, variables), variables)

    for _ in range(400):
        chosen = rng.integers(0, len(x), 64)
        step(x[chosen], y[chosen])
    values, added = ({name: value.numpy() for name, value in group.items()} for group in (weights, biases))
    with tf.Graph().as_default() as graph:
        attention(tf.compat.v1.placeholder(tf.float32, (None, 7, 12), name="tokens"), values, added)
    (folder / "attention.pb").write_bytes(graph.as_graph_def().SerializeToString())
    pairs = {name: (value, added.get(name, np.zeros(value.shape[1]))) for name, value in values.items()}
    return folder / "attention.pb", lambda x: attention(x, values, added).numpy(), pairs


def stripes(count: int, rng: Any) -> tuple[Any, Any]:
    """Slanted stripes in noise, and without: (n, 16, 16, 1) each."""
    place = np.arange(16)
    rows, columns = rng.uniform(0.3, 0.9, (2, count, 1, 1))
    slant = rng.choice([-1, 1], (count, 1, 1))
    wave = np.sin(rows * place[:, None] + columns * slant * place + rng.uniform(0, 2 * np.pi, (count, 1, 1)))
    clean = np.where(wave > 0, 0.85, 0.15)[..., None]
    return (clean + rng.normal(0, 0.25, clean.shape)).astype(np.float32), clean.astype(np.float32)


def train_denoiser(folder: Path, draw: Draw) -> tuple[Path, Predict, Weights]:
    """Strided Conv2D, MaxPool, Conv2DTranspose twice, sums; its result is added to AvgPool of the image; .keras."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    near = {"padding": "same", "activation": "relu"}
    image = layers.Input((16, 16, 1), name="noisy")
    down = layers.Conv2D(16, 3, strides=2, name="down", **near)(image)
    small = layers.Add(name="residual")([down, layers.Conv2D(16, 3, name="flat", **near)(down)])
    deep = layers.Conv2D(24, 3, name="deep", **near)(layers.MaxPooling2D(2, name="pool")(small))
    up = layers.Add(name="skip")([small, layers.Conv2DTranspose(16, 3, strides=2, name="up", **near)(deep)])
    detail = layers.Conv2DTranspose(1, 4, strides=2, padding="same", name="detail")(up)
    blurred = layers.AveragePooling2D(3, strides=1, padding="same", name="blur")(image)
    network = keras.Model(image, layers.Add(name="clean")([detail, blurred]), name="denoiser")
    network.compile(keras.optimizers.Adam(1e-2), "mse")
    network.fit(*draw(1000), batch_size=50, epochs=8, verbose=0)
    network.save(folder / "denoiser.keras")
    weights = {name: tuple(network.get_layer(name).get_weights()) for name in ("up", "detail")}
    return folder / "denoiser.keras", predicting(network), weights


NETWORKS: Mapping[str, tuple[Any, Any, str]] = {
    "volume": (volumes, train_volume, "top1"),
    "attention": (sequences, train_attention, "top1"),
    "denoiser": (stripes, train_denoiser, "psnr"),
}
"""Name -> samples, training, metric."""
