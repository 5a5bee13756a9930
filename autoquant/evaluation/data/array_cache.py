"""A cache of arrays, of samples or outputs, that goes to disk where they are large."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.array import Array

IN_MEMORY = 1 << 26
"""Bytes of a cache up to which it stays in memory."""
ON_DISK = 8_000_000_000
"""Bytes of cached arrays at most; there are fewer where the disk has not twice as many to spare."""


@dataclass
class CacheRoom:
    """Bytes that may be cached, of several caches together; `folder`, or the nearest above it, says on which disk."""

    folder: Path | None = None
    most: int = ON_DISK
    least: int = IN_MEMORY
    left: int = field(init=False)

    def __post_init__(self) -> None:
        place = Path(tempfile.gettempdir()) if self.folder is None else self.folder.absolute()
        self.folder = next(folder for folder in (place, *place.parents) if folder.is_dir())
        self.left = min(self.most, max(shutil.disk_usage(self.folder).free // 2, self.least))

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes, which is theirs then."""
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True, slots=True)
class _Column:
    """Arrays of one name in batches that follow each other: type and shape of a sample, and where each array begins."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offsets: array[int] = field(default_factory=lambda: array("q"))

    @property
    def row(self) -> int:
        """Bytes of a sample."""
        return self.dtype.itemsize * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class _Run:
    """Batches of one form that follow each other, the first of them number `first`; columns by name."""

    first: int
    columns: Mapping[str, _Column]


class ArrayCache:
    """Arrays by name, of samples in the order in which they are added, numbered from 0, as many as there is room for.

    They are in memory while they are few, and then in a file without a name, which goes with the process, whatever ends
    it. One thread at a time may use it.
    """

    _file: Any

    def __init__(self, room: CacheRoom, *, in_memory: int = IN_MEMORY) -> None:
        self._room, self._most_in_memory = room, in_memory
        self._memory, self._file = bytearray(), None
        self._runs: list[_Run] = []
        self._ends = array("q", [0])
        self.full = False
        self.size = 0

    def __len__(self) -> int:
        """How many samples it has: all that were added, until it was full."""
        return self._ends[-1]

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Add a batch, unless there is no room for it; then nothing is added any more."""
        size = sum(own.nbytes for own in arrays.values())
        self.full = self.full or not self._room.take(size)
        if self.full:
            return
        try:
            self._write(arrays.values(), size)
        except OSError:  # others have filled the disk meanwhile: so it is full as well
            self.full = True
            self._room.left += size
            return
        forms = {name: (own.dtype, own.shape[1:]) for name, own in arrays.items()}
        if not self._runs or forms != {name: (own.dtype, own.shape) for name, own in self._runs[-1].columns.items()}:
            columns = {name: _Column(*form) for name, form in forms.items()}
            self._runs.append(_Run(len(self._ends) - 1, columns))
        for name, own in arrays.items():
            self._runs[-1].columns[name].offsets.append(self.size)
            self.size += own.nbytes
        self._ends.append(self._ends[-1] + len(next(iter(arrays.values()))))

    def _write(self, arrays: Iterable[Array], size: int) -> None:
        """Write arrays of so many bytes behind all others."""
        contents: Iterable[memoryview] = (np.ascontiguousarray(own).reshape(-1).view(np.uint8).data for own in arrays)
        if self._file is None and self.size + size <= self._most_in_memory:
            for content in contents:
                self._memory += content
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=str(self._room.folder), buffering=0)  # noqa: SIM115  # closed with this
            weakref.finalize(self, self._file.close)
            contents, self._memory = chain([memoryview(self._memory)], contents), bytearray()
        self._file.seek(0, os.SEEK_END)
        for content in contents:
            while content:
                content = content[self._file.write(content) :]

    def clear(self) -> None:
        """Remove everything, and give its room back."""
        self._memory = bytearray()
        if self._file is not None:
            self._file.truncate(0)
        self._runs, self._ends = [], array("q", [0])
        self._room.left += self.size
        self.size = 0

    def batches(self) -> Iterator[Mapping[str, Array]]:
        """All that was added."""
        for begin, end in pairwise(self._ends):
            for _, arrays in self.parts(np.arange(begin, end)):
                yield arrays

    def parts(self, numbers: Array) -> Iterator[tuple[slice, Mapping[str, Array]]]:
        """The arrays of samples of ascending numbers, those of batches of one form together; and which those are."""
        batch_of, places = self._located(numbers)
        if len(self._runs) == 1:  # as almost always
            edges = [0, len(numbers)]
        else:
            edges = np.searchsorted(batch_of, [*(run.first for run in self._runs), len(self._ends)]).tolist()
        for run, own in zip(self._runs, map(slice, edges, edges[1:]), strict=True):
            if own.stop > own.start:
                batches, rows = batch_of[own] - run.first, places[own]
                yield own, {name: self._read(column, batches, rows) for name, column in run.columns.items()}

    def _located(self, numbers: Array) -> tuple[Array, Array]:
        """The batch of each sample, and its row in that."""
        ends = np.frombuffer(self._ends, np.int64)
        batches = np.searchsorted(ends, numbers, side="right") - 1
        return batches, numbers - ends[batches]

    def _read(self, column: _Column, batches: Array, rows: Array) -> Array:
        """Samples of a column by their batches and their rows in these. Only what is asked for is read."""
        size = column.row
        offsets = np.frombuffer(column.offsets, np.int64)[batches] + rows * size
        if size and self._file is None:
            places = len(self._memory) - size + 1  # where so many bytes can begin
            found = np.ndarray((places, size), np.uint8, self._memory, strides=(1, 1))[offsets].reshape(-1)
        else:
            found = np.empty(len(rows) * size, np.uint8)
            edges = np.flatnonzero(np.diff(offsets) != size) + 1
            for start, stop in pairwise([0, *edges.tolist(), len(rows)]) if size else ():
                self._read_into(found[start * size : stop * size].data, int(offsets[start]))
        return np.asarray(found.view(column.dtype).reshape(len(rows), *column.shape))

    def _read_into(self, target: memoryview, offset: int) -> None:
        """Fill with bytes of the file."""
        self._file.seek(offset)
        while target:
            read = self._file.readinto(target)
            if not read:
                raise EOFError("a cache of samples is shorter than it was")
            target = target[read:]
