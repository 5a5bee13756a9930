from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.plugins import load_function

X = np.arange(14, dtype=np.float32).reshape(7, 2)
Y = np.arange(7)


def batches_of(size: int) -> Callable[[], Iterator[Any]]:
    def give() -> Iterator[Any]:
        for start in range(0, 7, size):
            yield X[start : start + size], Y[start : start + size]

    return give


@pytest.mark.parametrize("given", [1, 3, 7])
@pytest.mark.parametrize("wanted", [1, 2, 10])
def test_batches_are_cut_and_joined(given: int, wanted: int) -> None:
    source = FunctionSource("f", batches_of(given), ["input"])
    batches = list(source.read(np.asarray([0, 2, 3, 6]), wanted))
    assert [len(batch) for batch in batches] == {1: [1, 1, 1, 1], 2: [2, 2], 10: [4]}[wanted]
    np.testing.assert_array_equal(np.concatenate([b.inputs["input"] for b in batches]), X[[0, 2, 3, 6]])
    np.testing.assert_array_equal(np.concatenate([b.labels for b in batches]), [0, 2, 3, 6])


@pytest.mark.parametrize(
    "item", [X, {"input": X}, (X, Y), ({"input": X}, Y), (X, None), X.tolist(), (X.tolist(), Y.tolist())]
)
def test_forms_of_a_batch(item: Any) -> None:
    source = FunctionSource("f", lambda: [item], ["input"])
    (batch,) = source.read(None, 10)
    np.testing.assert_array_equal(batch.inputs["input"], X)
    assert source.has_labels == (isinstance(item, tuple) and item[1] is not None)
    assert len(source) == 7


def test_a_tf_dataset_is_such_a_function() -> None:
    import tensorflow as tf

    source = FunctionSource("f", lambda: tf.data.Dataset.from_tensor_slices((X, Y)).batch(3), ["input"])
    np.testing.assert_array_equal(np.concatenate([b.inputs["input"] for b in source.read(None, 4)]), X)
    np.testing.assert_array_equal(np.concatenate([b.labels for b in source.read(None, 4)]), Y)


def test_samples_of_different_shapes_are_never_stacked() -> None:
    images = [np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 4, 1)), np.zeros((1, 2, 6, 1)), np.zeros((1, 4, 4, 1))]
    source = FunctionSource("f", lambda: images, ["input"])
    assert [b.inputs["input"].shape[:3] for b in source.read(None, 8)] == [(2, 4, 4), (1, 2, 6), (1, 4, 4)]


def test_the_digest_is_that_of_the_samples() -> None:
    assert FunctionSource("f", batches_of(3), ["x"]).digest == FunctionSource("g", batches_of(3), ["x"]).digest
    assert FunctionSource("f", batches_of(3), ["x"]).digest != FunctionSource("f", lambda: [(X, Y + 1)], ["x"]).digest


@pytest.mark.parametrize(
    ("give", "told"),
    [
        (lambda: X, "returned a single ndarray, not batches one after the other; yield x, (x, y)"),
        (lambda: (X, Y), "returned a single tuple"),
        (lambda: None, "returned a single NoneType"),
        (lambda: [{"image": X}], "batch 0: yields inputs image, the model takes input; name them as the model does"),
        (lambda: [(X, Y[:3])], "batch 0: is not a batch: float32[7, 2] with labels int64[3]"),
        (lambda: [np.float32(1)], "is not a batch: float32[]"),
        (lambda: [["a", None]], "'input' holds None, of Python's type NoneType, at 1"),
        (lambda: [[[1, 2], [3]]], "is not an array"),
        (lambda: [X, (X, Y)], "yields labels with some batches only"),
        (lambda x: x, "raised TypeError"),
    ],
)
def test_results_that_are_no_batch(give: Callable[..., Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        list(FunctionSource("f", give, ["input"]).read(None, 8))
    assert told in str(caught.value)


def test_one_array_for_two_inputs() -> None:
    with pytest.raises(DataError, match="yields one array, the model takes a, b"):
        len(FunctionSource("f", lambda: [X], ["a", "b"]))


def test_an_exception_keeps_its_message_and_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def give():\n    yield [[1.0]]\n    raise RuntimeError('disk on fire')\n")
    source = FunctionSource("mine:give", load_function(f"{file}:give"), ["input"])
    with pytest.raises(DataError, match=r"mine:give: raised RuntimeError: disk on fire \(.*mine\.py:3\)"):
        len(source)


@pytest.mark.parametrize(
    ("later", "told"),
    [
        ([], "yielded 0 batches in a later pass, 2 in the first"),
        ([X], "yielded 1 batches in a later pass"),
        ([X, X, X], "yielded more than the 2 batches"),
        ([X, X[:3]], r"batch 1 is float32\[3, 2\], in the first pass it was float32\[7, 2\]"),
        ([X[::-1], X], "the first batch differs"),
    ],
)
def test_a_second_pass_must_be_like_the_first(later: list[np.ndarray], told: str) -> None:
    passes = itertools.chain([[X, X]], itertools.repeat(later))
    source = FunctionSource("f", lambda: next(passes), ["input"])
    assert len(source) == 14
    with pytest.raises(DataError, match=told):
        list(source.read(None, 100))


def test_a_shared_iterator_is_found_out() -> None:
    once = iter([X, X])
    source = FunctionSource("f", lambda: once, ["input"])
    with pytest.raises(DataError, match="no shared iterator"):
        list(source.read(None, 100))
