"""The cache of samples on disk, what a function costs with and without it, and hashes that are computed once."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.array_cache import ArrayCache, CacheRoom
from autoquant.evaluation.data.batch import Batch, Sample
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.decoding import Decoder
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.sample_cache import SampleCache
from autoquant.evaluation.data.splits import check_disjoint, split_calibration
from autoquant.model.model import InputSpec

X = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
Y = np.arange(300)
TEXT = np.asarray([f"a\0{'b' * (number % 7)}\0".encode() for number in range(300)], object)
IMAGES = [np.full((1, 2 + number % 3, 2), number % 256, np.uint8) for number in range(300)]
SPEC = [InputSpec("x", np.dtype(np.float32), (None, 4))]


class Counted:
    """A function that counts its calls and the samples it gives."""

    def __init__(self, x: Any, y: Array | None = Y, size: int = 7) -> None:
        self.x, self.y, self.size = x, y, size
        self.calls = self.given = 0

    def __call__(self) -> Iterator[Any]:
        self.calls += 1
        for start in range(0, len(self.x), self.size):
            part = slice(start, start + self.size)
            self.given += len(self.x[part])
            yield self.x[part] if self.y is None else (self.x[part], self.y[part])


def opened(function: Counted, room: CacheRoom | None, **options: Any) -> Dataset:
    return open_data(function, SPEC, room=room, **options)


@pytest.mark.parametrize("in_memory", [1, 1 << 26], ids=["on disk", "in memory"])
@pytest.mark.parametrize("chosen", [None, [0], [299], [3, 4, 5, 77, 200], range(100)])
@pytest.mark.parametrize("x", [X, TEXT], ids=["numbers", "text"])
@pytest.mark.parametrize("given", [1, 7, 300])
def test_a_cached_function_gives_what_it_gave(
    tmp_path: Path, x: Array, given: int, chosen: Any, in_memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SampleCache.__init__, "__kwdefaults__", {"in_memory": in_memory})
    indices = None if chosen is None else np.asarray(chosen)
    function = Counted(x, size=given)
    source = FunctionSource("f", function, ["x"], room=CacheRoom(tmp_path))
    wanted = np.arange(300) if indices is None else indices
    for _ in range(2):
        batches = list(source.read(indices, 64))
        assert [len(batch) for batch in batches] == [len(part) for part in np.split(wanted, range(64, len(wanted), 64))]
        assert np.concatenate([batch.inputs["x"] for batch in batches]).tolist() == x[wanted].tolist()
        np.testing.assert_array_equal(np.concatenate([batch.labels for batch in batches]), wanted)
    assert function.calls == 1
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_samples_of_different_shapes_are_cached_too(tmp_path: Path) -> None:
    source = FunctionSource("f", lambda: IMAGES, ["x"], room=CacheRoom(tmp_path))
    (first, second) = source.read(np.asarray([1, 2]), 8)
    np.testing.assert_array_equal(first.inputs["x"], IMAGES[1])
    np.testing.assert_array_equal(second.inputs["x"], IMAGES[2])
    assert sum(len(batch) for batch in source.read(None, 8)) == 300


@pytest.mark.parametrize("cached", [True, False])
def test_a_function_may_use_its_memory_again(cached: bool, tmp_path: Path) -> None:
    memory = np.empty((1, 4), np.float32)

    def give() -> Iterator[Array]:
        for row in X:
            memory[:] = row
            yield memory

    source = FunctionSource("f", give, ["x"], room=CacheRoom(tmp_path) if cached else None)
    np.testing.assert_array_equal(np.concatenate([batch.inputs["x"] for batch in source.read(None, 50)]), X)


@pytest.mark.parametrize("room", [None, 100 * X[0].nbytes], ids=["off", "too small"])
def test_without_room_a_pass_is_a_call_that_ends_with_the_last_sample_wanted(room: int | None, tmp_path: Path) -> None:
    function = Counted(X)
    shared = None if room is None else CacheRoom(tmp_path, room)
    data = opened(function, shared)
    assert data.in_passes and (shared is None or shared.left == room)  # given back: others may have it
    function.calls = function.given = 0
    (batch,) = data.subset(np.asarray([2, 40])).batches(50)
    np.testing.assert_array_equal(batch.inputs["x"], X[[2, 40]])
    assert (function.calls, function.given) == (1, 42)
    some = data.subset(np.asarray([5, 290])).loaded()
    for chosen in ([0, 1], [1]):
        (batch,) = some.subset(np.asarray(chosen)).batches(50)
        np.testing.assert_array_equal(batch.labels, np.asarray([5, 290])[chosen])
    assert function.calls == 2
    assert some.digest == data.subset(np.asarray([5, 290])).digest


def test_room_is_shared(tmp_path: Path) -> None:
    room = CacheRoom(tmp_path, 2 * X.nbytes)
    caches = [SampleCache(room) for _ in range(3)]
    for cache in caches:
        cache.add(Batch({"x": X}))
    assert [cache.full for cache in caches] == [False, False, True]


def test_it_never_takes_more_than_half_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: mock.Mock(free=1000))
    assert CacheRoom(tmp_path / "not" / "yet" / "there", least=10).left == 500


def test_a_disk_that_others_fill_makes_it_full(tmp_path: Path) -> None:
    cache = ArrayCache(room := CacheRoom(tmp_path), in_memory=1)
    cache.add({"x": X})
    with mock.patch.object(cache, "_write", side_effect=OSError(28, "No space left on device")):
        cache.add({"x": X})
    assert cache.full and len(cache) == 300 and room.left == CacheRoom(tmp_path).left - X.nbytes
    np.testing.assert_array_equal(next(cache.batches())["x"], X)


@pytest.mark.parametrize("room", [True, False])
def test_of_a_calibration_function_only_the_first_samples_are_read(room: bool, tmp_path: Path) -> None:
    function = Counted(X, size=50)
    data = opened(function, CacheRoom(tmp_path) if room else None, most=120)
    assert len(data) == 120
    assert max(batch.labels[-1] for batch in data.batches(50) if batch.labels is not None) == 119
    assert function.given <= 3 * 50 * function.calls
    same = Counted(X[:120], Y[:120])
    assert data.digest == opened(same, None).digest  # however it is cut


def test_of_one_without_end_too(tmp_path: Path) -> None:
    def give() -> Iterator[Array]:
        while True:
            yield X

    assert len(opened(give, CacheRoom(tmp_path), most=250)) == 250  # type: ignore[arg-type]
    for most in (None, 700):  # of these some are the same
        with pytest.raises(DataError, match="nothing new after the first 300: it does not end"):
            opened(give, CacheRoom(tmp_path), most=most)  # type: ignore[arg-type]


def npz(folder: Path) -> Any:
    np.savez(folder / "data.npz", x=X, y=Y)
    return folder / "data.npz"


@pytest.mark.parametrize("make", [npz, lambda _: (X, Y), lambda _: Counted(X)], ids=["npz", "arrays", "function"])
def test_each_sample_is_hashed_once(make: Callable[[Path], Any], tmp_path: Path) -> None:
    with mock.patch("hashlib.blake2b", wraps=hashlib.blake2b) as hashed:
        data = open_data(make(tmp_path), SPEC)
        splits = split_calibration(data, seed=0)
        check_disjoint("calibration", splits.calibration, "evaluation", splits.evaluation)
        _ = splits.calibration.digest, splits.evaluation.digest, data.hashes()
    assert hashed.call_count == 300


def test_what_a_decoder_has_no_memory_for_is_on_disk(tmp_path: Path) -> None:
    decoded: list[int] = []

    def decode(number: int) -> Sample:
        decoded.append(number)
        return Sample({"x": IMAGES[number][0]}, np.asarray(number))

    decoder = Decoder(room=2000, on_disk=CacheRoom(tmp_path))
    for _ in range(3):
        found = list(decoder.samples(decode, range(0, 300, 2), 8))
        assert [int(sample.label) for sample in found if sample.label is not None] == list(range(0, 300, 2))
        for number, sample in zip(range(0, 300, 2), found, strict=True):
            np.testing.assert_array_equal(sample.inputs["x"], IMAGES[number][0])
    assert sorted(decoded) == list(range(0, 300, 2))


def test_a_decoder_decodes_again_what_had_no_room_in_the_end(tmp_path: Path) -> None:
    decoder = Decoder(room=0, on_disk=CacheRoom(tmp_path, 3000))
    for _ in range(2):
        found = list(decoder.samples(lambda number: Sample({"x": X[number]}, None), range(300), 8))
        np.testing.assert_array_equal([sample.inputs["x"] for sample in found], X)


def test_the_file_is_on_the_disk_of_the_folder(tmp_path: Path) -> None:
    """Without a name: it goes with the process."""
    with mock.patch("tempfile.TemporaryFile", wraps=tempfile.TemporaryFile) as made:
        SampleCache(CacheRoom(tmp_path / "runs" / "night"), in_memory=1).add(Batch({"x": X}))
    assert made.call_args.kwargs["dir"] == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("in_memory", [1, 1 << 20])
def test_samples_of_any_form_in_any_ascending_choice(in_memory: int, tmp_path: Path) -> None:
    """Batches of one form are read together; what they are is as it was, also empty rows, text and booleans."""
    random, cache = np.random.default_rng(0), ArrayCache(CacheRoom(tmp_path), in_memory=in_memory)
    batches: list[dict[str, Array]] = [
        *({"x": random.normal(size=(size, 2, 3)), "y": random.integers(0, 9, size)} for size in (3, 1, 7)),
        *({"x": random.normal(size=(size, 0)), "y": np.array(["a", "bcd", "", "é"])[:size]} for size in (4, 2)),
        {"x": random.normal(size=(5, 0)) > 0.0, "y": np.zeros((5, 1), bool)},
    ]
    places = ((batch, row) for batch in batches for row in range(len(batch["y"])))
    samples = [{name: array[row : row + 1] for name, array in batch.items()} for batch, row in places]
    for batch in batches:
        cache.add(batch)
    assert len(cache) == 22
    for chosen in ([], [0], [2, 3, 4], [0, 5, 10, 11, 16, 17, 21], list(range(22))):
        found = [(part, arrays) for part, arrays in cache.parts(np.array(chosen, np.int64))]
        assert [place for part, _ in found for place in range(part.start, part.stop)] == list(range(len(chosen)))
        for part, arrays in found:
            for place, number in enumerate(chosen[part]):
                for name, wanted in samples[number].items():
                    assert arrays[name].dtype == wanted.dtype
                    np.testing.assert_array_equal(arrays[name][place : place + 1], wanted)
    for given, kept in zip(batches, cache.batches(), strict=True):
        np.testing.assert_array_equal(kept["y"], given["y"])
