"""TFRecord files of tf.Example, as the TensorFlow datasets of images are written. Reading them imports TensorFlow."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.batch import Batch, Sample, reading, stacked
from autoquant.evaluation.data.decoding import Decoder
from autoquant.evaluation.data.hashes import ContentHashes
from autoquant.evaluation.data.images import ImageForm, decode_image
from autoquant.evaluation.data.plugins import nearest, nearest_or
from autoquant.model.model import InputSpec

LOOKED_AT = 1000
"""Records whose features are looked at for what tells that they belong together."""
IMAGE = "image/encoded"
LABEL = "image/class/label"
AHEAD = 64
"""Records that are read before those in front of them are decoded."""
HEADER, FOOTER = 12, 4
"""Bytes before the content of a record, its size and a checksum of that, and behind it, its checksum."""


@dataclass(frozen=True, slots=True)
class RecordTable:
    """What is known of each record, (records, 4): index of its file, offset and size in bytes, checksum; a digest."""

    records: Array
    digest: str


class RecordSource:
    """The records of one or several files, in the order of the files' names.

    Images are decoded on all cores, and cached for later passes as far as a Decoder has room. Where every record is
    `wanted`, they are decoded while the files are read to find them: as long as there is room, files are read once.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[Path],
        inputs: Sequence[InputSpec],
        size: tuple[int, int] | None,
        room: CacheRoom | None = None,
        *,
        wanted: bool = False,
    ):
        self.name = name
        self._wanted = wanted
        self._files = tuple(files)
        self._form = ImageForm.of(name, inputs, size)
        self._decoder = Decoder(on_disk=room)
        self._columns: dict[str, Array] = {}

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
        return len(self._table.records)

    def identifiers(self, names: re.Pattern[str]) -> Mapping[str, list[str | int]]:
        """The values, by feature, of those of one value each whose names match, in the first LOOKED_AT records."""
        found: dict[str, list[str | int]] = {}
        for index in range(min(len(self), LOOKED_AT)):
            for name, feature in _features(*self._record(index)).items():
                value = _single(feature) if names.search(name.removesuffix("_id").lower()) else None
                if value is not None:
                    found.setdefault(name, []).append(value)
        return found

    def value_of(self, index: int, names: re.Pattern[str]) -> str:
        """The value of a record's first feature, by name, of one value whose name matches; '' where there is none."""
        features = _features(*self._record(index))
        for name in sorted({*features} - {IMAGE, LABEL}):
            value = _single(features[name]) if names.search(name.lower()) else None
            if value is not None:
                return str(value)
        return ""

    def column(self, name: str, option: str) -> Array:
        """The text or integer that each record has in the feature of this name, see SampleSource."""
        if name not in self._columns:
            self._columns[name] = np.asarray([self._value(index, name, option) for index in range(len(self))])
        return self._columns[name]

    def _value(self, index: int, name: str, option: str) -> str | int:
        where, record = self._record(index)
        features = _features(where, record)
        value = _single(features[name]) if name in features else None  # asking a map for a key adds it
        if value is None:
            known = sorted(key for key in features if key != IMAGE and _single(features[key]) is not None)
            hint = nearest_or(name, known, f"leave out {option}")
            raise DataError(where, f"has no feature '{name}' of one integer or text", hint=hint)
        return value

    def hashes(self, indices: Array | None) -> Array:
        """Of the chosen samples' content, decoded."""
        return self._hashes.of(indices)

    @cached_property
    def _hashes(self) -> ContentHashes:
        return ContentHashes(self.read, len(self))

    def read(self, indices: Array | None, size: int) -> Iterator[Batch]:
        """Reads and decodes the chosen records, and no others."""
        labelled, chosen = self.has_labels, range(len(self)) if indices is None else indices
        samples = self._decoder.samples(lambda index: self._sample(*self._record(index), labelled), chosen, size)
        return stacked(samples, size)

    @cached_property
    def _table(self) -> RecordTable:
        found: list[tuple[int, ...]] = []
        waiting: dict[int, tuple[str, bytes]] = {}
        digest = hashlib.sha256(self._form.key.encode())

        def numbers() -> Iterator[int]:
            for number, file in enumerate(self._files):
                for record, (offset, content) in enumerate(_records(file)):
                    found.append((number, offset, len(content), zlib.crc32(content)))
                    digest.update(len(content).to_bytes(8, "little"))
                    digest.update(content)
                    if self._wanted and not self._decoder.full:
                        waiting[len(found) - 1] = f"{file}, record {record}", content
                    yield len(found) - 1

        indices = numbers()
        if self._wanted and self._files:
            labelled, decoded = self.has_labels, takewhile(lambda index: index in waiting, indices)
            for _ in self._decoder.samples(lambda index: self._sample(*waiting.pop(index), labelled), decoded, AHEAD):
                pass
        deque(indices, maxlen=0)
        return RecordTable(np.asarray(found, np.int64).reshape(-1, 4), digest.hexdigest())

    def _record(self, index: int) -> tuple[str, bytes]:
        """Where a record lies, for a person to read, and what it holds. Raises DataError if it is not what it was."""
        number, offset, size, checksum = map(int, self._table.records[index])
        file, record = self._files[number], index - int(np.searchsorted(self._table.records[:, 0], number))
        with reading(file), file.open("rb") as stream:
            stream.seek(offset + HEADER)
            content, footer = stream.read(size), stream.read(FOOTER)
        if len(footer) != FOOTER or zlib.crc32(content) != checksum:
            raise _damaged(file, record, offset)
        return f"{file}, record {record}", content

    def _sample(self, where: str, record: bytes, labelled: bool) -> Sample:
        features = _features(where, record)
        if IMAGE not in features or not features[IMAGE].bytes_list.value:
            known = sorted(features)
            hint = f"{nearest(IMAGE, known)}; others can be read with 'module:function'"
            raise DataError(where, f"has no '{IMAGE}'", hint=hint)
        image = decode_image(where, features[IMAGE].bytes_list.value[0], self._form)
        return Sample({self._form.input: image}, _label(where, features) if labelled else None)


