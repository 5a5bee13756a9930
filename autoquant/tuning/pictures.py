"""pictures.npz: small pictures of samples that FP32 had right and the best trial has wrong, for report.html."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoquant.array import Array
from autoquant.cache import CacheEntry, read_cache, write_cache
from autoquant.errors import DataError, RunError
from autoquant.evaluation.scoring.changes import SampleChanges
from autoquant.formats.codec import load
from autoquant.tuning.events import Warned
from autoquant.tuning.study.run_folder import CHANGES

if TYPE_CHECKING:  # which loads LiteRT, and readers need none of it
    from autoquant.evaluation.data.dataset import Dataset
    from autoquant.tuning.session import SearchSession

VERSION = 1
KEY = "pictures"
SIZE = 96
"""Pixels of the longer side of a picture, at most."""
LEAST = 8
"""Pixels of the shorter side, below which nobody sees a picture."""


def load_changes(folder: Path) -> SampleChanges | None:
    """Which samples the trial of a folder changed; None where it does not say."""
    path = folder / CHANGES
    if not path.is_file():
        return None
    return load(SampleChanges, path, RunError, hint="remove it: a report does without")


def keep_pictures(session: SearchSession) -> None:
    """Keep pictures of as many samples as the request says; without them only a report is poorer."""
    path, wanted = session.folder.pictures, session.request.samples
    data = session.scorer.subset.data
    try:
        changes = load_changes(session.folder.best)
        worse = [one.sample for one in changes.changed if one.drop > 0][:wanted] if changes else []
        pictures = {} if not worse or data.in_passes else pictures_of(data, worse)
        if pictures:
            arrays = {str(number): picture for number, picture in pictures.items()}
            write_cache(path, CacheEntry({}, arrays), key=KEY, version=VERSION)
        else:
            path.unlink(missing_ok=True)
    except (RunError, DataError, OSError) as error:
        session.listener(Warned(f"no pictures of samples were kept: {error}"))


def load_pictures(path: Path) -> Mapping[int, Array]:
    """The pictures that were kept by the number of their sample, uint8 (height, width, 1 or 3)."""
    entry = read_cache(path, key=KEY, version=VERSION)
    return {} if entry is None else {int(number): picture for number, picture in entry.arrays.items()}


def pictures_of(data: Dataset, numbers: Sequence[int]) -> dict[int, Array]:
    """Pictures of samples by their numbers in the source of the data, as they are before preprocessing.

    Empty where the first input is no image.
    """
    chosen = np.sort(np.asarray(numbers, np.int64))
    name = data.inputs[0].name
    raw = [image for batch in data.source.read(chosen, len(chosen)) for image in batch.inputs[name]]
    images = [image for one in raw if (image := as_image(one)) is not None]
    if len(images) < len(chosen):
        return {}
    low, high = min(float(one.min()) for one in images), max(float(one.max()) for one in images)
    found = zip(chosen.tolist(), images, strict=True)
    return {number: to_bytes(shrunk(image, SIZE), low, high) for number, image in found}


def as_image(sample: Array) -> Array | None:
    """A sample as (height, width, 1 or 3), channels last and transparency left out; None where it is no image."""
    if sample.dtype.kind not in "uif":
        return None
    image = sample[..., None] if sample.ndim == 2 else sample
    if image.ndim == 3 and image.shape[-1] not in (1, 3, 4) and image.shape[0] in (1, 3, 4):
        image = np.moveaxis(image, 0, -1)
    if image.ndim != 3 or image.shape[-1] not in (1, 3, 4) or min(image.shape[:2]) < LEAST:
        return None
    return image[..., :3] if image.shape[-1] == 4 else image


def shrunk(image: Array, size: int) -> Array:
    """An image, float64, by a whole factor so small that no side is longer than `size`: means of squares of pixels."""
    factor = -(-max(image.shape[:2]) // size)
    height, width = (side // factor * factor for side in image.shape[:2])
    squares = image[:height, :width].astype(np.float64).reshape(height // factor, factor, width // factor, factor, -1)
    return np.asarray(squares.mean(axis=(1, 3)))


def to_bytes(image: Array, low: float, high: float) -> Array:
    """An image as uint8; values of all images lie in `low`..`high`, which tells what is black and white.

    0..1, -1..1 and 0..255 are what images are stored as; of others the ends are black and white.
    """
    stored = next(((a, b) for a, b in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)) if a <= low and high <= b), (low, high))
    black, white = stored
    scaled = (image - black) * (255.0 / max(white - black, 1e-30))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
