"""The data as a user names it; and one contract for all sources."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data import sample_cache
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.decoding import prefetched
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.preprocessing import KERAS, Custom, standardize
from autoquant.model.model import InputSpec

SPEC = [InputSpec("input", np.dtype("float32"), (None, 2, 2, 3))]
X = np.stack([np.full((2, 2, 3), 10 * i, np.uint8) for i in range(7)])
Y = np.asarray([0, 0, 1, 1, 1, 2, 2])


def as_npz(path: Path) -> str:
    np.savez(path / "data.npz", x=X, y=Y)
    return str(path / "data.npz")


def as_images(path: Path) -> str:
    import tensorflow as tf

    for i, (image, label) in enumerate(zip(X, Y, strict=True)):
        (path / f"class{label}").mkdir(exist_ok=True)
        (path / f"class{label}" / f"{i}.png").write_bytes(tf.io.encode_png(image).numpy())
    return str(path)


def as_records(path: Path) -> str:
    import tensorflow as tf

    for part, chosen in enumerate((range(4), range(4, 7))):
        with tf.io.TFRecordWriter(str(path / f"data-{part:05}-of-00002")) as writer:
            for i in chosen:
                features = {
                    "image/encoded": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=[tf.io.encode_png(X[i]).numpy()])
                    ),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[Y[i]])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return str(path / "data-*")


def as_function(path: Path) -> str:
    np.savez(path / "hidden.npz", x=X, y=Y)
    text = "import numpy as np\ndef give():\n    d = np.load({!r})\n    for i in range(0, 7, 3):\n"
    (path / "mine.py").write_text(
        text.format(str(path / "hidden.npz")) + "        yield d['x'][i:i + 3], d['y'][i:i + 3]\n"
    )
    return f"{path / 'mine.py'}:give"


def as_csv(path: Path) -> str:
    columns = ["label", *(f"pixel{place}" for place in range(12))]
    rows = [[label, *pixels] for label, pixels in zip(Y, X.reshape(7, 12), strict=True)]
    (path / "data.csv").write_text("\n".join(",".join(map(str, row)) for row in [columns, *rows]))
    return str(path / "data.csv")


def as_frame(path: Path) -> Any:
    import pandas

    return pandas.read_csv(as_csv(path))


def as_tf_data(size: int | None) -> Any:
    import tensorflow as tf

    whole = tf.data.Dataset.from_tensor_slices((X, Y))
    return whole if size is None else whole.batch(size)


def as_py_dataset(_: Path) -> Any:
    import keras

    class Pairs(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        def __len__(self) -> int:
            return 3

        def __getitem__(self, number: int) -> Any:
            part = slice(3 * number, 3 * number + 3)
            return X[part], Y[part]

    return Pairs()


FORMS: dict[str, Callable[[Path], Any]] = {
    "npz": as_npz,
    "images": as_images,
    "records": as_records,
    "module:function": as_function,
    "arrays": lambda _: (X, Y),
    "mapping": lambda _: {"input": X, "labels": Y},
    "callable": lambda _: lambda: iter([(X[:4], Y[:4]), (X[4:], Y[4:])]),
    "list": lambda _: [(X[:4], Y[:4]), (X[4:], Y[4:])],
    "generator": lambda _: (pair for pair in [(X[:4], Y[:4]), (X[4:], Y[4:])]),
    "csv": as_csv,
    "frame": as_frame,
    "frame and series": lambda path: (as_frame(path).drop(columns="label"), as_frame(path)["label"]),
    "tf.data of batches": lambda _: as_tf_data(3),
    "tf.data of samples": lambda _: as_tf_data(None),
    "PyDataset": as_py_dataset,
}


@pytest.fixture(params=FORMS)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    spec, room = FORMS[request.param](tmp_path), CacheRoom() if request.param == "generator" else None
    return open_data(spec, SPEC, preprocess=standardize(std=(10.0,)), label_offset=1, room=room)


def joined(data: Dataset, size: int) -> tuple[np.ndarray, np.ndarray]:
    batches = list(data.batches(size))
    assert all(len(batch) == size for batch in batches[:-1])
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return np.concatenate([batch.inputs["input"] for batch in batches]), np.concatenate(labels)


def test_every_source_gives_all_samples_preprocessed_again_and_again(data: Dataset) -> None:
    assert len(data) == 7 and data.has_labels
    for size in (3, 7, 100, 3):
        x, y = joined(data, size)
        assert x.dtype == np.float32
        np.testing.assert_array_equal(x, X / 10)
        np.testing.assert_array_equal(y, Y + 1)


def test_every_source_gives_subsets_in_ascending_order(data: Dataset) -> None:
    part = data.subset(np.asarray([6, 1, 3, 4]))
    x, y = joined(part, 2)
    np.testing.assert_array_equal(x, X[[1, 3, 4, 6]] / 10)
    np.testing.assert_array_equal(y, Y[[1, 3, 4, 6]] + 1)
    x, _ = joined(part.subset(np.asarray([3, 0])), 2)  # positions in the part
    np.testing.assert_array_equal(x, X[[1, 6]] / 10)
    assert len(part) == 4


def test_every_source_can_be_read_twice_at_once(data: Dataset) -> None:
    for one, other in zip(data.batches(2), data.batches(2), strict=True):
        np.testing.assert_array_equal(one.inputs["input"], other.inputs["input"])


def test_only_arrays_without_preprocessing_are_at_hand(data: Dataset) -> None:
    assert not data.at_hand
    in_memory = isinstance(data.source, FunctionSource) and data.source.cached is not None
    assert Dataset(data.source, data.inputs).at_hand == (isinstance(data.source, ArraySource) or in_memory)


def test_what_a_function_gave_is_at_hand_once_it_is_in_memory(tmp_path: Path) -> None:
    x, spec = np.ones((30, 2), np.float32), [InputSpec("x", np.dtype(np.float32), (None, 2))]
    for room, at_hand in ((CacheRoom(tmp_path), True), (None, False)):
        data = open_data(lambda: iter([x]), spec, room=room)
        assert len(data) == 30 and data.at_hand is at_hand


@pytest.mark.parametrize("size", [1, 2, 7])
def test_every_source_gives_the_same_batches_while_a_model_runs(data: Dataset, size: int) -> None:
    before, plain = set(threading.enumerate()), list(data.batches(size))
    with prefetched(lambda batch: batch.inputs["input"].sum(), data.batches(size)) as pairs:
        together = list(pairs)
    for one, (other, result) in zip(plain, together, strict=True):
        np.testing.assert_array_equal(one.inputs["input"], other.inputs["input"])
        np.testing.assert_array_equal(one.labels, other.labels)
        assert result == one.inputs["input"].sum()
    assert set(threading.enumerate()) <= before


def test_every_source_ends_its_threads_when_given_up(data: Dataset) -> None:
    before = set(threading.enumerate())
    next(data.batches(1))
    batches = data.batches(2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before


def test_every_source_tells_of_a_bad_sample_in_every_pass_and_after_those_before_it(data: Dataset) -> None:
    def no_forties(batch: np.ndarray) -> np.ndarray:
        return np.where(batch == 40, np.nan, batch)

    bad = Dataset(data.source, data.inputs, Custom("f", no_forties))
    for _ in range(2):
        seen: list[float] = []
        with (
            pytest.raises(DataError, match=r"sample 4 has NaN or infinite values: input 'input' .* is nan; remove"),
            prefetched(lambda batch: batch.inputs["input"].max(), bad.batches(2)) as pairs,
        ):
            seen.extend(result for _, result in pairs)
        assert seen == [10.0, 30.0]


LIGHT = """
import sys
import numpy as np
from types import SimpleNamespace
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.preprocessing import KERAS, open_preprocess
spec = SimpleNamespace(name="input", dtype=np.dtype("float32"), shape=(None, 2, 2, 3))
for data in sys.argv[1:]:
    for mode in (*KERAS, None):
        assert sum(map(len, open_data(data, [spec], preprocess=open_preprocess(mode)).batches(2))) == 7
