"""A cache of samples as a source gives them, before preprocessing: what is read once, or decoded, is there for all
later passes, in any order.

Before preprocessing they are as small as they can be (an image is a byte a value), and what tells them from others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import groupby

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.array_cache import IN_MEMORY, ArrayCache, CacheRoom
from autoquant.evaluation.data.batch import Batch, SampleSource, blocks

TOGETHER = 64
"""Samples that are added at once, so that a source of single ones has few batches to remember."""
TOGETHER_BYTES = 1 << 22
"""Or of so many bytes."""
LOADED = 1 << 28
"""Bytes of samples that are kept in memory where nothing is cached on disk."""
LABELS = "labels"


class SampleCache:
    """Samples in the order in which they are added, numbered from 0, as many as there is room for."""

    def __init__(self, room: CacheRoom, *, in_memory: int = IN_MEMORY) -> None:
        self._cache = ArrayCache(room, in_memory=in_memory)
        self._waiting: list[Batch] = []

    def __len__(self) -> int:
        """How many samples it has."""
        return len(self._cache) + sum(map(len, self._waiting))

    @property
    def full(self) -> bool:
        """Whether there was no room for a sample."""
        return self._cache.full

    @property
    def size(self) -> int:
        """Bytes of its samples."""
        return self._cache.size

    def add(self, batch: Batch) -> None:
        """Add samples, unless it is full; what comes next in the source is added next."""
        if self._waiting and _form(batch) != _form(self._waiting[0]):
            self.flush()
        self._waiting.append(batch if _is_much([batch]) else _copied(batch))
        if _is_much(self._waiting):
            self.flush()

    def flush(self) -> None:
        """Store what waits for more samples of its form."""
        if self._waiting and not self.full:
            self._cache.add(_stored(_joined(self._waiting)))
        self._waiting = []

    def clear(self) -> None:
        """Remove everything, and give its room back."""
        self._waiting = []
        self._cache.clear()

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Batches of at most `size` of the chosen samples (ascending; None: all), those of a batch of one shape."""
        self.flush()
        for chosen in blocks(indices, len(self), size):
            numbers = np.arange(chosen.start, chosen.stop) if isinstance(chosen, slice) else chosen
            parts = [_restored(arrays) for _, arrays in self._cache.parts(numbers)]
            for _, alike in groupby(parts, _shapes):
                yield _joined(list(alike))


def _is_much(batches: list[Batch]) -> bool:
    size = sum(array.nbytes for batch in batches for array in batch.inputs.values())
    return sum(map(len, batches)) >= TOGETHER or size >= TOGETHER_BYTES


def _copied(batch: Batch) -> Batch:
    """The same in memory of its own: whoever made it may use that again."""
    return batch.part(np.arange(len(batch)))


def _shapes(batch: Batch) -> tuple[tuple[int, ...] | None, ...]:
    labels = None if batch.labels is None else batch.labels.shape[1:]
    return (*(array.shape[1:] for array in batch.inputs.values()), labels)


def _form(batch: Batch) -> tuple[object, ...]:
    labels = None if batch.labels is None else batch.labels.dtype
    return (*_shapes(batch), *(array.dtype for array in batch.inputs.values()), labels)


def _joined(batches: list[Batch]) -> Batch:
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    inputs = {name: np.concatenate([batch.inputs[name] for batch in batches]) for name in batches[0].inputs}
    return Batch(inputs, np.concatenate(labels) if labels else None)


def _stored(batch: Batch) -> Mapping[str, Array]:
    """The arrays of a batch: labels, inputs, and of each that is text the bytes, padded, and how many count."""
    arrays = {} if batch.labels is None else {LABELS: batch.labels}
    for name, array in batch.inputs.items():
        if array.dtype.hasobject:
            texts = array.reshape(-1).tolist()
            sizes = np.asarray([len(text) for text in texts], np.int64).reshape(array.shape)
            padded = np.zeros((*array.shape, int(sizes.max(initial=0))), np.uint8)
            for row, text in zip(padded.reshape(len(texts), -1), texts, strict=True):
                row[: len(text)] = np.frombuffer(text, np.uint8)
            arrays |= {f"text {name}": padded, f"size {name}": sizes}
        else:
            arrays[f"data {name}"] = array
    return arrays


def _restored(arrays: Mapping[str, Array]) -> Batch:
    inputs: dict[str, Array] = {}
    for key, array in arrays.items():
        kind, _, name = key.partition(" ")
        if kind == "data":
            inputs[name] = array
        elif kind == "text":
            sizes = arrays[f"size {name}"]
            texts = np.empty(sizes.size, object)
            for place, (row, size) in enumerate(zip(array.reshape(sizes.size, -1), sizes.reshape(-1), strict=True)):
                texts[place] = row[:size].tobytes()
            inputs[name] = texts.reshape(sizes.shape)
    return Batch(inputs, arrays.get(LABELS))


class LoadedSource:
    """Some samples of a source, read in one pass and in memory from then on, under the numbers that they have there."""

    def __init__(self, source: SampleSource, numbers: Array, cache: SampleCache) -> None:
        self.name = source.name
        self._source = source
        self._numbers = numbers
        self._cache = cache

    @classmethod
    def of(cls, source: SampleSource, numbers: Array) -> LoadedSource | None:
        """Read them; None where they take more than LOADED bytes."""
        cache = SampleCache(CacheRoom(most=LOADED, least=LOADED), in_memory=sys.maxsize)
        for batch in source.read(numbers, TOGETHER):
            cache.add(batch)
            if cache.full:
                return None
        cache.flush()
        return None if cache.full else cls(source, numbers, cache)

    @property
    def has_labels(self) -> bool:
        """As the source."""
        return self._source.has_labels

    @property
    def digest(self) -> str:
        """As the source."""
        return self._source.digest

    def hashes(self, indices: Array | None) -> Array:
        """As the source."""
        return self._source.hashes(indices)

    def column(self, name: str, option: str) -> Array:
        """As the source."""
        return self._source.column(name, option)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Those of the chosen samples, which are among them."""
        return self._cache.read(None if indices is None else np.searchsorted(self._numbers, indices), size)
