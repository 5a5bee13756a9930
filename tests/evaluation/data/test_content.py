"""Samples known by their content."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoquant.evaluation.data.content import content_hashes, shared
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.model.model import InputSpec

SPEC = InputSpec("x", np.dtype(np.float32), (None, 4))
TWO = [SPEC, InputSpec("z", np.dtype(np.float32), (None, 2))]
X = np.random.default_rng(0).integers(0, 255, (150, 4)).astype(np.uint8)


def data(x: NDArray[Any], y: NDArray[Any] | None = None, **options: Any) -> Dataset:
    return open_data((x, y), [SPEC], **options)


def test_equal_samples_have_equal_hashes_wherever_they_are() -> None:
    one, other = content_hashes(data(X)), content_hashes(data(X[::-1].copy()))
    assert len(np.unique(one)) == len(np.unique(X, axis=0))
    np.testing.assert_array_equal(one, other[::-1])


def test_labels_and_preprocessing_do_not_count() -> None:
    plain = content_hashes(data(X))
    scaled = data(X, np.arange(150), preprocess=open_preprocess(None, scale=0.5, mean=None, std=None))
    np.testing.assert_array_equal(plain, content_hashes(scaled))


def test_a_subset_has_the_hashes_of_its_samples() -> None:
    chosen = np.array([149, 3, 70])
    np.testing.assert_array_equal(content_hashes(data(X).subset(chosen)), content_hashes(data(X))[np.sort(chosen)])


def test_the_same_bytes_of_another_type_or_shape_are_another_sample() -> None:
    as_ints = content_hashes(data(X.astype(np.int32)))
    assert not len(shared(as_ints, content_hashes(data(X.astype(np.float32)))))


def test_every_input_counts() -> None:
    z = np.zeros((150, 2), np.float32)
    one = content_hashes(open_data({"x": X, "z": z}, TWO))
    z2 = z.copy()
    z2[7] = 1
    other = content_hashes(open_data({"x": X, "z": z2}, TWO))
    assert np.flatnonzero(one != other).tolist() == [7]


def test_shared_gives_positions() -> None:
    one, other = content_hashes(data(X[:50])), content_hashes(data(X[40:90]))
    assert shared(one, other).tolist() == [place for place in range(50) if (X[40:90] == X[place]).all(axis=1).any()]
