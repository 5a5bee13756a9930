"""Folders of images, one sub-folder a class; and how an encoded image becomes an array.

Decoding is TensorFlow's, so data of images imports it, whatever the model is; arrays and functions do not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.batch import Batch, Sample, reading, stacked
from autoquant.evaluation.data.decoding import Decoder
from autoquant.evaluation.data.hashes import ContentHashes
from autoquant.evaluation.data.image_names import matched
from autoquant.messages import reason
from autoquant.model.model import InputSpec

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif"})
LUMA = np.asarray([0.2989, 0.587, 0.114], np.float32)  # as tf.image.rgb_to_grayscale


@dataclass(frozen=True, slots=True)
class ImageForm:
    """The images a model takes: `channels` 1, 3 or 4; `size` (height, width), or None to leave sizes as they are.

    Or `encoded` as they lie in files, where its input is text.
    """

    input: str
    channels: int
    size: tuple[int, int] | None
    encoded: bool = False

    @classmethod
    def of(cls, where: str, inputs: Sequence[InputSpec], size: tuple[int, int] | None) -> ImageForm:
        """From the model's input; raises DataError if that is no image. `size` counts where the model leaves it open.

        Three channels if the model does not say.
        """
        if len(inputs) != 1:
            raise DataError(where, f"images are one input, the model has {len(inputs)}", hint="use 'module:function'")
        if inputs[0].dtype.kind == "O" and len(inputs[0].shape or (None,)) == 1:
            return cls(inputs[0].name, 3, None, encoded=True)
        shape = (None, None, None, None) if inputs[0].shape is None else inputs[0].shape
        if len(shape) != 4 or shape[3] not in (None, 1, 3, 4):
            what = f"images cannot feed the model's input '{inputs[0].name}' of shape {shape}"
            raise DataError(where, what, hint="shape it with 'module:function'")
        height, width = (want or own for want, own in zip(shape[1:3], size or (None, None), strict=True))
        whole = (height, width) if height and width else None
        return cls(inputs[0].name, shape[3] or 3, whole)

    @property
    def key(self) -> str:
        """Identifies the form in digests."""
        return "encoded" if self.encoded else f"{self.channels} {self.size}"


def decode_image(where: str, encoded: bytes, form: ImageForm) -> Array:
    """A JPEG, PNG, BMP or GIF (its first frame) as uint8 (height, width, channels); or as it is, shape ().

    Resized, where it must be, as tf.image.resize does (bilinear, not antialiased), and rounded to whole values so
    that raw images are of one type. May be called from several threads. Raises DataError naming the image if it cannot
    be decoded.
    """
    if form.encoded:
        return np.array(encoded, object)
    import tensorflow as tf
    from tensorflow.python.eager.context import eager_mode

    odd = encoded[:2] == b"BM" or encoded[:3] == b"GIF"  # TensorFlow decodes these with their own channels only
    with eager_mode():  # also when called while a graph is being built; tf.init_scope would not leave that graph
        try:
            channels = 0 if odd else form.channels
            image = tf.raw_ops.DecodeImage(contents=encoded, channels=channels, expand_animations=False).numpy()
        except tf.errors.OpError as error:
            what = f"cannot be decoded: {reason(error).split('. ')[0]}"  # what it knows is up to the first stop
            raise DataError(where, what, hint="is the file whole?") from error
        image = _with_channels(image, form.channels)
        if form.size is not None and image.shape[:2] != form.size:
            # What tf.image.resize comes to, without the tenth of a millisecond that it takes besides.
            resized = tf.raw_ops.ResizeBilinear(images=image[None], size=form.size, half_pixel_centers=True)
            image = np.rint(resized.numpy()[0]).astype(np.uint8)
    return np.ascontiguousarray(image)


class ImageFolder:
    """Images in sub-folders, whose sorted names are classes 0, 1, ...; or in one folder, without labels.

    Decoded on all cores, and cached for later passes as far as a Decoder has room.
    """

    def __init__(
        self,
        folder: Path,
        inputs: Sequence[InputSpec],
        size: tuple[int, int] | None = None,
        room: CacheRoom | None = None,
    ):
        self.name = str(folder)
        self._folder = folder
        self._form = ImageForm.of(self.name, inputs, size)
        self._decoder = Decoder(on_disk=room)
        with reading(folder):
            classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        by_class = [_images(path, "**/*") for path in classes]
        self.has_labels = any(by_class)
        self._files = [file for files in by_class for file in files] or _images(folder, "*")
        self._labels = np.repeat(np.arange(len(classes)), [len(files) for files in by_class])
        if self.has_labels and (stray := _images(folder, "*")):
            what = f"has class folders, and {len(stray)} images outside of them, as {stray[0].name}"
            raise DataError(self.name, what, hint="move them into the folder of their class")
        if self.has_labels and [] in by_class:
            empty = classes[by_class.index([])]
            raise DataError(str(empty), "a class folder without images", hint="remove it if it is not a class")

    @property
    def names(self) -> list[str]:
        """The names of the files, from the folder on, without their endings."""
        return [str(PurePosixPath(path).with_suffix("")) for path in self.paths]

    @cached_property
    def paths(self) -> list[str]:
        """The files, from the folder on, with / between the parts."""
        return [file.relative_to(self._folder).as_posix() for file in self._files]

    def column(self, name: str, option: str) -> Array:
        """What the regular expression `name` finds in each path, see `matched`."""
        return matched(self.name, self.paths, name, option)

    def file_name(self, index: int) -> str:
        """The name of a file, from the folder on."""
        return self._files[index].relative_to(self._folder).as_posix()

    @property
    def classes(self) -> int:
        """How many classes there are; 0 without labels."""
        return int(self._labels.max(initial=-1)) + 1 if self.has_labels else 0

    @cached_property
    def digest(self) -> str:
        """Of the names and the bytes of the files."""
        digest = hashlib.sha256(self._form.key.encode())
        for file, path in zip(self._files, self.paths, strict=True):
            content = _content(file)
            digest.update(f"{path} {len(content)} ".encode())
            digest.update(content)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._files)

    def hashes(self, indices: Array | None) -> Array:
        """Of the chosen samples' content, decoded."""
        return self._hashes.of(indices)

    @cached_property
    def _hashes(self) -> ContentHashes:
        return ContentHashes(self.read, len(self))

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Decodes the chosen files."""
        chosen: Any = range(len(self)) if indices is None else indices
        return stacked(self._decoder.samples(self._sample, chosen, size), size)

    def _sample(self, index: int) -> Sample:
        file = self._files[index]
        image = decode_image(str(file), _content(file), self._form)
        return Sample({self._form.input: image}, self._labels[index] if self.has_labels else None)


def _content(file: Path) -> bytes:
    with reading(file):
        return file.read_bytes()


def _images(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.suffix.lower() in SUFFIXES and path.is_file())


def _with_channels(image: Array, wanted: int) -> Array:
    have = image.shape[-1]
    if have == wanted:
        return image
    if wanted == 1:
        return np.rint(image[..., :3] @ LUMA).astype(np.uint8)[..., None]
    if wanted == 4:
        opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
        return np.concatenate([_with_channels(image, 3), opaque], axis=-1)
    return np.repeat(image, 3, axis=-1) if have == 1 else image[..., :3]
