"""Samples put side by side."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Sample, check_no_nan, conform, stacked
from autoquant.model.model import InputSpec


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


def spec(dtype: str, *shape: int | None) -> InputSpec:
    return InputSpec("input", np.dtype(dtype), (None, *shape))


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ("float64", "float32"),
        ("float32", "float32"),
        ("float16", "float32"),
        ("uint8", "float32"),
        ("bool", "float32"),
        ("int64", "int32"),
        ("int64", "uint8"),
        ("uint8", "int8"),
    ],
)
def test_casts(have: str, want: str) -> None:
    made = conform("data", np.asarray([[0], [1]], have), spec(want, 1))
    assert made.dtype == want
    np.testing.assert_array_equal(made, [[0], [1]])


def test_does_not_copy_without_need() -> None:
    batch = np.zeros((2, 3), np.float32)
    assert conform("data", batch, spec("float32", None)) is batch


@pytest.mark.parametrize(
    ("have", "want", "told"),
    [
        ("float32", "uint8", "takes uint8, the data is float32; is there a --preprocess too many?"),
        ("complex64", "float32", "takes float32, the data is complex64"),
        ("<U3", "float32", "takes float32, the data is string"),
        ("float32", "bool", "takes bool, the data is float32"),
    ],
)
def test_refuses_types(have: str, want: str, told: str) -> None:
    with pytest.raises(DataError) as caught:
        conform("data.npz", np.zeros((2, 1), have), spec(want, 1))
    assert told in str(caught.value)
    assert str(caught.value).startswith("data.npz: the model's input 'input' takes")


def test_refuses_integers_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"values 0\.\.255 do not fit into int8"):
        conform("data", np.asarray([[0], [255]], np.uint8), spec("int8", 1))


@pytest.mark.parametrize(
    ("given", "wanted", "told"),
    [
        ((28, 28), (28, 28, 3), "takes (batch, 28, 28, 3), the data has (batch, 28, 28); is it the data"),
        ((3, 8, 6), (8, 6, 3), "put the channels last"),
        ((784,), (28, 28, 1), "reshape it: x.reshape(-1, 28, 28, 1)"),
        ((4,), (None, 3), "takes (batch, ?, 3), the data has (batch, 4); is it the data of this model?"),
    ],
)
def test_refuses_shapes(given: tuple[int, ...], wanted: tuple[int | None, ...], told: str) -> None:
    with pytest.raises(DataError) as caught:
        conform("data", np.zeros((2, *given), np.float32), spec("float32", *wanted))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("given", "wanted"), [((28, 28), (28, 28, 1)), ((28, 28, 1), (28, 28)), ((), (1,)), ((1,), ()), ((4,), (4, 1))]
)
def test_a_last_axis_of_one_is_added_or_dropped(given: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    values = np.arange(2 * int(np.prod(given)), dtype=np.float32).reshape(2, *given)
    found = conform("data", values, spec("float32", *wanted))
    np.testing.assert_array_equal(found, values.reshape(2, *wanted))


def test_an_unknown_rank_takes_anything() -> None:
    open_spec = InputSpec("input", np.dtype("float32"), None)
    assert conform("data", np.zeros((2, 3, 4)), open_spec).shape == (2, 3, 4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_names_the_sample_that_is_not_finite(bad: float) -> None:
    batch = np.zeros((3, 2, 2), np.float32)
    batch[1, 0, 1] = bad
    with pytest.raises(DataError, match=rf"sample 8 has NaN or infinite values: input 'x' at \[0, 1\] is {bad};"):
        check_no_nan("data", batch, np.asarray([4, 8, 9]), name="input 'x'")
    batch[2] = bad
    with pytest.raises(DataError, match="sample 1 has NaN or infinite values, and 1 near it"):
        check_no_nan("data", batch, range(3), name="input 'x'")


def test_large_is_not_infinite() -> None:
    largest = np.full((2, 3), np.finfo(np.float32).max)
    check_no_nan("data", largest, range(2), name="input 'x'")
    assert np.isfinite(largest).all()
