from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.arrays import ArraySource, open_arrays, open_npy, open_npz

X = np.arange(12, dtype=np.uint8).reshape(4, 3)
Y = np.asarray([3, 2, 1, 0])


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    ("arrays", "labelled"),
    [
        ({"x": X, "y": Y}, True),
        ({"input": X, "y": Y}, True),
        ({"input": X, "labels": Y, "x": X + 1}, True),
        ({"x": X}, False),
    ],
)
def test_finds_inputs_and_labels(tmp_path: Path, arrays: dict[str, np.ndarray], labelled: bool) -> None:
    source = open_npz(saved(tmp_path / "a.npz", **arrays), ["input"])
    (batch,) = source.read(None, 10)
    np.testing.assert_array_equal(batch.inputs["input"], X)
    assert source.has_labels == labelled
    assert (batch.labels is not None) == labelled


def test_several_inputs_and_one_called_y() -> None:
    source = open_arrays("data", {"y": X, "x": X + 1, "labels": Y}, ["x", "y"])
    (batch,) = source.read(None, 4)
    np.testing.assert_array_equal(batch.inputs["y"], X)
    np.testing.assert_array_equal(batch.inputs["x"], X + 1)
    np.testing.assert_array_equal(batch.labels, Y)


def test_raw_data_stays_raw_and_is_not_copied() -> None:
    source = ArraySource("data", {"x": X}, None)
    (batch,) = source.read(np.asarray([1, 2]), 4)
    assert batch.inputs["x"].dtype == np.uint8
    assert np.shares_memory(batch.inputs["x"], X)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"images": X, "y": Y}, "has no array 'x' or 'input', only images, y; save it as np.savez(file, x="),
        ({"inputs": X}, "only inputs; did you mean 'inputs'?"),
        ({}, "only nothing"),
        ({"x": X, "y": Y[:3]}, "numbers of samples differ: input has 4, labels has 3"),
        ({"x": np.float32(3)}, "'input' is a single value"),
        ({"x": np.asarray([None, 1])}, "cannot be read as .npz"),
    ],
)
def test_bad_contents(tmp_path: Path, arrays: dict[str, np.ndarray], told: str) -> None:
    path = saved(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError) as caught:
        open_npz(path, ["input"])
    assert caught.value.where == str(path)
    assert told in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "random", "empty", "flipped", "npy"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).integers(0, 9, (50, 50)))
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[200] ^= 0xFF
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, X)
    else:
        made = {"truncated": whole[:-40], "random": b"\x07" * 99, "empty": b"", "flipped": bytes(flipped)}
        path.write_bytes(made[damage])
    with pytest.raises(DataError, match=r"a\.npz: cannot be read as \.npz: .*; is it whole\?"):
        open_npz(path, ["input"])


def test_a_file_removed_after_it_was_opened_is_still_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", x=X)
    source = open_npz(path, ["x"])
    path.unlink()
    assert source.digest == ArraySource("data", {"x": X}, None).digest


@pytest.mark.parametrize("x", [X, X.T, X.astype(">f4"), np.asarray([["a", "bb"], ["c", ""]]), X[:0], X.astype(bool)])
@pytest.mark.parametrize("form", ["npz", "compressed", "npy"])
def test_files_hold_what_was_saved(tmp_path: Path, form: str, x: np.ndarray) -> None:
    path = tmp_path / ("a.npy" if form == "npy" else "a.npz")
    if form == "npy":
        np.save(path, x)
    else:
        (np.savez if form == "npz" else np.savez_compressed)(path, first=np.arange(5), x=x)
    source = open_npy(path, ["x"]) if form == "npy" else open_npz(path, ["x"])
    whole = next(source.read(None, 10), None)
    found = x[:0] if whole is None else whole.inputs["x"]
    assert found.tolist() == (x.astype("S").tolist() if x.dtype.kind == "U" else x.tolist())
    assert len(source) == len(x)


def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    """A hole of 64 GB, behind a header of NumPy's: only pages that are read take memory."""
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 34,)})
        file.truncate(file.tell() + (1 << 36))
    (batch,) = open_npy(path, ["x"]).read(np.asarray([3, 1 << 33]), 2)
    assert batch.inputs["x"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("save", "mapped"), [(np.savez, True), (np.savez_compressed, False)])
def test_what_is_not_compressed_is_mapped(tmp_path: Path, save: Any, mapped: bool) -> None:
    save(tmp_path / "a.npz", x=X)
    (batch,) = open_npz(tmp_path / "a.npz", ["x"]).read(None, 4)
    base = batch.inputs["x"].base
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap) == mapped


def test_arrays_that_are_not_asked_for_are_not_read(tmp_path: Path) -> None:
    objects = np.asarray([None, 1, 2, 3])
    one = open_npz(saved(tmp_path / "a.npz", x=X, ids=objects, group=Y), ["x"])
    other = open_npz(saved(tmp_path / "b.npz", x=X, ids=objects, group=Y + 1), ["x"])
    assert one.column("group", "--guard").tolist() == Y.tolist()
    assert one.digest != other.digest  # by the checksum in the file


def test_the_digest_sees_every_byte(tmp_path: Path) -> None:
    def digest(x: np.ndarray, y: np.ndarray | None) -> str:
        return ArraySource("data", {"x": x}, y).digest

    made = {digest(X, Y), digest(X, None), digest(X + 1, Y), digest(X.astype(np.int8), Y), digest(X, Y + 1)}
    assert len(made) == 5
    assert digest(X.T.copy().T, Y) == digest(X, Y)  # the same values in another memory order
    first = open_npz(saved(tmp_path / "a.npz", x=X), ["x"])
    other = open_npz(saved(tmp_path / "b.npz", x=X + 1), ["x"])
    assert first.digest != other.digest


@pytest.mark.parametrize("key", ["x", "y"])
def test_a_damaged_array_is_found_when_samples_are_hashed(tmp_path: Path, key: str) -> None:
    """Of arrays that are mapped nobody else reads the checksum; those that nobody reads are not checked."""
    values = {"x": np.arange(600.0).reshape(100, 6), "y": np.arange(100) + 7_000_000, "z": np.arange(50) + 9_000_000}
    path = saved(tmp_path / "a.npz", **values)
    whole = path.read_bytes()
    place = whole.index(values[key].tobytes()) + 300
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    source = open_npz(path, ["x"])
    with pytest.raises(DataError, match=rf"a\.npz: cannot be read as \.npz: Bad CRC-32 for array '{key}'; is it whole"):
        source.hashes(np.arange(1))
    place = whole.index(values["z"].tobytes()) + 300
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    assert len(open_npz(path, ["x"]).hashes(None)) == 100
