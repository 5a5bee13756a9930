"""What samples are called: files, keys of records, arrays of ids, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.ids import sample_ids
from autoquant.model.model import InputSpec

IMAGE = (InputSpec("image", np.dtype(np.float32), (None, 4, 4, 3)),)
ROW = (InputSpec("x", np.dtype(np.float32), (None, 2)),)


def test_images_are_called_by_their_files(tmp_path: Path) -> None:
    import tensorflow as tf

    for name in ("cat/a.png", "cat/b.png", "dog/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy())
    assert sample_ids(open_data(tmp_path, IMAGE), [0, 2]) == ["cat/a.png", "dog/deep/c.png"]


def record(**features: Any) -> bytes:
    import tensorflow as tf

    image = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy()
    label = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    found = {"image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image]))}
    found["image/class/label"] = label
    for name, value in features.items():
        if isinstance(value, int):
            found[name] = tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        else:
            found[f"image/{name}"] = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    return bytes(tf.train.Example(features=tf.train.Features(feature=found)).SerializeToString())


def test_records_are_called_by_their_keys(tmp_path: Path) -> None:
    import tensorflow as tf

    file = tmp_path / "a.tfrecord"
    with tf.io.TFRecordWriter(str(file)) as writer:
        for each in (record(filename="one.jpg", height="4"), record(source_id=7), record(format="png")):
            writer.write(each)
    assert sample_ids(open_data(file, IMAGE), [0, 1, 2]) == ["one.jpg", "7", ""]


@pytest.mark.parametrize(
    ("columns", "called"),
    [
        ({"filename": np.array(["a", "b", "c"])}, ["c", "a"]),
        ({"sample_id": np.array([5, 6, 7])}, ["7", "5"]),
        ({"id": np.array([1, 1, 2])}, ["", ""]),
        ({"patient": np.array([1, 2, 3])}, ["", ""]),
        ({}, ["", ""]),
    ],
    ids=["names", "numbers", "not of one sample each", "of another kind", "none"],
)
def test_samples_of_arrays(columns: dict[str, Any], called: list[str]) -> None:
    data = open_data({"x": np.zeros((3, 2)), "y": np.zeros(3), **columns}, ROW)
    assert sample_ids(data, [2, 0]) == called
    assert sample_ids(open_data((np.zeros((3, 2)), None), ROW), [0]) == [""]
