"""Notices that a function of samples never ends, as generators for training do, while its samples are counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Batch
from autoquant.evaluation.data.hashes import HASH
from autoquant.quiet import no_progress

PASSES, REPEATED = 2, 1000
"""Nothing new was seen in so many times as many samples as there are different ones, and in so many more."""
REPEATED_BYTES = 1 << 21
"""And in so many bytes: short rows of a few whole numbers may well be alike, one after the other."""
OVERHEAD, EMPTY = 16, 1 << 11
"""Bytes that are added for each sample, and for an empty batch."""
MOST_KNOWN = 2_000_000
"""Samples that are remembered, by a hash of 8 bytes."""
MOST_SAMPLES, MOST_BYTES = 10_000_000, 1 << 38
"""More than this is read for no evaluation: 10 million samples, 256 GiB."""
PATIENCE = 60.0
"""Seconds until a first word of a source that goes on; then twice as many, and so on."""
ONCE = "yield each sample once: leave out repeat() and `while True`, or add take(n)"
INFINITE = -1
"""What tf.data.Dataset.cardinality() says of one that repeats without end."""


class EndlessGuard:
    """Looks at the batches of one pass over a source, in order."""

    def __init__(
        self, name: str, warn: Callable[[str], None] = no_progress, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`warn` is told, after a minute and ever more seldom, of a source that goes on."""
        self._name = name
        self._warn = warn
        self._clock = clock
        self._begin = clock()
        self._patience = PATIENCE
        self._known: set[int] = set()
        self._samples = self._bytes = 0
        self._old = self._old_bytes = 0  # since there was something new

    def see(self, batch: Batch, hashes: Array) -> None:
        """Take in a batch, and the hashes of its samples.

        Raises DataError once it is certain that the source gives the same again and again.
        """
        arrays = [*batch.inputs.values(), *([] if batch.labels is None else [batch.labels])]
        size = sum(array.nbytes for array in arrays) // max(len(batch), 1)
        keys = _keys(hashes, batch.labels)
        if len(self._known) + len(keys) <= MOST_KNOWN and self._known.isdisjoint(keys) and len(set(keys)) == len(keys):
            self._known.update(keys)  # all are new, as almost always
            self._samples += len(keys)
            self._bytes += size * len(keys)
            if keys:
                self._old = self._old_bytes = 0
        else:
            for key in keys:
                self._see(key, size)
        if not len(batch):
            self._count_old(EMPTY)
        if self._old > PASSES * len(self._known) + REPEATED and self._old_bytes > REPEATED_BYTES:
            what = f"gave {self._samples:,} samples, and nothing new after the first {self._samples - self._old:,}"
            raise DataError(self._name, f"{what}: it does not end", hint=ONCE)
        if self._samples > MOST_SAMPLES or self._bytes > MOST_BYTES:
            raise DataError(self._name, f"{self._so_far()}, and goes on: it does not seem to end", hint=ONCE)
        spent = self._clock() - self._begin
        if spent >= self._patience:
            self._patience *= 2
            self._warn(f"{self._name}: {self._so_far()} in {spent:.0f} s, and goes on; if it never ends, {ONCE}")

    @property
    def suspects(self) -> bool:
        """Whether all was seen twice: it may be that the source has begun anew."""
        return self._old >= len(self._known)

    def _see(self, key: int, size: int) -> None:
        self._samples += 1
        self._bytes += size
        if key in self._known:
            self._count_old(size)
            return
        self._old = self._old_bytes = 0
        if len(self._known) < MOST_KNOWN:
            self._known.add(key)

    def _count_old(self, size: int) -> None:
        self._old += 1
        self._old_bytes += size + OVERHEAD

    def _so_far(self) -> str:
        return f"gave {self._samples:,} samples ({self._bytes / 1e9:.3g} GB)"


def _keys(hashes: Array, labels: Array | None) -> list[int]:
    """A number for each sample with its label, (samples,) both."""
    rows = [hashes.view(np.uint8).reshape(len(hashes), HASH.itemsize)]
    if labels is not None and labels.size:
        rows.append(np.ascontiguousarray(labels).reshape(len(labels), -1).view(np.uint8))
    both = np.concatenate(rows, axis=1)
    return list(map(hash, both.view(f"V{both.shape[1]}").reshape(-1).tolist()))


def length_of(name: str, source: Any) -> int | None:
    """How many batches a source says it has, None where it does not; what comes after them is not for this pass.

    Iterators of Keras have a length and start again behind it. Raises DataError for a tf.data.Dataset without end.
    """
    cardinality = getattr(source, "cardinality", None)
    if callable(cardinality) and int(cardinality()) == INFINITE:
        raise DataError(name, "is a tf.data.Dataset that repeats without end", hint=ONCE)
    try:
        return len(source) if isinstance(source, Sized) else None
    except TypeError:  # a tf.data.Dataset whose length is not known
        return None
