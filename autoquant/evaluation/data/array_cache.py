"""A cache of arrays, of samples or outputs, that goes to disk where they are large."""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.array import Array

IN_MEMORY = 1 << 26
"""Bytes of a cache up to which it stays in memory."""
ON_DISK = 8_000_000_000
"""Bytes of cached arrays at most; there are fewer where the disk has not twice as many to spare."""


GAP = 1 << 14
"""Bytes that are read and not wanted sooner than that a file is read once more, which takes as long."""


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
class _Block:
    """One array of a batch in the file: where it begins, and the shape and type of a sample."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row(self) -> int:
        """Bytes of a sample."""
        return self.dtype.itemsize * math.prod(self.shape)


class ArrayCache:
    """Arrays by name, of samples in the order in which they are added, numbered from 0, as many as there is room for.

    They are in memory while they are few, and then in a file without a name, which goes with the process, whatever ends
    it. One thread at a time may use it.
    """

    def __init__(self, room: CacheRoom, *, in_memory: int = IN_MEMORY) -> None:
        self._room = room
        self._file: Any = tempfile.SpooledTemporaryFile(in_memory, dir=str(room.folder))  # noqa: SIM115  # closed with this
        self._batches: list[dict[str, _Block]] = []
        self._ends = [0]
        self.full = False
        self.size = 0
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """How many samples it has: all that were added, until it was full."""
        return self._ends[-1]

    def add(self, arrays: Mapping[str, Array]) -> None:
        """Add a batch, unless there is no room for it; then nothing is added any more."""
        size = sum(array.nbytes for array in arrays.values())
        self.full = self.full or not self._room.take(size)
        if self.full:
            return
        try:
            blocks = self._written(arrays)
        except OSError:  # others have filled the disk meanwhile: so it is full as well
            self.full = True
            self._room.left += size
            return
        self.size += size
        self._batches.append(blocks)
        self._ends.append(self._ends[-1] + len(next(iter(arrays.values()))))

    def _written(self, arrays: Mapping[str, Array]) -> dict[str, _Block]:
        blocks, offset = {}, self.size
        self._file.seek(offset)
        for name, array in arrays.items():
            blocks[name] = _Block(offset, array.dtype, array.shape[1:])
            self._file.write(np.ascontiguousarray(array).tobytes() if array.size else b"")
            offset += array.nbytes
        return blocks

    def clear(self) -> None:
        """Remove everything, and give its room back."""
        self._file.seek(0)
        self._file.truncate()
        self._batches, self._ends = [], [0]
        self._room.left += self.size
        self.size = 0

    def batches(self) -> Iterator[Mapping[str, Array]]:
        """All that was added."""
        for _, arrays in self.parts(np.arange(len(self))):
            yield arrays

    def parts(self, numbers: Array) -> Iterator[tuple[slice, Mapping[str, Array]]]:
        """The arrays of samples of ascending numbers, by the batches that they were added in; and which those are."""
        batch_of = np.searchsorted(self._ends, numbers, side="right") - 1
        for batch in np.unique(batch_of):
            own = slice(*np.searchsorted(batch_of, [batch, batch + 1]))
            places = numbers[own] - self._ends[batch]
            yield own, {name: self._read(block, places) for name, block in self._batches[batch].items()}

    def _read(self, block: _Block, places: Array) -> Array:
        """Only what is asked for is read, and what lies between in small gaps: a batch may be everything."""
        found, row = np.empty((len(places), *block.shape), block.dtype), block.row
        edges = np.flatnonzero(np.diff(places) > max(GAP // max(row, 1), 1)) + 1
        for start, stop in pairwise([0, *edges.tolist(), len(places)]):
            own = places[start:stop] - places[start]
            self._file.seek(block.offset + int(places[start]) * row)
            content = np.frombuffer(self._file.read((int(own[-1]) + 1) * row), block.dtype)
            found[start:stop] = content.reshape(-1, *block.shape)[own] if row else 0
        return found
