"""Evaluation and calibration data: any source, preprocessed and checked against the model's inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.array_cache import IN_MEMORY, CacheRoom
from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.batch import Batch, SampleSource, check_no_nan, conform, with_plain_text
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.opening import KINDS, Reading, open_source
from autoquant.evaluation.data.preprocessing import Arithmetic, Custom, Preprocess
from autoquant.evaluation.data.sample_cache import LoadedSource
from autoquant.model.model import InputSpec
from autoquant.quiet import no_progress

MakeInputs = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""Makes what a model takes, by name, of what the data holds; may be called in any thread."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples as the model takes them, in a fixed order; `indices` (ascending) are those of the source that are in it.

    `inputs` are what samples have; where `front` is given, batches hold what that makes of them.
    Reading raises DataError where a sample does not fit the model's inputs, is not finite, or cannot be read. Functions
    of the user's, of samples or preprocessing, are called in the thread that reads; images are decoded in others.
    """

    source: SampleSource
    inputs: tuple[InputSpec, ...]
    preprocess: Preprocess | None = None
    label_offset: int = 0
    indices: Array | None = None
    front: MakeInputs | None = None

    @property
    def name(self) -> str:
        """What the user called the source."""
        return self.source.name

    @property
    def has_labels(self) -> bool:
        """Whether samples have labels."""
        return self.source.has_labels

    @property
    def at_hand(self) -> bool:
        """Whether batches cost next to nothing to make: arrays, or what is cached in memory, without preprocessing."""
        cached = self.source.cached if isinstance(self.source, FunctionSource) else None
        in_memory = isinstance(self.source, ArraySource) or (cached is not None and cached <= IN_MEMORY)
        return in_memory and self.preprocess is None and self.front is None

    @property
    def in_passes(self) -> bool:
        """Whether some samples cost what all cost: each pass calls a function, which begins with the first one."""
        return isinstance(self.source, FunctionSource) and self.source.cached is None

    def loaded(self) -> Dataset:
        """The same, few samples read once and in memory, where each pass would read all others too; else itself.

        Itself too where they are too many for memory: then every pass reads them again.
        """
        if not self.in_passes:
            return self
        numbers = np.arange(len(self)) if self.indices is None else self.indices
        loaded = LoadedSource.of(self.source, numbers)
        return self if loaded is None else replace(self, source=loaded)

    def hashes(self) -> Array:
        """A hash of each sample's inputs as they lie in the source, before preprocessing, without the label."""
        return self.source.hashes(self.indices)

    @cached_property
    def digest(self) -> str:
        """A sha256, in hex, of raw content, choice of samples, preprocessing and label offset."""
        digest = hashlib.sha256(self.source.digest.encode())
        if self.indices is not None and len(self.indices) < len(self.source):
            digest.update(np.ascontiguousarray(self.indices, "<i8").data)
        digest.update(f" {self.preprocess.key if self.preprocess else ''} {self.label_offset}".encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.source) if self.indices is None else len(self.indices)

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples, `size` at a time; the last batch may be shorter, and one after which the shape changes."""
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        start = 0
        for raw in self.source.read(self.indices, size):
            stop = start + len(raw)
            numbers = range(start, stop) if self.indices is None else self.indices[start:stop]
            inputs = {spec.name: self._input(raw.inputs[spec.name], spec, numbers) for spec in self.inputs}
            yield Batch(self.front(inputs) if self.front else inputs, self._labels(raw.labels, numbers))
            start = stop

    def subset(self, indices: Array) -> Dataset:
        """The samples at these positions of this dataset, in ascending order. Raises ValueError for bad positions."""
        chosen = np.sort(np.asarray(indices, np.int64))
        if len(np.unique(chosen)) < len(chosen) or (len(chosen) and (chosen[0] < 0 or chosen[-1] >= len(self))):
            raise ValueError(f"indices must be distinct and in 0..{len(self) - 1}")
        if len(chosen) == len(self):
            return self
        return replace(self, indices=chosen if self.indices is None else self.indices[chosen])

    def spread(self, count: int) -> Dataset:
        """So many samples from all over it, the same ones every time, or all; data is often sorted by class."""
        return self.subset(np.random.default_rng(0).permutation(len(self))[:count])

    def positions_in(self, whole: Dataset) -> Array:
        """Where these samples are in a dataset that they are a subset of, ascending."""
        own = np.arange(len(self.source)) if self.indices is None else self.indices
        return own if whole.indices is None else np.searchsorted(whole.indices, own)

    def _input(self, raw: Array, spec: InputSpec, numbers: Array | range) -> Array:
        batch = raw
        # Of several inputs, those that are integers are indices or lengths, never pixels.
        if self.preprocess is not None and (len(self.inputs) == 1 or spec.dtype.kind == "f"):
            if raw.dtype.hasobject and isinstance(self.preprocess, Arithmetic):
                what = f"computes with numbers, the data for '{spec.name}' is text"
                raise DataError(self.preprocess.who, what, hint="leave it out")
            batch = with_plain_text(self.name, spec.name, self.preprocess(raw))
        batch = conform(self.name, batch, spec)
        if batch.dtype.kind == "f" and (raw.dtype.kind == "f" or isinstance(self.preprocess, Custom)):
            check_no_nan(self.name, batch, numbers, name=f"input '{spec.name}'")  # elsewhere there can be none
        return batch

    def _labels(self, labels: Array | None, numbers: Array | range) -> Array | None:
        if labels is not None and labels.dtype.kind == "f":
            check_no_nan(self.name, labels, numbers, name="the label")
        if labels is None or self.label_offset == 0:
            return labels
        if labels.dtype.kind not in "iu" or labels.size != len(labels):
            what = f"labels of type {labels.dtype} and shape {labels.shape} cannot be shifted"
            raise DataError(self.name, what, hint="--label-offset is for integer classes")
        return labels.astype(np.int64) + self.label_offset


def open_data(
    spec: Any,
    inputs: Sequence[InputSpec],
    *,
    preprocess: Preprocess | None = None,
    label_offset: int = 0,
    image_size: tuple[int, int] | None = None,
    front: MakeInputs | None = None,
    warn: Callable[[str], None] = no_progress,
    room: CacheRoom | None = None,
    most: int | None = None,
    ordered: bool = False,
) -> Dataset:
    """The data that `spec` names or is: see KINDS, here and in batches.py.

    `inputs` are what it has; `front`, where the model takes something else, makes that of it. `image_size` (height,
    width) is for images where the model leaves it open. The first sample is read, so that data that does not fit is
    refused here. `warn` is told of a function whose samples take long to count. There is `room` for samples that would
    be made or decoded again for every pass. Of a function, the first `most` samples are read. Where `inputs` are
    `ordered`, several arrays may be given in their order. Raises DataError.
    """
    source = open_source(spec, inputs, image_size, Reading(warn, room, most, ordered))
    data = Dataset(source, tuple(inputs), preprocess, label_offset, front=front)
    if len(data) == 0:
        raise DataError(data.name, "is empty: there is no sample in it", hint=f"give {KINDS}")
    next(data.batches(1))
    return data
