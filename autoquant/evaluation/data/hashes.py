"""Hashes of samples, by which the same content is found in two kinds of data: each sample is hashed once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from autoquant.array import Array
from autoquant.cache import digest_of
from autoquant.evaluation.data.batch import Batch, content_of, with_plain_text

HASH = np.dtype("V16")
"""Of a billion samples two that differ have the same hash with a probability of 1e-21."""
READ = 64
"""Samples that are read at a time to be hashed."""
Read = Callable[[Array | None, int], Iterator[Batch]]


def hashes_of(batch: Batch) -> Array:
    """A hash of each sample's inputs, by name, type, shape and content, without the label; (samples,)."""
    forms = [f"{name} {array.dtype} {array.shape[1:]}".encode() for name, array in batch.inputs.items()]
    found: list[bytes] = []
    for place in range(len(batch)):
        digest = hashlib.blake2b(digest_size=HASH.itemsize)
        for form, array in zip(forms, batch.inputs.values(), strict=True):
            digest.update(form)
            digest.update(content_of(array[place, ...]))
        found.append(digest.digest())
    return np.frombuffer(b"".join(found), HASH)


class ContentHashes:
    """The hashes of a source's samples, computed when they are asked for, and then known."""

    def __init__(self, read: Read, count: int) -> None:
        self._read = read
        self._found = np.zeros(count, HASH)
        self._known = np.zeros(count, bool)

    def of(self, indices: Array | None) -> Array:
        """Those of the chosen samples (ascending; None: all). Raises DataError where one cannot be read."""
        wanted = np.arange(len(self._known)) if indices is None else indices
        new, done = wanted[~self._known[wanted]], 0
        for batch in self._read(new, READ) if len(new) else ():
            places = new[done : done + len(batch)]
            self._found[places] = hashes_of(batch)
            self._known[places] = True
            done += len(batch)
        return self._found[wanted]


class ContentDigest:
    """A sha256 of samples, by their hashes, and of labels, however they were cut into batches."""

    def __init__(self) -> None:
        self._inputs, self._labels = hashlib.sha256(), hashlib.sha256()
        self._form = ""

    def add(self, hashes: Array, labels: Array | None) -> None:
        """Take in the next samples."""
        self._inputs.update(hashes.tobytes())
        if labels is None:
            return
        if (form := f"{labels.dtype} {labels.shape[1:]}") != self._form:
            self._form = form
            self._labels.update(form.encode())
        self._labels.update(content_of(labels))

    @property
    def hex(self) -> str:
        """The digest of what was added."""
        return hashlib.sha256(self._inputs.digest() + self._labels.digest()).hexdigest()


def with_columns(digest: str, columns: Mapping[str, Array]) -> str:
    """A digest of samples and of what else is said of each, by name; the same where there is nothing."""
    if not columns:
        return digest
    found = ContentDigest()
    for name in sorted(columns):
        column = with_plain_text("data", name, columns[name])
        found.add(np.frombuffer(name.encode(), np.uint8), column)
    return digest_of(digest, found.hex)
