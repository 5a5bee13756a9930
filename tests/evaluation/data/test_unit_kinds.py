"""Units of each kind of data: split whole, compared between data, and where they are not named, noticed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.splits import DataSplits, split_calibration, split_search_holdout, without_overlap
from autoquant.evaluation.data.units import column_of, suspected_groups
from autoquant.model.model import InputSpec

ROW = InputSpec("input", np.dtype(np.float32), (None, 2))
IMAGE = InputSpec("input", np.dtype(np.float32), (None, 1, 2, 3))
X = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
PATIENTS = {number: f"p{number * number % 13}" for number in range(120)}
"""The patient of each sample, by its number, which its first value is."""


def pixels(number: int) -> Array:
    return np.array([[[number, 0, 0], [0, 0, 0]]], np.uint8)


def png(number: int) -> bytes:
    import tensorflow as tf

    return bytes(tf.io.encode_png(pixels(number)).numpy())


def image_folder(folder: Path, paths: dict[str, int]) -> Dataset:
    for path, number in paths.items():
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        (folder / path).write_bytes(png(number))
    return open_data(folder, (IMAGE,))


def record_file(path: Path, features: dict[int, dict[str, str | int]]) -> Dataset:
    import tensorflow as tf

    def feature(value: str | int | bytes) -> Any:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(
            bytes_list=tf.train.BytesList(value=[value.encode() if isinstance(value, str) else value])
        )

    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, others in features.items():
            everything = {"image/encoded": feature(png(number)), **{name: feature(others[name]) for name in others}}
            writer.write(tf.train.Example(features=tf.train.Features(feature=everything)).SerializeToString())
    return open_data(path, (IMAGE,))


def npz_of(folder: Path, numbers: list[int]) -> tuple[Dataset, str]:
    x = np.stack([pixels(number) for number in numbers])
    np.savez(folder / "d.npz", x=x, patient=np.asarray([PATIENTS[number] for number in numbers]))
    return open_data(folder / "d.npz", (IMAGE,)), "patient"


def batches_of(folder: Path, numbers: list[int]) -> tuple[Dataset, str]:
    """Batches in memory that is used again for the next one."""

    def give() -> Iterator[Any]:
        x, patient = np.zeros((7, 1, 2, 3), np.uint8), np.zeros(7, object)
        for start in range(0, len(numbers), 7):
            chosen = numbers[start : start + 7]
            x[: len(chosen)] = [pixels(number) for number in chosen]
            patient[: len(chosen)] = [PATIENTS[number].encode() for number in chosen]
            yield {"input": x[: len(chosen)], "patient": patient[: len(chosen)]}, np.zeros(len(chosen), int)

    return open_data(give, (IMAGE,)), "patient"


def images_of(folder: Path, numbers: list[int]) -> tuple[Dataset, str]:
    return image_folder(folder / "i", {f"{'ab'[n % 2]}/{PATIENTS[n]}_{n}.png": n for n in numbers}), "/([^/]+)_"


def records_of(folder: Path, numbers: list[int]) -> tuple[Dataset, str]:
    return record_file(folder / "d.tfrecord", {n: {"patient_id": PATIENTS[n]} for n in numbers}), "patient_id"


KINDS = {"npz": npz_of, "function": batches_of, "images": images_of, "records": records_of}


def patients_in(part: Dataset | None) -> set[str]:
    """The patients of a part, told from what its samples hold, not from what names them."""
    assert part is not None
    return {PATIENTS[int(number)] for batch in part.batches(9) for number in batch.inputs["input"][:, 0, 0, 0]}


@pytest.mark.parametrize("kind", KINDS)
def test_units_are_split_whole(kind: str, tmp_path: Path) -> None:
    whole, unit = KINDS[kind](tmp_path, list(PATIENTS))
    splits = split_calibration(whole, 3, unit=unit)
    found = split_search_holdout(splits, least=1, seed=3, overlapping=False)
    parts = [patients_in(part) for part in (found.calibration, found.search, found.holdout)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(set(PATIENTS.values()))
    assert found.holdout is not None
    assert len(found.calibration) + len(found.search) + len(found.holdout) == len(PATIENTS)


@pytest.mark.parametrize("kind", KINDS)
def test_units_are_compared_between_data(kind: str, tmp_path: Path) -> None:
    """Calibration samples of evaluated patients are left out; a holdout that has some is refused."""
    known = [n for n in PATIENTS if PATIENTS[n] in ("p0", "p1", "p3")]
    fourth, others = ([n for n in PATIENTS if PATIENTS[n] in names] for names in (("p4",), ("p9", "p10", "p12")))
    opened = []
    for place, numbers in enumerate((known[::2], [known[1], *fourth], [known[3], fourth[0], *others], others)):
        (tmp_path / str(place)).mkdir()
        opened.append(KINDS[kind](tmp_path / str(place), numbers))
    (data, unit), (calibration, _), (mixed, _), (new, _) = opened
    left = DataSplits.of(data, calibration, new, unit).disjoint()
    assert (patients_in(left.calibration), left.dropped) == ({"p4"}, 1)
    for own in (data, calibration):  # a unit of either is one too many, though its samples are others
        only = DataSplits.of(
            data, calibration, mixed.subset(_where(mixed, known[3] if own is data else fourth[0])), unit
        )
        with pytest.raises(DataError, match="the holdout"):
            only.disjoint()
    splits = DataSplits.of(data, calibration, mixed, unit)
    assert patients_in(without_overlap(splits, least=1).holdout) == {"p9", "p10", "p12"}
    with pytest.raises(
        DataError, match=r"samples for calibration are for evaluation too, or of units of '.*' that are"
    ):
        DataSplits.of(data, calibration.subset(_where(calibration, known[1])), unit=unit).disjoint()


def _where(data: Dataset, number: int) -> Array:
    (batch,) = data.batches(len(data))
    return np.flatnonzero(batch.inputs["input"][:, 0, 0, 0] == number)


def test_calibration_units_are_in_no_holdout_where_samples_may_overlap(tmp_path: Path) -> None:
    data, unit = npz_of(tmp_path, list(PATIENTS))
    calibration = open_data({"x": np.stack([pixels(200)] * 2), "patient": np.array(["p0", "p1"])}, (IMAGE,))
    splits = DataSplits.of(data, calibration, unit=unit)
    for seed in range(5):
        found = split_search_holdout(splits, least=1, seed=seed, overlapping=True)
        assert not patients_in(found.holdout) & {"p0", "p1"}
        assert not patients_in(found.holdout) & patients_in(found.search)


def test_what_names_no_unit(tmp_path: Path) -> None:
    """What is asked for, and what there is, by kind of data."""
    function, _ = batches_of(tmp_path, [1, 2])
    with pytest.raises(DataError, match=r"yields no array 'patent' .* did you mean 'patient'"):
        column_of(function, "patent", "--unit")
    with pytest.raises(
        DataError, match=r"no array 'patient' .* yield it beside the inputs, \(\{'input': x, 'patient': "
    ):
        column_of(open_data(lambda: [X], (ROW,)), "patient", "--unit")
    records = record_file(tmp_path / "r.tfrecord", {0: {"patient_id": 3, "site": "a"}, 1: {"site": "b"}})
    there = r"record 0: has no feature 'ward' .*there is patient_id, site; else leave out --unit"
    with pytest.raises(DataError, match=there):
        column_of(records, "ward", "--unit")
    with pytest.raises(DataError, match=r"record 1: has no feature 'patient_id'"):
        column_of(records, "patient_id", "--unit")
    images, _ = images_of(tmp_path, [1, 2])
    with pytest.raises(
        DataError, match=r"--unit patient_id matches 0 of 2 paths, not a/p4_2.png.*every path must match"
    ):
        column_of(images, "patient_id", "--unit")
    with pytest.raises(UsageError, match=r"--unit \(: is no regular expression"):
        column_of(images, "(", "--unit")
    assert column_of(images, r"([ab])/p(\d)", "--guard").tolist() == ["a/4", "b/1"]


def test_batches_that_name_more_than_the_model_takes() -> None:
    x, one = X[:4], np.arange(4)
    for items, what in (
        ([{"input": x, "more": x}], "yields input, more, the model takes input"),
        ([{"more": one}], "has inputs more, the model takes input"),
        ([{"input": x, "more": one}, {"input": x}], "yields 'more' with some batches only"),
        ([{"input": x}, {"input": x, "more": one}], "yields 'more' with some batches only"),
    ):
        with pytest.raises(DataError, match=what):
            len(open_data(lambda items=items: items, (ROW,)))


@pytest.mark.parametrize("give", [lambda arrays: arrays, lambda arrays: lambda: [arrays]], ids=["arrays", "function"])
def test_other_units_are_other_data(give: Any) -> None:
    """So that no run goes on with a split by units that the data no longer has."""
    one = np.arange(1000)
    digests = [
        open_data(give({"input": X, **more}), (ROW,)).digest for more in ({}, {"u": one}, {"u": one // 2}, {"v": one})
    ]
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("names", "groups", "unit"),
    [
        (
            [f"{kind}/patient{i}_slice{j:03}" for kind in "ab" for i in range(6) for j in range(4)],
            "file names are in 12 groups, the largest 'a/patient0' of 4",
            "([^/]+)_",
        ),
        (
            [f"v{i}-{j}" for i in range(6) for j in range(4)],
            "file names are in 6 groups, the largest 'v0' of 4",
            "([^/]+)-",
        ),
        (
            [f"{kind}/p{i}/{j:03}" for kind in "ab" for i in range(6) for j in range(4)],
            "file names are in 12 groups, the largest 'a/p0' of 4",
            "/(.+)/",
        ),
        (
            [f"x_{i} y frame{j}" for i in range(6) for j in range(4)],
            "file names are in 6 groups, the largest 'x_0 y' of 4",
            r"([^/]*[^\W_])[\W_]+[A-Za-z]{0,8}\d+\.\w+$",
        ),
        ([f"{kind}/img_{i:04}" for kind in "ab" for i in range(20)], "", ""),
        ([f"n0{kind}/n0{kind}_{i}" for kind in range(3) for i in range(9)], "", ""),
        ([f"a/{i * 7919:x}" for i in range(20)] + [f"b/{i * 104729:x}" for i in range(20)], "", ""),
    ],
    ids=["patients", "flat", "folders", "odd", "numbers", "ImageNet", "hashes"],
)
def test_file_names_that_share_a_beginning_are_noticed(
    names: list[str], groups: str, unit: str, tmp_path: Path
) -> None:
    """And the unit that is named for them works: images of one beginning are of one unit, in all classes."""
    images = image_folder(tmp_path, {f"{name}.png": 0 for name in names})
    found = suspected_groups(images)
    if not groups:
        assert found is None
        return
    assert found == (groups, unit)
    beginnings = [re.sub(r"^[ab]/|(_slice|-|/| frame)\d+$", "", name) for name in sorted(names)]
    units = column_of(images, unit, "--unit").tolist()
    assert len(set(zip(units, beginnings, strict=True))) == len(set(beginnings)) == len(set(units)) == 6


def test_features_of_records_that_name_what_belongs_together_are_noticed(tmp_path: Path) -> None:
    for key, told in (
        ("video_id", ("values of 'video_id' are in 5 groups, the largest 'v0' of 4", "video_id")),
        ("note", None),
    ):
        records = record_file(tmp_path / f"{key}.tfrecord", {i: {key: f"v{i // 4}"} for i in range(20)})
        assert suspected_groups(records) == told


def test_arrays_of_batches_that_name_what_belongs_together_are_noticed() -> None:
    samples = open_data(lambda: [{"input": X, "patient": np.arange(1000) // 5}], (ROW,))
    told = "values of the array 'patient' are in 200 groups, the largest '0' of 5"
    assert suspected_groups(samples) == (told, "patient")
