"""The split of samples into calibration, search and holdout."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.evaluation.data.splits import (
    CALIBRATION_SAMPLES,
    DataSplits,
    check_disjoint,
    load_splits,
    save_splits,
    shared,
    split_calibration,
    split_search_holdout,
    unseen_indices,
    without_overlap,
)
from autoquant.model.model import InputSpec

SPEC = InputSpec("x", np.dtype(np.float32), (None, 3))
X = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)
CALIBRATION = np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32)


def data(x: Array) -> Dataset:
    return open_data((x, None), [SPEC])


def split(x: Array = X, *, least: int | None = 299, seed: int = 0, calibration: Array | None = None) -> DataSplits:
    splits = DataSplits.of(data(x), data(CALIBRATION if calibration is None else calibration))
    return split_search_holdout(splits, least=least, seed=seed, overlapping=calibration is not None)


def positions(splits: DataSplits) -> tuple[Array, Array]:
    assert splits.holdout is not None
    return tuple(part.positions_in(splits.evaluation) for part in (splits.search, splits.holdout))  # type: ignore[return-value]


def test_samples_of_both_are_refused_by_number() -> None:
    with pytest.raises(DataError) as caught:
        check_disjoint("calibration", data(X[90:200]), "evaluation", data(X[:100]))
    assert str(caught.value) == (
        "data: 10 of 110 samples for calibration are for evaluation too (the first is sample 0); a score on what was "
        "used before is too good: give other data for calibration, or --allow-overlap"
    )
    check_disjoint("calibration", data(X[100:200]), "evaluation", data(X[:100]))


@pytest.mark.parametrize(
    ("holdout", "shared"),
    [
        (X[300:400], None),
        (X[90:200], "for the holdout are for evaluation too"),
        (X[190:300], "for the holdout are for calibration too"),
    ],
)
def test_a_holdout_of_its_own_shares_nothing_with_the_rest(holdout: Array, shared: str | None) -> None:
    splits = DataSplits.of(data(X[:100]), data(X[180:200]), data(holdout))
    assert splits.has_own_holdout
    if shared is None:
        assert splits.disjoint().calibration is splits.calibration
    else:
        with pytest.raises(DataError, match=f"10 of {len(holdout)} samples {shared}"):
            splits.disjoint()


def test_calibration_gives_up_what_is_evaluated_unless_that_is_all() -> None:
    splits = DataSplits.of(data(X[:100]), data(X[[7, 150, 99, 150, 151]]))
    kept = splits.disjoint()
    assert kept.calibration.positions_in(splits.calibration).tolist() == [1, 3, 4]
    assert kept.evaluation is splits.evaluation
    with pytest.raises(DataError, match=r"all 2 samples for calibration are for evaluation too; .*--allow-overlap"):
        DataSplits.of(data(X[:100]), data(X[[7, 99]])).disjoint()


@given(st.integers(2, 60), st.integers(0, 99))
def test_calibration_is_a_fifth_drawn_by_the_seed(total: int, seed: int) -> None:
    samples = data(X[:total])
    splits = split_calibration(samples, seed)
    assert len(splits.calibration) == max(total // 5, 1)
    both = [splits.calibration.positions_in(samples), splits.evaluation.positions_in(samples)]
    np.testing.assert_array_equal(np.sort(np.concatenate(both)), np.arange(total))
    assert splits.search is splits.evaluation
    np.testing.assert_array_equal(split_calibration(samples, seed).calibration.positions_in(samples), both[0])


def test_calibration_by_another_seed_has_other_samples_and_never_too_many() -> None:
    one, other = (split_calibration(data(X[:40]), seed).calibration.indices for seed in (0, 1))
    assert one is not None and other is not None and not np.array_equal(one, other)
    assert len(split_calibration(data(np.tile(X, (5, 1))), 0).calibration) == CALIBRATION_SAMPLES


def test_calibration_leaves_no_copies_behind_and_something_else() -> None:
    copied = np.concatenate([X[:50], X[:50]])
    splits = split_calibration(data(copied), 0)
    assert len(unseen_indices(splits.evaluation, splits.calibration)) == len(splits.evaluation) < 80
    with pytest.raises(DataError, match="no samples beside"):
        split_calibration(data(X[[0, 0, 0, 0, 0, 0]]), 0)
    with pytest.raises(DataError, match=r"has too few samples \(1\) to split off 1 for calibration"):
        split_calibration(data(X[:1]), 0)


def test_half_is_the_holdout_and_all_samples_are_there_once() -> None:
    search, holdout = positions(split())
    assert len(holdout) == 500
    np.testing.assert_array_equal(np.sort(np.concatenate([search, holdout])), np.arange(1000))
    assert (np.diff(search) > 0).all()
    assert not np.array_equal(positions(split(seed=1))[0], search)


def test_copies_stay_together() -> None:
    search, holdout = positions(split(np.concatenate([X[:500], X[:500]]), least=100))
    assert not np.isin(search % 500, holdout % 500).any()
    assert len(search) + len(holdout) == 1000


def test_samples_of_calibration_are_not_in_the_holdout() -> None:
    found = split(calibration=X[:150])
    search, holdout = positions(found)
    assert holdout.min() >= 150
    assert found.left_out == 500 - len(holdout) > 0
    assert len(search) + len(holdout) == 1000
    assert split().left_out == 0


@pytest.mark.parametrize(
    ("x", "calibration"),
    [(np.tile(X[:10], (100, 1)), None), (np.tile(X[:400], (3, 1)), None), (X, X), (X, X[:600])],
    ids=["all", "many", "calibration has all", "calibration has many"],
)
def test_where_copies_leave_too_little_there_is_no_holdout(x: Array, calibration: Array | None) -> None:
    found = split(x, calibration=calibration)
    assert found.search is found.evaluation
    assert (found.holdout, found.left_out) == (None, 0)
    assert re.fullmatch(
        r"\d+ of \d+ samples for the holdout are in the search or calibration data too, "
        r"and to certify takes at least 299 samples",
        found.reason,
    )


@pytest.mark.parametrize(
    ("least", "reason"),
    [
        (500, ""),
        (
            501,
            "a certificate takes at least 501 samples that the search does not see, and half of the 1,000 evaluation "
            "samples are 500: give 1,002, or others with --certify",
        ),
        (None, "no number of samples certifies a tolerance of 0"),
    ],
)
def test_there_is_no_holdout_where_it_cannot_be_enough(least: int | None, reason: str) -> None:
    found = split(least=least)
    assert found.reason == reason
    assert (found.holdout is None) == (found.search is found.evaluation) == bool(reason)


def test_unseen_samples_are_in_no_other_data() -> None:
    assert unseen_indices(data(X[:20]), data(X[15:30]), data(X[:2])).tolist() == list(range(2, 15))


def own_holdout(holdout: Array, **options: Any) -> DataSplits:
    return without_overlap(DataSplits.of(data(X[:100]), data(CALIBRATION), data(holdout)), **options)


def test_a_holdout_of_its_own_leaves_out_what_was_seen() -> None:
    found = own_holdout(np.concatenate([CALIBRATION[:5], X[90:200]]), least=100)
    assert found.holdout is not None and found.holdout.indices is not None
    assert found.holdout.indices.tolist() == list(range(15, 115))
    assert (found.left_out, found.reason) == (15, "")


@pytest.mark.parametrize("least", [111, None])
def test_a_holdout_of_its_own_that_is_too_small_then_is_none(least: int | None) -> None:
    found = own_holdout(X[90:210], least=least)
    assert (found.holdout, found.left_out) == (None, 0)
    assert found.reason == (
        "10 of 120 samples to certify are evaluation or calibration data too, and the 110 left are too few; "
        "give other data with --certify"
    )
    assert own_holdout(X[100:210], least=least).holdout is not None  # nothing is left out


def test_the_split_is_stored_for_whoever_wants_to_check(tmp_path: Path) -> None:
    splits, path = replace(split(), left_out=100), tmp_path / "splits.npz"
    save_splits(splits, path)
    stored, opened = np.load(path), DataSplits.of(data(X), data(CALIBRATION))
    loaded = load_splits(opened, path)
    assert loaded is not None
    for name, found, wanted in zip(("search", "holdout"), positions(loaded), positions(splits), strict=True):
        assert stored[name].tolist() == found.tolist() == wanted.tolist()
    assert (loaded.reason, loaded.left_out) == ("", 100)
    assert load_splits(DataSplits.of(data(X[1:]), data(CALIBRATION)), path) is None
    assert load_splits(opened, tmp_path / "absent.npz") is None


def test_that_there_is_no_holdout_is_stored_with_its_reason(tmp_path: Path) -> None:
    save_splits(split(least=None), tmp_path / "splits.npz")
    loaded = load_splits(DataSplits.of(data(X), data(CALIBRATION)), tmp_path / "splits.npz")
    assert loaded is not None and loaded.holdout is None
    assert loaded.search is loaded.evaluation
    assert loaded.reason == "no number of samples certifies a tolerance of 0"


FOUR = [InputSpec("x", np.dtype(np.float32), (None, 4))]
TWO_INPUTS = [*FOUR, InputSpec("z", np.dtype(np.float32), (None, 2))]
BYTES = np.random.default_rng(0).integers(0, 255, (150, 4)).astype(np.uint8)


def four(x: Array, y: Array | None = None, **options: Any) -> Dataset:
    return open_data((x, y), FOUR, **options)


def test_equal_samples_have_equal_hashes_wherever_they_are() -> None:
    one, other = four(BYTES).hashes(), four(BYTES[::-1].copy()).hashes()
    assert len(np.unique(one)) == len(np.unique(BYTES, axis=0))
    np.testing.assert_array_equal(one, other[::-1])


def test_labels_and_preprocessing_do_not_count() -> None:
    plain = four(BYTES).hashes()
    scaled = four(BYTES, np.arange(150), preprocess=open_preprocess(None, scale=0.5, mean=None, std=None))
    np.testing.assert_array_equal(plain, scaled.hashes())


def test_a_subset_has_the_hashes_of_its_samples() -> None:
    chosen = np.array([149, 3, 70])
    np.testing.assert_array_equal(four(BYTES).subset(chosen).hashes(), four(BYTES).hashes()[np.sort(chosen)])


def test_the_same_bytes_of_another_type_or_shape_are_another_sample() -> None:
    as_ints = four(BYTES.astype(np.int32)).hashes()
    assert not len(shared(as_ints, four(BYTES.astype(np.float32)).hashes()))


def test_every_input_counts() -> None:
    z = np.zeros((150, 2), np.float32)
    one = open_data({"x": BYTES, "z": z}, TWO_INPUTS).hashes()
    z2 = z.copy()
    z2[7] = 1
    other = open_data({"x": BYTES, "z": z2}, TWO_INPUTS).hashes()
    assert np.flatnonzero(one != other).tolist() == [7]


def test_shared_gives_positions() -> None:
    one, other = four(BYTES[:50]).hashes(), four(BYTES[40:90]).hashes()
    assert shared(one, other).tolist() == [
        place for place in range(50) if (BYTES[40:90] == BYTES[place]).all(axis=1).any()
    ]
