"""The networks of the model zoo: keras.applications with random weights, and small ones that are trained here.

Each is saved as NAME.keras with calibration.npz and evaluation.npz beside it: inputs by name, and `y`, labels, where
there are any. Random weights are made such that outputs differ from one image to another: moments of batch
normalization are those of the images, and the last layer is centred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Arrays = Mapping[str, Any]
Made = tuple[Any, Arrays, Any]
"""A Keras model, its inputs by name, and its labels, or None."""
CALIBRATION = 256
"""Samples of a trained network's data that are for calibration; of images, which are few, the first half."""
SIZES = {"InceptionV3": 299, "Xception": 299}
"""Sides of the images of keras.applications; 224 of the others."""
IMAGES = 96


@dataclass(frozen=True)
class Entry:
    """How to make a network and its data, and what its first output is: scores of classes, or values.

    `tolerance` is what a search of it is given; None for one with random weights.
    """

    make: Callable[[], Made]
    classes: bool = True
    tolerance: str | None = None
    metric: str = "top1"


def save(entry: Entry, folder: Path, name: str) -> None:
    """Make a network and its data, and save both."""
    import keras

    keras.utils.set_random_seed(0)
    write(entry.make(), folder, name)


def write(made: Made, folder: Path, name: str) -> None:
    """Save a network and its data."""
    model, inputs, labels = made
    model.save(folder / f"{name}.keras")
    count = len(next(iter(inputs.values())))
    first = CALIBRATION if count > 2 * CALIBRATION else count // 2
    for part, chosen in (("calibration", slice(first)), ("evaluation", slice(first, None))):
        arrays = {key: value[chosen] for key, value in inputs.items()}
        np.savez(folder / f"{part}.npz", **arrays, **({} if labels is None else {"y": labels[chosen]}))


def images(size: int, count: int = IMAGES) -> Any:
    """Images of blots of colour, in 0..255, no two alike."""
    random = np.random.default_rng(0)
    coarse = random.normal(size=(count, 12, 12, 3))
    place = np.linspace(0, 10.999, size)
    left, part = place.astype(int), place % 1
    rows = coarse[:, left] * (1 - part)[:, None, None] + coarse[:, left + 1] * part[:, None, None]
    weight = part[:, None]
    smooth = rows[:, :, left] * (1 - weight) + rows[:, :, left + 1] * weight
    contrast = random.uniform(30, 90, size=(count, 1, 1, 3))
    return np.clip(127 + contrast * smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.float32)


def application(name: str, size: int | None = None, count: int = IMAGES) -> Made:
    """A network of keras.applications for images of this size, or its real one."""
    import keras

    size = size or SIZES.get(name, 224)
    model = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classifier_activation=None)
    x = images(size, count)
    seen = x if _rescales(model) else x / np.float32(127.5) - 1
    _settle(model, seen[:32])
    (given,) = (layer.name for layer in model.layers if isinstance(layer, keras.layers.InputLayer))
    return model, {given: seen}, None


def _rescales(model: Any) -> bool:
    return any(type(layer).__name__ in ("Rescaling", "Normalization") for layer in model.layers)


def _settle(model: Any, x: Any) -> None:
    """Let every normalization have the moments of its input, and every class the same mean and spread."""
    import keras

    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if hasattr(layer, "gamma") and type(layer).__name__ == "LayerScale":
            layer.gamma.assign(0.2 * np.ones(layer.gamma.shape, np.float32))
    model(x, training=True)
    logits = np.asarray(model(x))
    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense | keras.layers.Conv2D)][-1]
    kernel, bias = last.get_weights()
    spread = logits.std(axis=0) + 1e-12
    last.set_weights([kernel * (3 / spread), (bias - logits.mean(axis=0)) * (3 / spread)])


def trained(model: Any, inputs: Arrays, labels: Any, *, loss: Any, epochs: int, rate: float = 2e-3) -> Made:
    """The model, trained."""
    import keras

    model.compile(keras.optimizers.Adam(rate), loss)
    model.fit(dict(inputs), labels, epochs=epochs, batch_size=64, verbose=0)
    return model, inputs, labels


def cross_entropy() -> Any:
    """Of logits."""
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def unet() -> Made:
    """Segments the brighter of two blots, 32 x 32."""
    import keras
    from keras import layers

    def block(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))
        return x

    image = keras.Input((32, 32, 3), name="image")
    fine = block(image, 8)
    coarse = block(layers.MaxPooling2D()(fine), 16)
    deep = block(layers.MaxPooling2D()(coarse), 32)
    up = block(layers.concatenate([layers.Conv2DTranspose(16, 2, strides=2)(deep), coarse]), 16)
    up = block(layers.concatenate([layers.UpSampling2D()(up), fine]), 8)
    x = images(32, 1256) / np.float32(255)
    labels = x[..., 0] * 2 - x[..., 1] - x[..., 2]
    return trained(
        keras.Model(image, layers.Conv2D(3, 1)(up)),
        {"image": x},
        np.digitize(labels, [-0.15, 0.15]).astype(np.int32),
        loss=cross_entropy(),
        epochs=12,
    )


