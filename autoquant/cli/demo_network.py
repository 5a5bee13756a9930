"""The network and the data of `autoquant demo`: small, real, trained in seconds, and hurt by plain INT8.

The data are scikit-learn's bundled handwritten digits: 1,797 images of 8 x 8 pixels, 0..16. 900 of them are kept for
evaluation; the others train the network, shifted by up to one pixel each way, and calibrate it unshifted.

The network is a MobileNet in miniature, trained as MobileNet was: depthwise-separable blocks with batch normalization
and ReLU6, RMSprop with momentum 0.9 and a high learning rate; batch normalization keeps Keras' own epsilon. Trained
so, some channels die: behind ReLU6 they are zero, or nearly, on every image. Folding the batch normalization that
follows multiplies a channel's depthwise weights by gamma / sqrt(variance + epsilon), and for a dead channel the
variance is about 0. So the channels that say nothing get weights hundreds of times as large as those of the others,
and one INT8 scale for all of them rounds the useful weights to nothing. One scale per channel, or the depthwise layers
left in float, brings the accuracy back. Sheng et al. 2018, "A Quantization-Friendly Separable Convolution for
MobileNets", tell this of the real MobileNet.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoquant.errors import UsageError

EVALUATION_IMAGES = 900
BLOCKS = ((32, 2), (32, 1), (32, 1), (48, 1), (48, 1), (48, 1))  # output channels and stride of each block
EPOCHS = 6
BATCH = 128
LEARNING_RATE = 0.02


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """A `.keras` model that gives 10 logits, and two `.npz` with `x`, float32 (n, 8, 8, 1) in [0, 1], and `y`, (n,)."""

    model: Path
    evaluation: Path
    calibration: Path


def make_demo(folder: Path, *, seed: int = 0) -> DemoFiles:
    """Train the network and save it with its data in `folder`, which is made where missing.

    Takes about ten seconds. Sets the seeds of Python, NumPy and Keras. Raises UsageError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise UsageError("demo", "needs scikit-learn", hint="pip install 'autoquant[demo]'") from error
    folder.mkdir(parents=True, exist_ok=True)  # what cannot be written is found before the training
    pixels, y = load_digits(return_X_y=True)
    x = (pixels / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)
    train_x, test_x, train_y, test_y = train_test_split(
        x, y, test_size=EVALUATION_IMAGES, stratify=y, random_state=seed
    )
    model = _train(train_x, train_y, seed)
    files = DemoFiles(folder / "digits.keras", folder / "evaluation.npz", folder / "calibration.npz")
    model.save(files.model)
    np.savez(files.evaluation, x=test_x, y=test_y)
    np.savez(files.calibration, x=train_x, y=train_y)
    return files


def shifted(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """All nine shifts by -1, 0 or 1 pixel along each axis, zeros moving in: (n, h, w, c) to (9 n, h, w, c)."""
    _, height, width, _ = x.shape
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.concatenate([wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)])


def _train(x: NDArray[np.float32], y: NDArray[np.int64], seed: int) -> Any:
    import keras

    keras.utils.set_random_seed(seed)
    x, y = shifted(x), np.tile(y, 9)
    steps = EPOCHS * -(-len(x) // BATCH)
    model = _network()
    model.compile(
        keras.optimizers.RMSprop(keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps), momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    return model


def _network() -> Any:
    import keras
    from keras import layers

    def norm_relu6() -> list[Any]:
        # Keras' momentum of 0.99 would need more steps than this training has.
        return [layers.BatchNormalization(momentum=0.9), layers.ReLU(6.0)]

    def block(number: int, channels: int, stride: int) -> list[Any]:
        name = f"block{number}"
        return [
            layers.DepthwiseConv2D(3, stride, padding="same", use_bias=False, name=f"{name}_depthwise"),
            *norm_relu6(),
            layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_pointwise"),
            *norm_relu6(),
        ]

    stem = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")
    blocks = [layer for i, (channels, stride) in enumerate(BLOCKS, 1) for layer in block(i, channels, stride)]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(10, name="logits")]
    return keras.Sequential([layers.Input((8, 8, 1)), stem, *norm_relu6(), *blocks, *head])
