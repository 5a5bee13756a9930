"""A cache of outputs that goes to disk where they are large."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.engines.engine import bytes_of

IN_MEMORY = 1 << 26
"""Bytes of cached outputs up to which they stay in memory."""
ON_DISK = 1 << 33
"""Bytes of cached outputs at most; there are fewer where the disk has not twice as many to spare."""


def samples_of(outputs: Outputs, samples: slice | Array) -> Outputs:
    """The outputs of some samples of a batch."""
    return {name: array[samples] for name, array in outputs.items()}


@dataclass(frozen=True, slots=True)
class _Block:
    """One output of a batch in the file: where it begins, and the shape and type of a sample."""

    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row(self) -> int:
        """Bytes of a sample."""
        return self.dtype.itemsize * int(np.prod(self.shape, dtype=np.int64))


class OutputCache:
    """Outputs of samples in the order in which they are added, numbered from 0, up to a number of bytes.

    They are in memory while they are few, and then in a file without a name, which goes with the process, whatever ends
    it. `folder` says on which disk.
    """

    def __init__(self, folder: Path | None = None, *, most: int = ON_DISK, in_memory: int = IN_MEMORY) -> None:
        place = folder or Path(tempfile.gettempdir())
        self._most = min(most, max(shutil.disk_usage(place).free // 2, in_memory))
        self._file: Any = tempfile.SpooledTemporaryFile(in_memory, dir=str(place))  # noqa: SIM115  # closed with this
        self._batches: list[dict[str, _Block]] = []
        self._ends = [0]
        self.full = False
        self.size = 0
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        """How many samples it has: all that were added, until it was full."""
        return self._ends[-1]

    def add(self, outputs: Outputs) -> None:
        """Add a batch, unless there is no room for it; then nothing is added any more."""
        self.full = self.full or self.size + bytes_of(outputs) > self._most
        if self.full:
            return
        blocks = {}
        self._file.seek(self.size)
        for name, array in outputs.items():
            blocks[name] = _Block(self.size, array.dtype, array.shape[1:])
            self._file.write(np.ascontiguousarray(array).tobytes() if array.size else b"")
            self.size += array.nbytes
        self._batches.append(blocks)
        self._ends.append(self._ends[-1] + len(next(iter(outputs.values()))))

    def batches(self) -> Iterator[Outputs]:
        """All that was added."""
        for _, outputs in self.parts(np.arange(len(self))):
            yield outputs

    def parts(self, numbers: Array) -> Iterator[tuple[slice, Outputs]]:
        """The outputs of samples of ascending numbers, by the batches that they were added in; and which those are."""
        batch_of = np.searchsorted(self._ends, numbers, side="right") - 1
        for batch in np.unique(batch_of):
            own = slice(*np.searchsorted(batch_of, [batch, batch + 1]))
            places = numbers[own] - self._ends[batch]
            yield own, {name: self._read(block, places) for name, block in self._batches[batch].items()}

    def rows(self, numbers: Array) -> Outputs:
        """The same together. Raises TrialError where their shapes differ."""
        parts = [outputs for _, outputs in self.parts(numbers)]
        for name in parts[0]:
            shapes = sorted({part[name].shape[1:] for part in parts})
            if len(shapes) > 1:
                what = f"output '{name}' of the FP32 model has shapes {', '.join(map(str, shapes))} in one batch"
                raise TrialError("metric", what, hint="what depends on the values in FP32 cannot be compared")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _read(self, block: _Block, places: Array) -> Array:
        first, count = int(places[0]), int(places[-1] - places[0]) + 1
        self._file.seek(block.offset + first * block.row)
        found = np.frombuffer(self._file.read(count * block.row), block.dtype).reshape(count, *block.shape)
        return np.asarray(found[places - first])