print("tensorflow" in sys.modules)
"""


def test_arrays_and_functions_do_without_tensorflow(tmp_path: Path) -> None:
    words = [sys.executable, "-c", LIGHT, as_npz(tmp_path), as_function(tmp_path)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_the_digest_depends_on_all_that_matters(data: Dataset) -> None:
    plain = Dataset(data.source, data.inputs)
    made = [
        plain,
        plain.subset(np.asarray([0, 1])),
        plain.subset(np.asarray([0, 2])),
        Dataset(data.source, data.inputs, KERAS["tf"]),
        Dataset(data.source, data.inputs, label_offset=1),
    ]
    assert len({one.digest for one in made}) == len(made)
    assert plain.subset(np.arange(7)).digest == plain.digest
    assert all(len(one.digest) == 64 for one in made)


def test_a_folder_of_records(tmp_path: Path) -> None:
    as_records(tmp_path)
    np.testing.assert_array_equal(joined(open_data(tmp_path, SPEC), 7)[1], Y)
    assert len(open_data(tmp_path / "data-00001-of-00002", SPEC)) == 3


@pytest.mark.parametrize("indices", [[0, 0], [-1], [7]])
def test_bad_subsets(indices: list[int]) -> None:
    with pytest.raises(ValueError, match=r"distinct and in 0\.\.6"):
        open_data((X, Y), SPEC).subset(np.asarray(indices))


def test_a_batch_has_at_least_one_sample() -> None:
    with pytest.raises(ValueError, match="size must be at least 1"):
        next(open_data((X, Y), SPEC).batches(0))


def test_two_inputs_and_integers_are_not_preprocessed() -> None:
    specs = [*SPEC, InputSpec("ids", np.dtype("int32"), (None, 1))]
    ids = np.arange(7)[:, None]
    data = open_data({"input": X, "ids": ids}, specs, preprocess=standardize(std=(10.0,)))
    batch = next(data.batches(7))
    np.testing.assert_array_equal(batch.inputs["ids"], ids)
    np.testing.assert_array_equal(batch.inputs["input"], X / 10)
    assert batch.inputs["ids"].dtype == np.int32 and batch.labels is None
    np.testing.assert_array_equal(next(open_data(([X, ids], Y), specs, ordered=True).batches(7)).inputs["ids"], ids)
    with pytest.raises(DataError, match="data: is one array, the model takes input, ids"):
        open_data((X, Y), specs)


NAN = X.astype(np.float32)
NAN[5, 0, 0, 0] = np.nan


def missing(path: Path) -> str:
    (path / "evaluation.npz").touch()
    return str(path / "evaluaton.npz")


def text(path: Path) -> str:
    (path / "data.txt").write_text("1,2")
    return str(path / "data.txt")


def empty_folder(path: Path) -> str:
    (path / "folder").mkdir()
    return str(path / "folder")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (missing, "there is no such file or folder; did you mean 'evaluation.npz'?"),
        (lambda path: path / "nothing", "there is no such file or folder; give an .npz, .npy or .csv file"),
        (lambda path: str(path / "*.tfrecord"), "matches no file"),
        (text, "is a file of an unknown kind; give an .npz, .npy or .csv file, a folder of images"),
        (lambda _: "no_such_module_here:load", "there is no module 'no_such_module_here'"),
        (empty_folder, "folder: is empty: there is no sample in it; give an .npz"),
        (lambda _: (X[:0], Y[:0]), "data: is empty"),
        (lambda _: lambda: iter([]), "is empty"),
        (lambda _: (X, Y, X, X), "is a tuple of 4"),
        (lambda _: (X, {"a": Y, "b": Y}), "data: has labels for a, b; one output is scored"),
        (lambda _: 3, "data: cannot be read: it is of Python's type int; give arrays (x, y)"),
        (lambda _: (X[..., :1], Y), "takes (batch, 2, 2, 3), the data has (batch, 2, 2, 1)"),
        (lambda _: (X.astype(complex), Y), "takes float32, the data is complex128"),
        (lambda _: (NAN[5:], Y[5:]), "sample 0 has NaN"),
    ],
)
def test_bad_data_is_refused_when_opened(tmp_path: Path, make: Callable[[Path], Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        open_data(make(tmp_path), SPEC)
    assert told in str(caught.value)


def test_nan_further_on_is_found_when_read() -> None:
    data = open_data((NAN, Y), SPEC).subset(np.asarray([1, 3, 5, 6]))
    with pytest.raises(DataError, match=r"data: sample 5 has NaN or infinite values: .* is nan; remove such samples"):
        list(data.batches(3))
    labels = np.asarray([0.0, np.nan])
    with pytest.raises(DataError, match="data: sample 1 has NaN or infinite values: the label is nan"):
        list(open_data((X[:2], labels), SPEC).batches(2))


def test_nan_made_by_the_users_preprocessing_is_found() -> None:
    with pytest.raises(DataError, match="sample 0 has NaN"):
        open_data((X, Y), SPEC, preprocess=Custom("f", lambda x: x * np.nan))


def test_float_data_beyond_float32_is_found() -> None:
    with pytest.raises(DataError, match="sample 0 has NaN or infinite"):
        open_data((X + 1e300, Y), SPEC)


def test_preprocessing_for_a_model_of_integers_is_refused() -> None:
    spec = [InputSpec("input", np.dtype("uint8"), (None, 2, 2, 3))]
    assert next(open_data((X, Y), spec).batches(7)).inputs["input"].dtype == np.uint8
    with pytest.raises(DataError, match="takes uint8, the data is float32; is there a --preprocess too many"):
        open_data((X, Y), spec, preprocess=KERAS["tf"])


def test_only_class_numbers_can_be_shifted() -> None:
    with pytest.raises(DataError, match=r"labels of type float64 and shape \(1, 3\) cannot be shifted"):
        open_data((X, np.eye(3)[Y]), SPEC, label_offset=1)


def test_real_npz(real_data: Path) -> None:
    data = open_data(real_data / "cifar10" / "calibration.npz", [InputSpec("x", np.dtype("float32"), None)])
    assert len(data) == 500 and data.has_labels
    assert next(data.batches(2)).inputs["x"].shape == (2, 32, 32, 3)


def test_few_samples_of_a_function_are_loaded_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = [0]

    def give() -> Any:
        calls[0] += 1
        yield from ((X[start : start + 2], Y[start : start + 2]) for start in range(0, len(X), 2))

    data = open_data(give, SPEC).subset(np.array([1, 4]))
    assert data.in_passes
    loaded, before = data.loaded(), calls[0]
    for _ in range(3):
        (batch,) = loaded.batches(8)
        np.testing.assert_array_equal(batch.labels, Y[[1, 4]])
        np.testing.assert_array_equal(batch.inputs["input"], X[[1, 4]])
    assert calls[0] == before
    assert (loaded.digest, len(loaded)) == (data.digest, 2)
    monkeypatch.setattr(sample_cache, "LOADED", X[:2].nbytes - 1)
    assert data.loaded() is data