def detector() -> Made:
    """Boxes in pixels and scores of classes, at two scales, joined in one output."""
    import keras
    from keras import layers

    image = x = keras.Input((64, 64, 3), name="image")
    for filters in (16, 24, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    heads = []
    for scale in (1, 2):
        boxes = layers.Reshape((-1, 4))(layers.Rescaling(64.0)(layers.Conv2D(4, 3, padding="same")(x)))
        scores = layers.Reshape((-1, 3))(layers.Conv2D(3, 3, padding="same", activation="sigmoid")(x))
        heads.append(layers.Concatenate()([boxes, scores]))
        if scale == 1:
            x = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(x)
    model = keras.Model(image, layers.Concatenate(axis=1)(heads))
    x = images(64, 1256) / np.float32(127.5) - 1
    cells = [x.reshape(-1, n, 64 // n, n, 64 // n, 3).mean((2, 4)).reshape(-1, n * n, 3) for n in (8, 4)]
    grid = np.concatenate(cells, axis=1)
    boxes = np.concatenate([32 + 60 * grid[..., :2], 10 + 40 * np.abs(grid[..., :2])], axis=-1)
    targets = np.concatenate([boxes, grid > 0.1], axis=-1).astype(np.float32)
    weights = np.array([1e-3] * 4 + [2.0] * 3, np.float32)
    return trained(
        model,
        {"image": x},
        targets,
        loss=lambda want, found: keras.ops.mean(keras.ops.square(want - found) * weights),
        epochs=20,
    )


def transformer() -> Made:
    """Which kind of token is the most frequent, in int32 tokens of which a mask hides the end."""
    import keras
    from keras import layers

    length, words, width = 24, 50, 32
    ids, mask = (keras.Input((length,), dtype="int32", name=name) for name in ("ids", "mask"))
    x = layers.Embedding(words, width)(ids)
    visible = layers.Reshape((1, length))(mask)
    for _ in range(2):
        attended = layers.MultiHeadAttention(4, 8)(x, x, attention_mask=visible)
        x = layers.LayerNormalization()(x + attended)
        hidden = layers.Dense(64, activation="gelu")(x)
        x = layers.LayerNormalization()(x + layers.Dense(width)(hidden))
    x = layers.Dense(32, activation="relu")(layers.GlobalAveragePooling1D()(x))
    random = np.random.default_rng(0)
    tokens = random.integers(1, words, (4256, length)).astype(np.int32)
    shown = (np.arange(length) < random.integers(6, length + 1, 4256)[:, None]).astype(np.int32)
    counts = np.stack([((tokens % 4 == kind) & (shown > 0)).sum(axis=1) for kind in range(4)], axis=1)
    arrays = {"ids": tokens * shown, "mask": shown}
    model = keras.Model([ids, mask], layers.Dense(4)(x))
    return trained(model, arrays, counts.argmax(axis=1), loss=cross_entropy(), epochs=12, rate=1e-3)


def sequences() -> tuple[Any, Any]:
    """Signals of 8 channels that carry one of 4 waves, and which."""
    random = np.random.default_rng(0)
    kinds = random.integers(0, 4, 2256)
    time = np.arange(32)[:, None]
    phase = random.uniform(0, 6, (2256, 1, 8))
    waves = np.sin(time * (0.2 + 0.25 * kinds)[:, None, None] + phase)
    return (waves + random.normal(0, 0.7, waves.shape)).astype(np.float32), kinds.astype(np.int32)


def recurrent(name: str) -> Made:
    """Dense, LSTM or GRU, one of each direction or one, Dense."""
    import keras
    from keras import layers

    signal = keras.Input((None, 8), name="signal")
    x = layers.Dense(16, activation="relu")(signal)
    cell = layers.GRU(16) if name == "GRU" else layers.LSTM(16)
    x = layers.Bidirectional(cell)(x) if name == "Bidirectional" else cell(x)
    x = layers.Dense(16, activation="relu")(x)
    values, labels = sequences()
    model = keras.Model(signal, layers.Dense(4)(x))
    return trained(model, {"signal": values}, labels, loss=cross_entropy(), epochs=12)


def conv1d() -> Made:
    """Convolutions over time: strided, dilated, separable, causal."""
    import keras
    from keras import layers

    signal = keras.Input((32, 8), name="signal")
    x = layers.Conv1D(16, 3, padding="same", activation="relu")(signal)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(16, 3, dilation_rate=2, padding="causal")(x)))
    x = layers.SeparableConv1D(24, 3, padding="same", activation="relu")(x)
    x = layers.Conv1D(24, 5, strides=2, padding="same", activation="relu")(x)
    x = layers.MaxPooling1D()(layers.DepthwiseConv1D(3, padding="same")(x))
    x = layers.GlobalAveragePooling1D()(layers.Conv1D(32, 3, activation="relu")(x))
    values, labels = sequences()
    return trained(keras.Model(signal, layers.Dense(4)(x)), {"signal": values}, labels, loss=cross_entropy(), epochs=12)


def conv3d() -> Made:
    """Convolutions of volumes, the second over all of the time, before one of images."""
    import keras
    from keras import layers

    clip = keras.Input((6, 16, 16, 2), name="clip")
    x = layers.Conv3D(8, 3, padding="same", activation="relu")(clip)
    x = layers.Reshape((16, 16, 8))(layers.Conv3D(8, (6, 1, 1), activation="relu")(x))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation="relu")(x))
    random = np.random.default_rng(0)
    kinds = random.integers(0, 3, 1256)
    drift = np.array([[0, 0], [1, 0], [0, 1]])[kinds]
    start = random.normal(size=(1256, 16, 16, 2))
    frames = [
        np.stack([np.roll(one, shift=tuple(step * d), axis=(0, 1)) for one, d in zip(start, drift, strict=True)])
        for step in range(6)
    ]
    values = np.stack(frames, axis=1).astype(np.float32)
    model = keras.Model(clip, layers.Dense(3)(x))
    return trained(model, {"clip": values}, kinds.astype(np.int32), loss=cross_entropy(), epochs=10)


