"""TFRecord files of tf.Example, as the TensorFlow datasets of images are written. Reading them imports TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Array, Batch, Sample, reading, stacked
from autoquant.evaluation.data.decoding import Decoder
from autoquant.evaluation.data.images import ImageForm, decode_image
from autoquant.evaluation.data.plugins import nearest

if TYPE_CHECKING:
    from autoquant.model.model import InputSpec

IMAGE = "image/encoded"
LABEL = "image/class/label"


@dataclass(frozen=True, slots=True)
class Table:
    """Where each record begins: `file` its index, `offset` in bytes, both (records,); and a digest of them all."""

    file: Array
    offset: Array
    digest: str


class RecordSource:
    """The records of one or several files, in the order of the files' names.

    Images are decoded on all cores, and kept for later passes as far as a Decoder has room.
    """

    def __init__(self, name: str, files: Sequence[Path], inputs: Sequence[InputSpec], size: tuple[int, int] | None):
        self.name = name
        self._files = tuple(files)
        self._form = ImageForm.of(name, inputs, size)
        self._decoder = Decoder()

    @cached_property
    def has_labels(self) -> bool:
        """Whether the first record has a label."""
        for file in self._files:
            for _, record in _records(file):
                return LABEL in _features(str(file), record)
        return False

    @property
    def digest(self) -> str:
        """Of the records' bytes."""
        return self._table.digest

    def __len__(self) -> int:
        return len(self._table.file)

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Reads and decodes the chosen records, and no others."""
        records, labelled = Reading(self._files, self._table), self.has_labels
        chosen: Any = range(len(self)) if indices is None else indices
        return stacked(self._decoder.samples(lambda index: self._sample(*records(index), labelled), chosen, size), size)

    @cached_property
    def _table(self) -> Table:
        files: list[int] = []
        offsets: list[int] = []
        digest = hashlib.sha256(self._form.key.encode())
        for number, file in enumerate(self._files):
            for offset, record in _records(file):
                files.append(number)
                offsets.append(offset)
                digest.update(len(record).to_bytes(8, "little"))
                digest.update(record)
        return Table(np.asarray(files, np.int64), np.asarray(offsets, np.int64), digest.hexdigest())

    def _sample(self, where: str, record: bytes, labelled: bool) -> Sample:
        features = _features(where, record)
        if IMAGE not in features or not features[IMAGE].bytes_list.value:
            known = sorted(features)
            hint = f"{nearest(IMAGE, known)}; others can be read with 'module:function'"
            raise DataError(where, f"has no '{IMAGE}'", hint=hint)
        image = decode_image(where, features[IMAGE].bytes_list.value[0], self._form)
        return Sample({self._form.input: image}, _label(where, features) if labelled else None)


class Reading:
    """One pass over the records by their numbers. Threads may share it: one at a time reads."""

    def __init__(self, files: Sequence[Path], table: Table) -> None:
        self._files = files
        self._table = table
        self._lock = Lock()
        self._opened = -1
        self._reader: Any = None

    def __call__(self, index: int) -> tuple[str, bytes]:
        """Where the record lies, for a person to read, and what it holds. Raises DataError if it is damaged."""
        wanted = int(self._table.file[index])
        number = int(index - np.searchsorted(self._table.file, wanted))
        with self._lock:
            if wanted != self._opened:
                self._reader, self._opened = _reader(self._files[wanted]), wanted
            record, _ = _read(self._files[wanted], self._reader, number, int(self._table.offset[index]))
        return f"{self._files[wanted]}, record {number}", record


def _label(where: str, features: Any) -> Array:
    if LABEL not in features:
        raise DataError(where, f"has no '{LABEL}', other records have", hint="write it for all or none")
    values = features[LABEL].int64_list.value
    if len(values) != 1:
        kind = features[LABEL].WhichOneof("kind") or "nothing"
        what = f"'{LABEL}' must be one integer, it is {kind} of {len(values) or 'no'} integers"
        raise DataError(where, what, hint="write an int64_list of one value")
    return np.asarray(values[0], np.int64)


def _features(where: str, record: bytes) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.example import example_pb2

    try:
        return example_pb2.Example.FromString(record).features.feature
    except DecodeError as error:
        raise DataError(where, "is not a tf.Example", hint="read it with 'module:function'") from error


def _reader(file: Path) -> Any:
    from tensorflow.errors import OpError
    from tensorflow.python.lib.io.tf_record import tf_record_random_reader

    with reading(file, OpError):
        return tf_record_random_reader(str(file))


def _read(file: Path, reader: Any, number: int, offset: int) -> Any:
    """A record and the offset of the next, its checksum verified; raises DataError if damaged or not to be read."""
    from tensorflow.errors import DataLossError, OpError

    with reading(file, OpError):
        try:
            return reader.read(offset)
        except (DataLossError, IndexError) as error:
            what = f"is truncated or damaged at record {number} (byte {offset})"
            raise DataError(str(file), what, hint="copy or download it again") from error


def _records(file: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each record, checksums verified; raises DataError for a damaged or compressed file."""
    with reading(file), file.open("rb") as start:
        size = file.stat().st_size
        if start.read(2) == b"\x1f\x8b":
            raise DataError(str(file), "is compressed with gzip", hint=f"unpack it: gunzip -S '{file.suffix}' ...")
    reader, offset, number = _reader(file), 0, 0
    while offset < size:
        record, following = _read(file, reader, number, offset)
        yield offset, record
        offset, number = following, number + 1
