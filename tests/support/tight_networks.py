"""Networks that are trained for tight tolerances: of three convolutions, of one scale per tensor, and a transformer.

Each is a SavedModel with the data that it is scored on, and calibration data that it has neither been trained on nor is
scored on. They are made once for a folder, which takes seconds to a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from super_resolution import luma, resized

CALIBRATION = 256
FACTOR, PATCH = 2, 16
"""Of super-resolution, and the side of a patch of a small image; of the large one it is FACTOR times that."""
PER_TENSOR = """
version = 1
[global]
batch_num = 8
asymmetric = true
channel_wise = false
equalize = [true, false]
weight_rounding = ["gptq", "nearest"]
bias_correction = ["analytic", "empirical", "none"]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax", "percentile"]
weight_algorithm = ["minmax", "mse"]
[layer.percentile]
fraction = [0.9999]
"""
"""A search space with one scale for each weight."""
SPREAD = 64.0
"""Channels are rescaled by factors in [1 / SPREAD, SPREAD]."""


@dataclass(frozen=True)
class Made:
    """A float model, and its data."""

    model: Path
    evaluation: Path
    calibration: Path


def made(folder: Path, name: str, make: Callable[[], tuple[Any, Any, Any, Any]]) -> Made:
    """The files of a network, made where they do not exist: `make` gives it with x, y to score and x to calibrate."""
    import keras

    found = Made(*(folder / f"{name}{end}" for end in ("", "_evaluation.npz", "_calibration.npz")))
    if not found.model.is_dir():
        keras.utils.set_random_seed(0)
        network, x, y, calibration = make()
        np.savez(found.evaluation, x=x, y=y)
        np.savez(found.calibration, x=calibration)
        network.export(found.model, verbose=False)
    return found


def make_espcn(data: Path, folder: Path) -> Made:
    """Super-resolution by two, three convolutions and depth_to_space: luma in 0..1, trained on the images of set14.

    Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
    Network", CVPR 2016, with ReLU; its last convolution has 10 % of the multiply-adds.
    """

    def make() -> tuple[Any, Any, Any, Any]:
        import keras
        from keras import layers

        small = keras.Input((PATCH, PATCH, 1), name="small")
        x = layers.Conv2D(32, 5, padding="same", activation="relu", name="features")(small)
        x = layers.Conv2D(32, 3, padding="same", activation="relu", name="mapping")(x)
        x = layers.Conv2D(FACTOR**2, 3, padding="same", name="pixels")(x)
        network = keras.Model(small, _depth_to_space(x))
        x, y = _patches(data / "set14", step=11)
        order = np.random.default_rng(0).permutation(len(x))
        network.compile(keras.optimizers.Adam(2e-3), "mse")
        train = order[CALIBRATION:]
        network.fit(x[train], y[train], batch_size=32, epochs=8, verbose=0)
        return network, *_patches(data / "set5", step=PATCH), x[order[:CALIBRATION]]

    return made(folder, "espcn", make)


def _depth_to_space(x: Any) -> Any:
    import tensorflow as tf
    from keras import layers

    class DepthToSpace(layers.Layer):  # type: ignore[misc]  # keras has no types
        def call(self, x: Any) -> Any:
            return tf.nn.depth_to_space(x, FACTOR)

    return DepthToSpace(name="large")(x)


def _patches(folder: Path, *, step: int) -> tuple[Any, Any]:
    """Of all images of a folder: (n, side, side, 1) in 0..1, small and large, float32."""
    small: list[Any] = []
    large: list[Any] = []
    for path in sorted(folder.iterdir()):
        truth = luma(path)
        truth = truth[: len(truth) // FACTOR * FACTOR, : truth.shape[1] // FACTOR * FACTOR]
        given = np.clip(np.rint(resized(truth, *(size // FACTOR for size in truth.shape))), 0, 255)
        for row in range(0, given.shape[0] - PATCH + 1, step):
            for column in range(0, given.shape[1] - PATCH + 1, step):
                small.append(given[row : row + PATCH, column : column + PATCH])
                own = slice(FACTOR * row, FACTOR * (row + PATCH)), slice(FACTOR * column, FACTOR * (column + PATCH))
                large.append(truth[own])
    return tuple((np.stack(each)[..., None] / 255).astype(np.float32) for each in (small, large))  # type: ignore[return-value]


def make_depthwise(data: Path, folder: Path) -> Made:
    """Depthwise separable convolutions on Fashion-MNIST, all channels rescaled through ReLU: one scale ruins them."""

    def make() -> tuple[Any, Any, Any, Any]:
        import keras
        from keras import layers

        network = keras.Sequential([keras.Input((28, 28, 1), name="image")])
        network.add(layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="first"))
        for number, width in enumerate((24, 32, 48, 48)):
            strides = 2 if number % 2 == 0 else 1
            how = {"padding": "same", "activation": "relu", "depthwise_initializer": "he_normal"}
            network.add(layers.DepthwiseConv2D(3, strides=strides, **how, name=f"depthwise{number}"))
            how = {"activation": "relu", "kernel_initializer": "he_normal"}
            network.add(layers.Conv2D(width, 1, **how, name=f"pointwise{number}"))
        network.add(layers.GlobalAveragePooling2D())
        network.add(layers.Dense(10, name="scores"))
        fitted(network, *fashion(data / "train.npz"), epochs=4)
        rescale(network)
        return _with_test_data(network, data)

    return made(folder, "depthwise", make)


def rescale(network: Any) -> None:
    """Multiply output channels by random factors, and divide the next layer by them: ReLU lets them through."""
    random = np.random.default_rng(0)
    layers = [layer for layer in network.layers if layer.get_weights()]
    for layer, following in pairwise(layers):
        weight, bias = layer.get_weights()
        factors = (SPREAD ** random.uniform(-1.0, 1.0, bias.shape)).astype(np.float32)
        scaled = weight * (factors[:, None] if _is_depthwise(layer) else factors)
        layer.set_weights([scaled, bias * factors])
        weight, bias = following.get_weights()
        following.set_weights([weight / factors[:, None], bias])


def _is_depthwise(layer: Any) -> bool:
    return type(layer).__name__ == "DepthwiseConv2D"


def make_vit(data: Path, folder: Path) -> Made:
    """A vision transformer on Fashion-MNIST: 16 patches, three blocks of attention and two fully connected layers."""

    def make() -> tuple[Any, Any, Any, Any]:
        import keras
        from keras import layers

        width, count = 48, 16
        image = keras.Input((28, 28, 1), name="image")
        x = layers.Reshape((count, width))(layers.Conv2D(width, 7, strides=7, name="patches")(image))
        x = Positions(name="positions")(x)
        for number in range(3):
            seen = layers.LayerNormalization()(x)
            x = x + layers.MultiHeadAttention(4, width // 4, name=f"attention{number}")(seen, seen)
            hidden = layers.Dense(2 * width, activation="gelu", name=f"wide{number}")(layers.LayerNormalization()(x))
            x = x + layers.Dense(width, name=f"narrow{number}")(hidden)
        x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
        network = keras.Model(image, layers.Dense(10, name="scores")(x))
        fitted(network, *fashion(data / "train.npz"), epochs=3)
        return _with_test_data(network, data)

    import keras

    class Positions(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
        """Adds a learned vector to each patch."""

        def build(self, shape: Any) -> None:
            self.vectors = self.add_weight(shape=shape[1:], initializer="random_normal", name="vectors")

        def call(self, x: Any) -> Any:
            return x + self.vectors

    return made(folder, "vit", make)


def fitted(network: Any, x: Any, y: Any, *, epochs: int) -> None:
    """Train a classifier of logits."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(2e-3), loss)
    network.fit(x, y, batch_size=128, epochs=epochs, verbose=0)


def fashion(path: Path, part: slice = slice(None)) -> tuple[Any, Any]:
    """Images (n, 28, 28, 1) in 0..1, and labels, in an order of chance: the files have one class after the other."""
    with np.load(path) as stored:
        x, y = stored["x"], stored["y"]
    chosen = np.random.default_rng(0).permutation(len(x))[part]
    return (x[chosen][..., None] / 255.0).astype(np.float32), y[chosen].astype(np.int64)


def _with_test_data(network: Any, data: Path) -> tuple[Any, Any, Any, Any]:
    """A network with 4,000 test images and their labels, and others to calibrate with."""
    test = data / "test.npz"
    return network, *fashion(test, slice(4000)), fashion(test, slice(4000, 4000 + CALIBRATION))[0]