def tabular() -> Made:
    """Four named features of unlike ranges, joined and normalized."""
    import keras
    from keras import layers

    ranges = {"age": (20, 80), "income": (5e3, 8e4), "ratio": (0, 1), "balance": (-500, 500)}
    inputs = [keras.Input((1,), name=name) for name in ranges]
    x = layers.BatchNormalization()(layers.Concatenate()(inputs))
    for _ in range(2):
        x = layers.Dense(32, activation="relu")(x)
    random = np.random.default_rng(0)
    values = {name: random.uniform(*ends, (6256, 1)).astype(np.float32) for name, ends in ranges.items()}
    age, income, ratio, balance = ((one[:, 0] - one.mean()) / one.std() for one in values.values())
    labels = np.stack([2 * ratio + age, balance - ratio, 0.7 * income + age * ratio], axis=1).argmax(axis=1)
    model = keras.Model(inputs, layers.Dense(3)(x))
    return trained(model, values, labels.astype(np.int32), loss=cross_entropy(), epochs=25)


def half_precision() -> Made:
    """The Conv1D network's kind in mixed_float16."""
    import keras
    from keras import layers

    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        signal = keras.Input((32, 8), name="signal")
        x = layers.Reshape((32, 8, 1))(signal)
        x = layers.Conv2D(8, 3, activation="relu")(x)
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation="relu")(x))
        model = keras.Model(signal, layers.Dense(4, dtype="float32")(x))
        values, labels = sequences()
        return trained(model, {"signal": values}, labels, loss=cross_entropy(), epochs=8)
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def text() -> Made:
    """Strings, split into words by TextVectorization in front of an embedding."""
    import keras
    import tensorflow as tf
    from keras import layers

    random = np.random.default_rng(0)
    words = np.array([f"word{number}" for number in range(40)])
    chosen = random.integers(0, 40, (2256, 12))
    sentences = np.array([" ".join(words[row]) for row in chosen])
    split = layers.TextVectorization(max_tokens=50, output_sequence_length=12)
    split.adapt(sentences)
    sentence = keras.Input((1,), dtype="string", name="sentence")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(50, 16)(split(sentence)))
    x = layers.Dense(16, activation="relu")(x)
    labels = (chosen % 3 == 0).sum(axis=1) > 4
    model = keras.Model(sentence, layers.Dense(2)(x))
    model.compile("adam", cross_entropy())
    model.fit(tf.constant(sentences[:, None]), labels.astype(np.int32), epochs=8, verbose=0)
    return model, {"sentence": sentences[:, None]}, labels.astype(np.int32)


def of(function: Callable[[str], Made], name: str, **options: Any) -> Entry:
    """The entry of a network that has a name."""
    return Entry(lambda: function(name), **options)


APPLICATIONS = (
    "MobileNetV2",
    "MobileNetV3Small",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "ResNet50",
    "DenseNet121",
    "InceptionV3",
    "Xception",
    "NASNetMobile",
    "ConvNeXtTiny",
)
NETWORKS: Mapping[str, Entry] = {
    **{name: of(application, name) for name in APPLICATIONS},
    "unet": Entry(unet, tolerance="1%", metric="agreement"),
    "detector": Entry(detector, classes=False, tolerance="3", metric="sqnr"),
    "transformer": Entry(transformer, tolerance="1%"),
    **{name: of(recurrent, name, tolerance="1%") for name in ("LSTM", "GRU", "Bidirectional")},
    "conv1d": Entry(conv1d, tolerance="1%"),
    "conv3d": Entry(conv3d, tolerance="1%"),
    "tabular": Entry(tabular, tolerance="1%"),
    "half_precision": Entry(half_precision, tolerance="1%"),
    "text": Entry(text, tolerance="1%"),
}
"""Name -> how to make it."""
