"""A network of ten layers, two of which INT8 ruins, whatever is done to repair them.

Eight convolutions with ReLU, one of them depthwise, and two fully connected layers, trained on Fashion-MNIST. Before
two of the convolutions one channel of the layer in front is given twice. Behind it, K times a random kernel is added to
the weights of the one and taken from those of the other: as both are equal, the outputs stay what they were. But one
INT8 scale for each output channel now has to cover K, and the weights that matter fall between its steps. Channels made
alike by equalization or balancing only move that: with the large weights made small, the two channels need a range of
their own before the convolution, where there is one scale for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTHS = {"conv1": 8, "conv2": 16, "depthwise": 16, "conv3": 24, "conv4": 32, "conv5": 24, "conv6": 16, "conv7": 16}
STRIDES = {"conv1": 2, "conv3": 2, "conv6": 2}
POINTWISE = ("conv3", "conv5")
DENSE = {"hidden": 32, "logits": 10}
BAD = {"conv4": ("conv3", 2.0**17), "conv6": ("conv5", 2.0**16)}
"""Layer that INT8 ruins -> the one in front of it, and K."""
EPOCHS, BATCH = 4, 64

Weights = dict[str, tuple[Any, Any]]


def make_network(fashion: Path, folder: Path, *, train: int, evaluate: int) -> tuple[Path, Path, Path]:
    """The model as .pb, `images` (n, 28, 28, 1) -> `scores` (n, 10), its evaluation data and 512 for calibration."""
    x, y = _images(fashion / "train.npz")
    weights = spoiled(trained(x[:train], y[:train]))
    (folder / "ten_layers.pb").write_bytes(_frozen(weights))
    np.savez(folder / "calibration.npz", x=x[-512:], y=y[-512:])
    x, y = _images(fashion / "test.npz")
    np.savez(folder / "evaluation.npz", x=x[:evaluate], y=y[:evaluate])
    return folder / "ten_layers.pb", folder / "evaluation.npz", folder / "calibration.npz"


def trained(x: Any, y: Any) -> Weights:
    """Layer -> weight and bias."""
    import keras

    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.layers.Input((28, 28, 1)), *_convolutions(keras.layers)])
    network.add(keras.layers.Flatten())
    network.add(keras.layers.Dense(DENSE["hidden"], "relu", name="hidden"))
    network.add(keras.layers.Dense(DENSE["logits"], name="logits"))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.Adam(2e-3), loss)
    network.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return {name: tuple(network.get_layer(name).get_weights()) for name in (*WIDTHS, *DENSE)}


def _convolutions(layers: Any) -> list[Any]:
    found = []
    for name, width in WIDTHS.items():
        how = {"padding": "same", "activation": "relu", "name": name}
        side = 1 if name in POINTWISE else 3
        depthwise = name == "depthwise"
        found.append(
            layers.DepthwiseConv2D(side, **how)
            if depthwise
            else layers.Conv2D(width, side, strides=STRIDES.get(name, 1), **how)
        )
    return found


def spoiled(weights: Weights) -> Weights:
    """The same function, in which the layers in BAD are ruined by INT8."""
    rng, found = np.random.default_rng(0), dict(weights)
    for name, (before, size) in BAD.items():
        (weight, bias), (kernel, added) = found[before], found[name]
        copied = int(np.abs(weight).sum(axis=(0, 1, 2)).argmax())  # surely one that is alive
        found[before] = np.concatenate([weight, weight[..., [copied]]], -1), np.append(bias, bias[copied])
        noise = (size * np.abs(kernel).mean() * rng.normal(size=kernel[:, :, copied].shape)).astype(np.float32)
        kernel = np.concatenate([kernel, -noise[:, :, None]], axis=2)
        kernel[:, :, copied] += noise
        found[name] = kernel, added
    return found


def _frozen(weights: Mapping[str, tuple[Any, Any]]) -> bytes:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 28, 28, 1), name="images")
        for name in WIDTHS:
            weight, bias = weights[name]
            step = STRIDES.get(name, 1)
            convolve = tf.compat.v1.nn.depthwise_conv2d_native if name == "depthwise" else tf.nn.conv2d
            x = convolve(x, tf.constant(weight), (1, step, step, 1), "SAME", name=name)
            x = tf.nn.relu(tf.nn.bias_add(x, tf.constant(bias)))
        x = tf.reshape(x, (-1, weights["hidden"][0].shape[0]))
        for name in DENSE:
            weight, bias = weights[name]
            x = tf.nn.bias_add(tf.matmul(x, tf.constant(weight), name=name), tf.constant(bias))
            x = tf.nn.relu(x) if name == "hidden" else x
        tf.identity(x, name="scores")
    found: bytes = graph.as_graph_def().SerializeToString()
    return found


def _images(path: Path) -> tuple[Any, Any]:
    stored = np.load(path)
    return (stored["x"].reshape(-1, 28, 28, 1) / 255.0).astype(np.float32), stored["y"].astype(np.int64)
