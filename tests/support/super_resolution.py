"""FSRCNN's data and metric: images of many sizes, shrunk by three, and PSNR."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FACTOR = 3
INPUT, OUTPUT = "IteratorGetNext:0", "NHWC_output:0"
FP32, BICUBIC = 29.29, 28.31
"""Published, in dB: of the float network, and of bicubic interpolation instead of it."""


def cubic(distance: Any, a: float = -0.75) -> Any:
    """Keys' kernel (1981, "Cubic convolution interpolation for digital image processing"), 0 from a distance of 2."""
    d = np.abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def weights(size: int, wanted: int) -> Any:
    """(wanted, size): what each new pixel takes of each old one; pixels have centres, the border repeats."""
    centres = (np.arange(wanted) + 0.5) * size / wanted - 0.5
    matrix = np.zeros((wanted, size))
    for offset in range(-1, 3):
        old = np.floor(centres).astype(int) + offset
        np.add.at(matrix, (np.arange(wanted), np.clip(old, 0, size - 1)), cubic(centres - old))
    return matrix


def resized(image: Any, height: int, width: int) -> Any:
    return weights(image.shape[0], height) @ image @ weights(image.shape[1], width).T


def luma(path: Path) -> Any:
    """(height, width) in 0..255, cropped to multiples of 3."""
    import tensorflow as tf

    pixels = tf.io.decode_png(path.read_bytes(), channels=3).numpy().astype(np.float64)
    y = pixels @ [0.299, 0.587, 0.114]
    height, width = (size // FACTOR * FACTOR for size in y.shape)
    return y[:height, :width]


def shrunk(y: Any) -> Any:
    return np.clip(np.rint(resized(y, y.shape[0] // FACTOR, y.shape[1] // FACTOR)), 0, 255)


def psnr(outputs: Any, truth: Any) -> Any:
    """PSNR of each image in dB, without a border of 3 pixels; outputs (n, h, w, 1) in 0..1, truth (n, h, w) 0..255."""
    shown = np.clip(outputs[..., 0].astype(np.float64) * 255, 0, 255)
    error = (shown - truth)[:, FACTOR:-FACTOR, FACTOR:-FACTOR]
    return 10 * np.log10(255**2 / np.mean(error**2, axis=(1, 2)))


@dataclass(frozen=True, repr=False)
class Images:
    """Pairs (x, y) of one set: (1, h / 3, w / 3, 1) in 0..1, and (1, h, w) in 0..255."""

    pairs: list[tuple[Any, Any]]

    def __call__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self.pairs)


def images(folder: Path) -> Images:
    truths = [luma(path) for path in sorted(folder.iterdir())]
    return Images([((shrunk(y) / 255)[None, :, :, None].astype(np.float32), y[None]) for y in truths])
