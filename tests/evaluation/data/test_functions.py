from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.batch import Batch
from autoquant.evaluation.data.endless import EndlessGuard
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.hashes import hashes_of
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
        (lambda: [{"image": X}], "batch 0: has inputs image, the model takes input; name them as the model does"),
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
    with pytest.raises(DataError, match="is one array, the model takes a, b"):
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
        ([X[::-1], X], "batch 0 differs"),
        ([X, X[::-1]], "batch 1 differs from that of its first pass; .* no shuffling"),
    ],
)
def test_a_second_pass_must_be_like_the_first(later: list[np.ndarray], told: str) -> None:
    passes = itertools.chain([[X, X]], itertools.repeat(later))
    source = FunctionSource("f", lambda: next(passes), ["input"])
    assert len(source) == 14
    with pytest.raises(DataError, match=told):
        list(source.read(None, 100))


def test_labels_of_a_later_batch_must_be_the_same_and_what_is_not_read_is_not_compared() -> None:
    passes = itertools.chain([[(X, Y), (X, Y)]], itertools.repeat([(X, Y), (X, Y[::-1])]))
    source = FunctionSource("f", lambda: next(passes), ["input"])
    assert len(source) == 14
    assert sum(map(len, source.read(np.arange(7), 100))) == 7
    with pytest.raises(DataError, match="batch 1 differs"):
        list(source.read(np.arange(8), 100))


def test_a_shared_iterator_is_found_out() -> None:
    once = iter([X, X])
    source = FunctionSource("f", lambda: once, ["input"])
    with pytest.raises(DataError, match="no shared iterator"):
        list(source.read(None, 100))


def again_and_again(x: Array, size: int, *, shuffled: bool = False) -> Callable[[], Iterator[Array]]:
    """As generators for training are: `while True`, perhaps in another order each time."""

    def give() -> Iterator[Array]:
        rng = np.random.default_rng(0)
        while True:
            order = rng.permutation(len(x)) if shuffled else np.arange(len(x))
            for start in range(0, len(x), size):
                yield x[order[start : start + size]]

    return give


IMAGES = np.random.default_rng(0).normal(size=(50, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("x", [IMAGES, IMAGES[:1], X], ids=["images", "one image", "rows"])
def test_a_generator_that_starts_again_is_found_out(x: Array, shuffled: bool) -> None:
    source = FunctionSource("f", again_and_again(x, 32, shuffled=shuffled), ["input"])
    told = rf"f: gave [\d,]+ samples, and nothing new after the first {len(x)}: it does not end; yield each sample once"
    with pytest.raises(DataError, match=told):
        len(source)


def test_one_that_repeats_across_batches_or_yields_nothing_is_found_out() -> None:
    def joined() -> Iterator[Array]:
        for start in itertools.count(step=32):
            yield IMAGES[np.arange(start, start + 32) % 50]

    def empty() -> Iterator[Array]:
        while True:
            yield X[:0]

    for give, told in ((joined, "nothing new after the first 50"), (empty, "gave 0 samples")):
        with pytest.raises(DataError, match=told):
            len(FunctionSource("f", give, ["input"]))


def test_samples_that_are_alike_are_no_sign_of_an_end_that_is_missing() -> None:
    few = np.random.default_rng(0).integers(0, 2, (20_000, 2)).astype(np.float32)  # four different ones
    for x in (few, np.zeros((500, 8)), np.concatenate([IMAGES] * 3)):
        assert len(FunctionSource("f", lambda x=x: np.array_split(x, 9), ["input"])) == len(x)  # type: ignore[misc]


def test_tf_datasets_without_end_are_refused_at_once() -> None:
    import tensorflow as tf

    data = tf.data.Dataset.from_tensor_slices(X)
    for endless in (data.repeat().batch(3), data.batch(3).repeat()):
        with pytest.raises(DataError, match=r"repeats without end; .* add take\(n\)"):
            len(FunctionSource("f", lambda endless=endless: endless, ["input"]))  # type: ignore[misc]
    assert len(FunctionSource("f", lambda: data.repeat().batch(3).take(2), ["input"])) == 6
    unknown = tf.data.Dataset.from_generator(lambda: iter(X), output_signature=tf.TensorSpec(2)).batch(3)
    assert len(FunctionSource("f", lambda: unknown, ["input"])) == 7


def test_an_iterator_with_a_length_gives_as_many_batches() -> None:
    """As Keras's flow() does: it starts again behind them."""

    class Flow:
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[Array]:
            return again_and_again(X, 3)()

    source = FunctionSource("f", Flow, ["input"])
    assert len(source) == 7
    np.testing.assert_array_equal(next(source.read(None, 10)).inputs["input"], X)


def test_new_samples_without_end_are_told_of_in_time_and_refused_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoquant.evaluation.data.endless.MOST_SAMPLES", 1000)
    told: list[str] = []
    guard = EndlessGuard("f", told.append, itertools.count(step=10.0).__next__)
    with pytest.raises(DataError, match=r"f: gave 1,001 samples \(.* GB\), and goes on: it does not seem to end"):
        for number in range(10_000):
            batch = Batch({"input": np.full((1, 2), number)})
            guard.see(batch, hashes_of(batch))
    assert [text.partition(", and")[0] for text in told[:3]] == [
        f"f: gave {samples} samples ({samples * 16 / 1e9:.3g} GB) in {samples * 10} s" for samples in (6, 12, 24)
    ]
