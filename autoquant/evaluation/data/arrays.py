"""Samples that lie in memory, or in files that are mapped into it: NumPy arrays, .npy and .npz files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from autoquant.array import Array
from autoquant.cache import digest_of
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Batch, blocks, with_plain_text
from autoquant.evaluation.data.hashes import ContentDigest, ContentHashes, with_columns
from autoquant.evaluation.data.plugins import nearest, nearest_or
from autoquant.npz import MappedNpz, mapped_npy
from autoquant.quiet import no_progress

LABELS = ("y", "labels")


class ArraySource:
    """Arrays, kept as they are: `inputs` by input name, `labels` or None, first axis the samples.

    `columns` are arrays by name, those that say more of the samples too; `beside` tells these from others of the name.
    `check` is called before the first sample is hashed: it raises DataError where a file is damaged.
    """

    def __init__(
        self,
        name: str,
        inputs: Mapping[str, Array],
        labels: Array | None,
        *,
        columns: Mapping[str, Array] = MappingProxyType({}),
        beside: str = "",
        check: Callable[[], None] = no_progress,
    ):
        self.name = name
        inputs = {key: with_plain_text(name, key, array) for key, array in inputs.items()}
        self._whole = Batch(inputs, labels)
        self._columns = columns
        self._beside = beside
        self._check = check
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
        """Of the arrays."""
        digest = ContentDigest()
        digest.add(self.hashes(None), self._whole.labels)
        return digest_of(digest.hex, self._beside) if self._beside else with_columns(digest.hex, self.columns())

    def hashes(self, indices: Array | None) -> Array:
        """Of the chosen samples' content."""
        return self._hashes.of(indices)

    @cached_property
    def _hashes(self) -> ContentHashes:
        self._check()
        return ContentHashes(self.read, len(self))

    def __len__(self) -> int:
        return len(self._whole)

    def columns(self) -> Mapping[str, Array]:
        """The arrays, by name, that have one value for each sample and are neither input nor label."""
        others = set(self._columns) - {"x", *LABELS, *self._whole.inputs}
        found = {name: np.asarray(self._columns[name]) for name in sorted(others)}
        return {name: array for name, array in found.items() if array.shape == (len(self),)}

    def column(self, name: str, option: str) -> Array:
        """One value of each sample, (samples,), from the array of this name, see SampleSource."""
        found = np.asarray(self._columns[name]) if name in self._columns else None
        if found is None or found.shape != (len(self),):
            what = f"has no array '{name}' with one value for each of its {len(self)} samples"
            hint = f"add it beside 'x' and 'y', or leave out {option}"
            raise DataError(self.name, what, hint=nearest_or(name, list(self.columns()), hint))
        return found

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Views where the samples lie side by side, else copies."""
        labels = self._whole.labels
        for chosen in blocks(indices, len(self), size):
            inputs = {key: array[chosen] for key, array in self._whole.inputs.items()}
            yield Batch(inputs, None if labels is None else labels[chosen])


def open_arrays(
    name: str,
    arrays: Mapping[str, Array],
    inputs: Sequence[str],
    *,
    checksums: Mapping[str, int] = MappingProxyType({}),
    check: Callable[[Sequence[str]], None] = no_progress,
) -> ArraySource:
    """Arrays called 'x', or after the model's inputs, and 'y' or 'labels'; raises DataError if one is missing.

    Others are not read; `checksums` of all tell them from others of the name. `check` is called with the names of those
    that are read, see ArraySource.
    """
    found, given = sorted(arrays), arrays
    labels = next((key for key in LABELS if key in arrays and key not in inputs), None)
    read = {*inputs, labels}
    if len(inputs) == 1 and inputs[0] not in arrays and "x" in arrays:
        arrays, read = {inputs[0]: arrays["x"]}, {"x", labels}
    for wanted in inputs:
        if wanted not in arrays:
            names = f"'x' or '{wanted}'" if len(inputs) == 1 else f"'{wanted}'"
            close = nearest(wanted, found)
            known = "save it as np.savez(file, x=samples, y=labels)"
            several = f"add it, or give --feed {wanted}=VALUE if it is a single value"
            hint = close if close.startswith("did") else known if len(inputs) == 1 else several
            raise DataError(name, f"has no array {names}, only {', '.join(found) or 'nothing'}", hint=hint)
    taken = {key: arrays[key] for key in inputs}
    beside = "".join(f"{key} {checksums[key]} " for key in sorted(checksums) if key not in read)
    checked = partial(check, sorted(key for key in read if key is not None))
    return ArraySource(name, taken, given[labels] if labels else None, columns=given, beside=beside, check=checked)


def open_npz(path: Path, inputs: Sequence[str]) -> ArraySource:
    """The arrays of an .npz; raises DataError for a file that is damaged or holds Python objects."""
    hint = "is it whole? write plain arrays, text as np.array(texts, str): np.savez(file, x=, y=)"

    def check(keys: Sequence[str]) -> None:
        with _readable(path, hint):
            arrays.check(keys)

    with _readable(path, hint):
        arrays = MappedNpz(path)
        return open_arrays(str(path), arrays, inputs, checksums=arrays.checksums, check=check)


def open_npy(path: Path, inputs: Sequence[str]) -> ArraySource:
    """The array of an .npy, which is a model's only input; raises DataError as `open_npz`."""
    if len(inputs) != 1:
        raise DataError(str(path), f"is one array, the model takes {', '.join(inputs)}", hint="save them as .npz")
    with _readable(path, "is it whole? write an array of numbers or text: np.save(file, samples)"):
        return open_arrays(str(path), {inputs[0]: mapped_npy(path)}, inputs)


@contextmanager
def _readable(path: Path, hint: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise DataError(str(path), f"cannot be read as {path.suffix}: {error}", hint=hint) from error


def _length(name: str, key: str, array: Array) -> int:
    if array.ndim == 0:
        raise DataError(name, f"'{key}' is a single value", hint="the first axis must be the samples")
    return len(array)
