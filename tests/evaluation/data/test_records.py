from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from autoquant.errors import DataError
from autoquant.evaluation.data.decoding import OVERHEAD, Decoder
from autoquant.evaluation.data.records import RecordSource
from autoquant.model.model import InputSpec

SPEC = [InputSpec("input", np.dtype("float32"), (None, 2, 2, 1))]


def image(value: int) -> bytes:
    return bytes(tf.io.encode_png(np.full((2, 2, 1), value, np.uint8)).numpy())


def example(value: int, **change: Any) -> bytes:
    features = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image(value)])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[value])),
        **{key.replace("_", "/"): feature for key, feature in change.items()},
    }
    kept = {key: feature for key, feature in features.items() if feature is not None}
    return bytes(tf.train.Example(features=tf.train.Features(feature=kept)).SerializeToString())


def write(path: Path, *records: bytes, options: str = "") -> Path:
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for record in records:
            writer.write(record)
    return path


def open_(*files: Path) -> RecordSource:
    return RecordSource("data", files, SPEC, None)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "a.tfrecord", *map(example, range(3)))


def test_reads_all_files_in_order(file: Path) -> None:
    source = open_(file, write(file.parent / "empty.tfrecord"), write(file.parent / "b.tfrecord", example(3)))
    (batch,) = source.read(None, 8)
    assert len(source) == 4 and source.has_labels
    np.testing.assert_array_equal(batch.labels, [0, 1, 2, 3])
    np.testing.assert_array_equal(batch.inputs["input"][:, 0, 0, 0], [0, 1, 2, 3])


def test_only_the_chosen_are_decoded(file: Path) -> None:
    broken = example(7, image_encoded=tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"broken"])))
    source = open_(file, write(file.parent / "b.tfrecord", example(3), broken))
    (batch,) = source.read(np.asarray([1, 3]), 8)
    np.testing.assert_array_equal(batch.labels, [1, 3])
    with pytest.raises(DataError, match=r"b\.tfrecord, record 1: cannot be decoded"):
        list(source.read(None, 8))


def test_without_labels(tmp_path: Path) -> None:
    source = open_(write(tmp_path / "a.tfrecord", example(1, image_class_label=None)))
    assert not source.has_labels
    assert next(source.read(None, 8)).labels is None


FLOAT = tf.train.Feature(float_list=tf.train.FloatList(value=[1.5]))
TWO = tf.train.Feature(int64_list=tf.train.Int64List(value=[1, 2]))


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (example(1, image_encoded=None), "record 1: has no 'image/encoded'; there is image/class/label"),
        (example(1, image_class_label=None), "record 1: has no 'image/class/label', other records have"),
        (example(1, image_class_label=FLOAT), "must be one integer, it is float_list of no integers"),
        (example(1, image_class_label=TWO), "it is int64_list of 2 integers"),
        (b"no example \xff\xff", "record 1: is not a tf.Example"),
    ],
)
def test_bad_records(tmp_path: Path, record: bytes, told: str) -> None:
    source = open_(write(tmp_path / "a.tfrecord", example(0), record))
    with pytest.raises(DataError) as caught:
        list(source.read(None, 8))
    assert told in str(caught.value)


@pytest.mark.parametrize("cut", [3, 200, "flip", "stub"])
def test_damaged_files(file: Path, cut: int | str) -> None:
    whole = bytearray(file.read_bytes())
    if cut == "flip":
        whole[60] ^= 0xFF
    file.write_bytes(whole[:5] if cut == "stub" else whole[:-cut] if isinstance(cut, int) else whole)
    with pytest.raises(DataError, match=r"a\.tfrecord: is truncated or damaged at record \d \(byte \d+\); copy"):
        len(open_(file))


def test_a_file_that_changes_after_it_was_counted(file: Path) -> None:
    write(file, *map(example, range(200)))  # far more than are decoded ahead
    source = open_(file, write(file.parent / "b.tfrecord", example(3)))
    batches = source.read(None, 1)
    next(batches)
    (file.parent / "b.tfrecord").unlink()
    with pytest.raises(DataError, match=r"b\.tfrecord: cannot be read \(.*No such file.*; is it still there"):
        list(batches)
    source = open_(file)
    assert len(source) == 200
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"a\.tfrecord: is truncated or damaged at record 199 \(byte \d+\); copy"):
        list(source.read(None, 1))
    file.unlink()
    with pytest.raises(DataError, match=r"a\.tfrecord: cannot be read \(No such file"):
        len(open_(file))


def test_later_passes_find_the_records_decoded(file: Path) -> None:
    source = open_(file, write(file.parent / "b.tfrecord", b"no example \xff\xff"))
    for _ in range(2):
        batches = source.read(None, 3)
        np.testing.assert_array_equal(next(batches).labels, [0, 1, 2])
        with pytest.raises(DataError, match=r"b\.tfrecord, record 0: is not a tf\.Example"):
            next(batches)


def test_a_record_that_changes_after_it_was_counted(file: Path) -> None:
    source = open_(file)
    assert len(source) == 3
    whole = bytearray(file.read_bytes())
    whole[-10] ^= 0xFF
    file.write_bytes(whole)
    with pytest.raises(DataError, match=r"a\.tfrecord: is truncated or damaged at record 2 \(byte \d+\); copy"):
        list(source.read(None, 8))


def test_compressed_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is compressed with gzip; unpack it"):
        len(open_(write(tmp_path / "a.tfrecord", example(0), options="GZIP")))


def test_the_digest_sees_every_record(file: Path) -> None:
    first = open_(file).digest
    assert open_(file).digest == first
    assert open_(write(file.parent / "b.tfrecord", *map(example, (0, 1, 3)))).digest != first


def reads_of(source: RecordSource, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Is added to whenever a record is read by itself."""
    reads: list[int] = []
    record = RecordSource._record

    def counted(self: RecordSource, index: int) -> tuple[str, bytes]:
        reads.append(index)
        return record(self, index)

    monkeypatch.setattr(RecordSource, "_record", counted)
    return reads


def test_files_are_read_once_where_every_record_is_wanted(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write(file.parent / "b.tfrecord", *map(example, range(3, 200)))
    plain = open_(file, other)
    source = RecordSource("data", [file, other], SPEC, None, wanted=True)
    reads = reads_of(source, monkeypatch)
    assert (len(source), source.digest) == (200, plain.digest)
    (batch,) = source.read(None, 200)
    np.testing.assert_array_equal(batch.labels, range(200))
    np.testing.assert_array_equal(batch.inputs["input"][:, 0, 0, 0], range(200))
    np.testing.assert_array_equal(source.hashes(None), plain.hashes(np.arange(200)))
    assert sorted(reads) == list(range(200)), "those of the plain source alone"


def test_what_there_is_no_room_for_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = RecordSource(
        "data", [write(file.parent / "b.tfrecord", *map(example, range(100)))], SPEC, None, wanted=True
    )
    source._decoder = Decoder(10 * (OVERHEAD + 4))
    reads = reads_of(source, monkeypatch)
    (batch,) = source.read(None, 100)
    np.testing.assert_array_equal(batch.labels, range(100))
    assert sorted(reads) == list(range(10, 100))


def test_a_record_that_cannot_be_decoded_is_named_while_all_are_read(file: Path) -> None:
    broken = example(7, image_encoded=tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"broken"])))
    source = RecordSource(
        "data", [file, write(file.parent / "b.tfrecord", example(3), broken)], SPEC, None, wanted=True
    )
    with pytest.raises(DataError, match=r"b\.tfrecord, record 1: cannot be decoded"):
        len(source)