def _label(where: str, features: Any) -> Array:
    if LABEL not in features:
        raise DataError(where, f"has no '{LABEL}', other records have", hint="write it for all or none")
    values = features[LABEL].int64_list.value
    if len(values) != 1:
        kind = features[LABEL].WhichOneof("kind") or "nothing"
        what = f"'{LABEL}' must be one integer, it is {kind} of {len(values) or 'no'} integers"
        raise DataError(where, what, hint="write an int64_list of one value")
    return np.asarray(values[0], np.int64)


def _single(feature: Any) -> str | int | None:
    """The only value of a feature, where it is an integer or text."""
    kind = feature.WhichOneof("kind")
    values = list(getattr(feature, kind).value) if kind in ("bytes_list", "int64_list") else []
    if len(values) != 1:
        return None
    return values[0].decode("utf-8", "replace") if isinstance(values[0], bytes) else int(values[0])


def _features(where: str, record: bytes) -> Any:
    from google.protobuf.message import DecodeError
    from tensorflow.core.example import example_pb2

    try:
        return example_pb2.Example.FromString(record).features.feature
    except DecodeError as error:
        raise DataError(where, "is not a tf.Example", hint="read it with 'module:function'") from error


def _records(file: Path) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each record, checksums verified; raises DataError for a damaged or compressed file."""
    from tensorflow.errors import DataLossError, OpError
    from tensorflow.python.lib.io.tf_record import tf_record_random_reader

    with reading(file), file.open("rb") as start:
        end = file.stat().st_size
        if start.read(2) == b"\x1f\x8b":
            raise DataError(str(file), "is compressed with gzip", hint=f"unpack it: gunzip -S '{file.suffix}' ...")
    with reading(file, OpError):
        reader, offset, number = tf_record_random_reader(str(file)), 0, 0
        while offset < end:
            try:
                record, following = reader.read(offset)
            except (DataLossError, IndexError) as error:
                raise _damaged(file, number, offset) from error
            yield offset, record
            offset, number = following, number + 1


def _damaged(file: Path, number: int, offset: int) -> DataError:
    what = f"is truncated or damaged at record {number} (byte {offset})"
    return DataError(str(file), what, hint="copy or download it again")
