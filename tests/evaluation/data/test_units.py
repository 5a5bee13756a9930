"""Units are drawn whole, and where none are named, groups of samples are noticed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.splits import DataSplits, split_calibration, split_search_holdout, without_overlap
from autoquant.evaluation.data.units import column_of, suspected_groups
from autoquant.model.model import InputSpec

ROW = InputSpec("input", np.dtype(np.float32), (None, 2))
X = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)


def data(x: Array, unit: Array | None = None) -> Dataset:
    arrays = {"x": x} if unit is None else {"x": x, "patient": unit}
    return open_data(arrays, (ROW,))


def of(part: Dataset) -> set[int]:
    return set(column_of(part, "patient", "--unit").tolist())


UNITS = st.lists(st.integers(0, 12), min_size=10, max_size=200).filter(lambda labels: len(set(labels)) > 1)


@given(UNITS, st.integers(0, 9))
def test_no_unit_is_in_two_parts(labels: list[int], seed: int) -> None:
    whole = data(X[: len(labels)], np.asarray(labels))
    splits = split_calibration(whole, seed, unit="patient")
    assert not of(splits.calibration) & of(splits.evaluation)
    assert len(splits.calibration) + len(splits.evaluation) == len(labels)
    found = split_search_holdout(
        DataSplits.of(whole, data(X[900:]), unit="patient"), least=1, seed=seed, overlapping=False
    )
    assert found.holdout is not None
    assert not of(found.search) & of(found.holdout)
    assert len(found.search) + len(found.holdout) == len(labels)
    largest = int(np.bincount(labels).max())
    assert len(found.holdout) <= max(len(labels) // 2, largest)
    assert len(found.holdout) >= min(len(labels) // 2 - largest, 1)


def test_a_certificate_counts_units() -> None:
    whole = data(X, np.repeat(np.arange(100), 10))
    splits = DataSplits.of(whole, data(X[:2] + 9), unit="patient")
    assert split_search_holdout(splits, least=50, seed=0, overlapping=False).holdout is not None
    found = split_search_holdout(splits, least=51, seed=0, overlapping=False)
    assert found.reason == (
        "a certificate takes at least 51 units that the search does not see, and half of the 100 evaluation units are "
        "50: give 102, or others with --certify"
    )
    alone = DataSplits.of(data(X, np.zeros(1000, int)), data(X[:2] + 9), unit="patient")
    assert split_search_holdout(alone, least=1, seed=0, overlapping=False).holdout is None
    with pytest.raises(DataError, match="one unit of 'patient' alone"):
        split_calibration(alone.evaluation, 0, unit="patient")


def test_a_copied_sample_takes_its_unit_along() -> None:
    labels = np.repeat(np.arange(20), 50)
    x = X.copy()
    x[50 * np.arange(1, 20)] = x[0]  # a sample that all units have
    splits = DataSplits.of(data(x, labels), data(X[:2] + 9), unit="patient")
    found = split_search_holdout(splits, least=1, seed=0, overlapping=False)
    assert (found.holdout, found.search is found.evaluation) == (None, True)


def test_a_unit_of_the_evaluation_data_is_in_no_holdout_of_its_own() -> None:
    evaluation, holdout = data(X[:100], np.arange(100) // 10), data(X[100:200], 5 + np.arange(100) // 10)
    splits = DataSplits.of(evaluation, data(X[900:]), holdout, "patient")
    with pytest.raises(DataError, match=r"5 units of 'patient' are in the evaluation data too \(such as 5\)"):
        splits.disjoint()
    left = without_overlap(splits, least=1)
    assert left.holdout is not None
    assert (of(left.holdout), left.left_out) == (set(range(10, 15)), 50)


def test_an_array_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"has no array 'ward' .* leave out --unit"):
        column_of(data(X, X[:, 0]), "ward", "--unit")
    with pytest.raises(DataError, match=r"has no array 'patent' .* did you mean 'patient'"):
        column_of(data(X, np.arange(1000)), "patent", "--unit")


def test_arrays_that_name_what_belongs_together_are_noticed() -> None:
    assert suspected_groups(data(X, np.arange(1000) // 5)) == (
        "values of the array 'patient' are in 200 groups, the largest '0' of 5",
        "patient",
    )
    assert suspected_groups(data(X, np.arange(1000))) is None
    assert suspected_groups(open_data({"x": X, "y": np.arange(1000) % 7}, (ROW,))) is None
