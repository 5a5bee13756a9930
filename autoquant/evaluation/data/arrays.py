"""Samples that lie in memory: NumPy arrays and .npz files."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Batch, blocks, content_of, reading, with_plain_text
from autoquant.evaluation.data.plugins import nearest
from autoquant.files import sha256_of

LABELS = ("y", "labels")


class ArraySource:
    """Arrays in memory, kept as they are: `inputs` by input name, `labels` or None, first axis the samples.

    `columns` are all arrays by name, those that say more of the samples too; without them they are those of the file.
    """

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Array],
        labels: Array | None,
        *,
        path: Path | None = None,
        columns: Mapping[str, Array] | None = None,
    ):
        self.name = name
        inputs = {key: with_plain_text(name, key, array) for key, array in inputs.items()}
        self._whole = Batch(inputs, labels)
        self._path = path
        self._columns = columns
        lengths = {key: _length(name, key, array) for key, array in inputs.items()}
        if labels is not None:
            lengths["labels"] = _length(name, "labels", labels)
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{key} has {count}" for key, count in lengths.items())
            raise DataError(name, f"numbers of samples differ: {found}", hint="each sample needs its label")

    @property
    def has_labels(self) -> bool:
        """Whether labels were given."""
        return self._whole.labels is not None

    @cached_property
    def digest(self) -> str:
        """Of the file's bytes, or of the arrays."""
        if self._path is not None:
            with reading(self._path):
                return sha256_of(self._path)
        digest = hashlib.sha256()
        for key, array in (*sorted(self._whole.inputs.items()), ("labels", self._whole.labels)):
            if array is not None:
                digest.update(f"{key} {array.dtype} {array.shape}".encode())
                digest.update(content_of(array))
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._whole)

    def column(self, name: str) -> Array:
        """One value of each sample, (samples,), from the array of this name. Raises DataError where there is none."""
        if self._path is None:
            found = {key: np.asarray(array) for key, array in (self._columns or {}).items()}
        else:
            with reading(self._path), np.load(self._path, allow_pickle=False) as arrays:
                found = {key: arrays[key] for key in arrays.files if key == name}
        if name not in found or found[name].shape != (len(self),):
            what = f"has no array '{name}' with one value for each of its {len(self)} samples"
            raise DataError(self.name, what, hint="add it beside 'x' and 'y', or leave out --guard")
        return found[name]

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Views where the samples lie side by side, else copies."""
        labels = self._whole.labels
        for chosen in blocks(indices, len(self), size):
            inputs = {key: array[chosen] for key, array in self._whole.inputs.items()}
            yield Batch(inputs, None if labels is None else labels[chosen])


def open_arrays(
    name: str, arrays: Mapping[str, Array], inputs: Sequence[str], *, path: Path | None = None
) -> ArraySource:
    """Arrays called 'x', or after the model's inputs, and 'y' or 'labels'; raises DataError if one is missing."""
    found = sorted(arrays)
    labels = next((arrays[key] for key in LABELS if key in arrays and key not in inputs), None)
    if len(inputs) == 1 and inputs[0] not in arrays and "x" in arrays:
        arrays = {inputs[0]: arrays["x"]}
    for wanted in inputs:
        if wanted not in arrays:
            names = f"'x' or '{wanted}'" if len(inputs) == 1 else f"'{wanted}'"
            close = nearest(wanted, found)
            known = "save it as np.savez(file, x=samples, y=labels)"
            several = f"add it, or give --feed {wanted}=VALUE if it is a single value"
            hint = close if close.startswith("did") else known if len(inputs) == 1 else several
            raise DataError(name, f"has no array {names}, only {', '.join(found) or 'nothing'}", hint=hint)
    given = {key: arrays[key] for key in inputs}
    return ArraySource(name, given, labels, path=path, columns=None if path else arrays)


def open_npz(path: Path, inputs: Sequence[str]) -> ArraySource:
    """The arrays of an .npz; raises DataError for a file that is damaged or holds Python objects."""
    try:
        with path.open("rb") as file:  # opened here: np.load leaves it open when it fails
            arrays = np.load(file, allow_pickle=False)
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("it is a single .npy array")
            return open_arrays(str(path), arrays, inputs, path=path)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
        hint = "is it whole? write plain arrays, text as np.array(texts, str): np.savez(file, x=samples, y=labels)"
        raise DataError(str(path), f"cannot be read as .npz: {error}", hint=hint) from error


def _length(name: str, key: str, array: Array) -> int:
    if array.ndim == 0:
        raise DataError(name, f"'{key}' is a single value", hint="the first axis must be the samples")
    return len(array)
