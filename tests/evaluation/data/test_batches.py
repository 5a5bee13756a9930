"""What Python programs have at hand, read as Keras's `fit` reads it; that all of it is, test_dataset.py tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.batches import SHUFFLED, WEIGHTS
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.model.model import InputSpec

X = np.arange(48, dtype=np.float32).reshape(8, 6)
Y = np.arange(8) % 3
A, B = InputSpec("a", np.dtype("float32"), (None, 6)), InputSpec("b", np.dtype("float32"), (None, 1))


def values(data: Dataset, name: str = "a") -> Any:
    return np.concatenate([batch.inputs[name] for batch in data.batches(3)])


def labels(data: Dataset) -> Any:
    return np.concatenate([batch.labels for batch in data.batches(3) if batch.labels is not None])


@pytest.fixture
def slices(tensorflow: Any) -> Any:
    return tensorflow.data.Dataset.from_tensor_slices


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("form", ["names", "tuple"])
def test_several_inputs_of_a_tf_dataset(slices: Any, batched: bool, form: str) -> None:
    """In Keras a column (batch,) is what an input (batch, 1) takes."""
    given = slices(({"b": X[:, 0], "a": X} if form == "names" else (X, X[:, 0]), Y))
    given = given.batch(3) if batched else given
    data = open_data(given, [A, B], ordered=form == "tuple")
    np.testing.assert_array_equal(values(data), X)
    np.testing.assert_array_equal(values(data, "b"), X[:, :1])
    np.testing.assert_array_equal(labels(data), Y)


def test_several_arrays_in_an_order_that_the_inputs_do_not_have(slices: Any) -> None:
    for given in (([X, X[:, 0]], Y), slices(((X, X[:, 0]), Y)), lambda: [((X, X[:, 0]), Y)]):
        with pytest.raises(DataError, match=r"has arrays in an order, and the model's file has none .* by name"):
            open_data(given, [A, B])
    assert len(open_data(([X, X[:, 0]], Y), [A, B], ordered=True)) == 8
    with pytest.raises(DataError, match="data: has 1 arrays, the model takes a, b; give one for each, in this order"):
        open_data(([X], Y), [A, B], ordered=True)


@pytest.mark.parametrize(
    ("element", "shape", "batches"),
    [
        ((5, 6), (None, 6), 5),
        ((6,), (None, 6), 1),
        ((5, 28, 28), (None, 28, 28, 1), 5),
        ((28, 28, 1), (None, 28, 28, 1), 1),
        ((5,), (None, 1), 5),
        ((1,), (None, 1), 1),
        ((), (None, 1), 1),
        ((), (None,), 1),
        ((5,), (None,), 5),
    ],
)
def test_whether_a_tf_dataset_has_batches(
    tensorflow: Any, element: tuple[int, ...], shape: tuple[int | None, ...], batches: int
) -> None:
    """An element is a batch of five, or one sample."""
    one = tensorflow.data.Dataset.from_tensors(np.zeros(element, np.float32)).repeat(2)
    assert len(open_data(one, [InputSpec("a", np.dtype("float32"), shape)])) == 2 * batches


def test_samples_of_different_sizes_and_open_shapes(tensorflow: Any) -> None:
    sizes = [4, 4, 7]

    def give() -> Iterator[Any]:
        yield from (np.full((size, 3), size, np.float32) for size in sizes)

    given = tensorflow.data.Dataset.from_generator(
        give, output_signature=tensorflow.TensorSpec((None, 3), tensorflow.float32)
    )
    data = open_data(given, [InputSpec("a", np.dtype("float32"), (None, None, 3))])
    assert [batch.inputs["a"].shape for batch in data.batches(2)] == [(2, 4, 3), (1, 7, 3)]


def test_a_tf_dataset_that_cannot_be_read(tensorflow: Any, slices: Any) -> None:
    with pytest.raises(DataError, match=r"tf.data.Dataset: never ends; leave out repeat\(\)"):
        open_data(slices(X).batch(2).repeat(), [A])
    with pytest.raises(DataError, match=r"holds a RaggedTensor, not an array; convert it: .*to_tensor"):
        open_data(slices(tensorflow.ragged.constant([[1.0], [1.0, 2.0]])), [A])
    with pytest.raises(DataError, match="has inputs image, label, the model takes a"):
        open_data(slices({"image": X, "label": Y}), [A])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, True),
        ({"seed": 1}, True),
        ({"reshuffle_each_iteration": False}, True),
        ({"seed": 1, "reshuffle_each_iteration": False}, False),
    ],
)
def test_a_dataset_in_another_order_each_time_is_told_of(
    tensorflow: Any, slices: Any, options: dict[str, Any], told: bool
) -> None:
    tensorflow.random.set_seed(None)  # one that another test has set would do for all
    warnings: list[str] = []
    given = slices((X, Y)).shuffle(8, **options).batch(2).prefetch(1)
    data = open_data(given, [A], warn=warnings.append, room=CacheRoom())
    assert warnings == ([SHUFFLED] if told else [])
    np.testing.assert_array_equal(np.sort(values(data)[:, 0]), X[:, 0])
    np.testing.assert_array_equal(values(data), values(data))  # read once, and cached
    np.testing.assert_array_equal(labels(data), Y[(values(data)[:, 0] / 6).astype(int)])


def test_sample_weights_are_told_of_once(slices: Any) -> None:
    warnings: list[str] = []
    data = open_data(slices((X, Y, Y)).batch(3), [A], warn=warnings.append)
    np.testing.assert_array_equal(labels(data), Y)
    assert warnings == [f"tf.data.Dataset: {WEIGHTS}"]
    open_data((X, Y, Y), [A], warn=warnings.append)
    assert warnings[1:] == [WEIGHTS]


def test_a_generator_is_read_once() -> None:
    def give() -> Iterator[Any]:
        yield X[:4], Y[:4]
        yield X[4:], Y[4:]

    data = open_data(give(), [A], room=CacheRoom())
    for _ in range(2):
        np.testing.assert_array_equal(values(data), X)
    np.testing.assert_array_equal(values(open_data(give, [A])), X)
    with pytest.raises(DataError, match=r"which can be read only once, .* give the function that makes it"):
        open_data(give(), [A], room=CacheRoom(most=0))


def test_a_generator_that_raises() -> None:
    def give() -> Iterator[Any]:
        yield X, Y
        raise OSError("the disk is gone")

    with pytest.raises(DataError, match=r"give: raised OSError: the disk is gone \(.*test_batches\.py:\d+\)"):
        open_data(give(), [A], room=CacheRoom())


def test_a_generator_that_was_read_before() -> None:
    given = iter([(X, Y)])
    open_data(given, [A], room=CacheRoom())
    with pytest.raises(DataError, match="is empty"):
        open_data(given, [A], room=CacheRoom())


def test_a_py_dataset_without_a_length(tensorflow: Any) -> None:
    import keras

    class Endless(keras.utils.PyDataset):  # type: ignore[misc]  # Keras has no types
        def __getitem__(self, number: int) -> Any:
            return X, Y

    with pytest.raises(DataError, match="Endless: does not say how many batches it has; define __len__"):
        open_data(Endless(), [A])


def test_an_iterable_whose_items_are_lists() -> None:
    """As those of PyTorch's loaders."""

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            return iter([[X[:4], Y[:4]], [X[4:], Y[4:]]])

    data = open_data(Loader(), [A])
    np.testing.assert_array_equal(values(data), X)
    np.testing.assert_array_equal(labels(data), Y)


def test_arrays_alone_and_tensors(tensorflow: Any) -> None:
    assert not open_data(X, [A]).has_labels
    data = open_data((tensorflow.constant(X), tensorflow.constant(Y)), [A])
    np.testing.assert_array_equal(values(data), X)
    np.testing.assert_array_equal(labels(data), Y)
    assert data.digest == open_data((X, Y), [A]).digest
