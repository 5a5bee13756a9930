"""Samples put side by side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from autoquant.evaluation.data.batch import Sample, stacked


def samples(*lengths: int) -> Iterator[Sample]:
    for number, length in enumerate(lengths):
        yield Sample({"x": np.full(length, number)}, np.asarray(number))


@pytest.mark.parametrize(
    ("lengths", "size", "labels"),
    [
        ([], 2, []),
        ([3, 3, 3], 1, [[0], [1], [2]]),
        ([3, 3, 3], 2, [[0, 1], [2]]),
        ([3, 3, 3, 3], 2, [[0, 1], [2, 3]]),
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([3, 4, 4, 3], 2, [[0], [1, 2], [3]]),
        ([3, 3, 4], 2, [[0, 1], [2]]),
    ],
)
def test_batches_end_when_full_and_where_the_shape_changes(
    lengths: list[int], size: int, labels: list[list[int]]
) -> None:
    batches = list(stacked(samples(*lengths), size))
    assert [batch.labels.tolist() for batch in batches if batch.labels is not None] == labels
    for batch in batches:
        assert batch.labels is not None
        np.testing.assert_array_equal(
            batch.inputs["x"], np.repeat(batch.labels[:, None], batch.inputs["x"].shape[1], 1)
        )


def test_a_full_batch_does_not_wait_for_the_next_sample() -> None:
    def broken() -> Iterator[Sample]:
        yield from samples(3, 3)
        raise AssertionError("asked for a third sample")

    assert len(next(stacked(broken(), 2))) == 2
