"""Text and bytes as data: one form in memory, whatever they came as, and told apart from numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.errors import DataError
from autoquant.evaluation.data.batch import conform, with_plain_text
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.splits import check_disjoint
from autoquant.model.model import InputSpec

TEXT = InputSpec("x", np.dtype(object), (None,))
WORDS = ["a cat", "", "Zürich", "a longer sentence"]
BYTES = [word.encode() for word in WORDS]
ONLY = np.array(WORDS)


def yields(*batches: Any) -> Callable[[], Any]:
    return lambda: iter(batches)


@pytest.mark.parametrize(
    "data",
    [
        (ONLY, np.arange(4)),
        (np.array(BYTES), np.arange(4)),
        (np.array(WORDS, object), np.arange(4)),
        (np.array(BYTES, object), np.arange(4)),
        {"x": ONLY, "y": np.arange(4)},
        yields((WORDS[:3], [0, 1, 2]), (BYTES[3:], [3])),
    ],
    ids=["str", "bytes", "objects", "objects of bytes", "mapping", "function"],
)
def test_text_is_read_as_bytes(data: Any) -> None:
    found = open_data(data, [TEXT])
    read = [value for batch in found.batches(3) for value in batch.inputs["x"]]
    assert read == BYTES
    assert [value for batch in found.subset(np.array([1, 3])).batches(1) for value in batch.inputs["x"]] == BYTES[1::2]


def test_an_npz_with_text(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=ONLY, y=np.arange(4))
    assert next(open_data(tmp_path / "a.npz", [TEXT]).batches(4)).inputs["x"].tolist() == BYTES


def test_text_of_several_axes_keeps_its_shape() -> None:
    spec = InputSpec("x", np.dtype(object), (None, 2))
    batch = next(open_data((ONLY.reshape(2, 2), None), [spec]).batches(2))
    assert batch.inputs["x"].tolist() == [BYTES[:2], BYTES[2:]]


def test_the_same_text_has_the_same_hash_however_long_the_others_are() -> None:
    """NumPy's text has the width of the longest, and in memory objects are addresses."""
    one, other = open_data((ONLY, None), [TEXT]), open_data((np.array(["new", "Zürich"]), None), [TEXT])
    with pytest.raises(DataError, match=r"1 of 2 samples .*\(the first is sample 1\)"):
        check_disjoint("calibration", other, "evaluation", one)
    streamed = open_data(yields(WORDS[:2], WORDS[2:]), [TEXT])
    np.testing.assert_array_equal(streamed.hashes(), one.hashes())


def test_the_digest_is_that_of_the_text() -> None:
    def digest(*words: str) -> str:
        return open_data((np.array(words, object), None), [TEXT]).digest

    assert digest("ab", "c") == digest("ab", "c")
    assert len({digest("ab", "c"), digest("a", "bc"), digest("ab", "d")}) == 3
    given = [open_data(yields([word]), [TEXT]).digest for word in ("ab", "ab", "ac")]
    assert given[0] == given[1] != given[2]


@pytest.mark.parametrize(
    ("dtype", "given", "told"),
    [
        ("float32", ONLY, "the model's input 'x' takes float32, the data is string; is it the data of this model"),
        ("int64", ONLY, "takes int64, the data is string"),
        ("object", np.zeros((4, 8, 8), np.float32), "takes string, the data is float32"),
        ("object", np.arange(4), "takes string, the data is int64"),
    ],
)
def test_text_and_numbers_do_not_become_each_other(dtype: str, given: Any, told: str) -> None:
    spec = InputSpec("x", np.dtype(dtype), (None,))
    with pytest.raises(DataError) as caught:
        open_data((given, None), [spec])
    assert told in str(caught.value)
    with pytest.raises(DataError, match=r"takes \(batch\), the data has \(batch, 2\)"):
        conform("data", with_plain_text("data", "x", ONLY.reshape(2, 2)), TEXT)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((np.array(["a", None], object), None), "'x' holds None, of Python's type NoneType, at 1"),
        (yields(np.array(["a", 3.5], object)), "batch 0: 'x' holds 3.5, of Python's type float, at 1"),
    ],
)
def test_other_objects_are_refused(data: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        open_data(data, [TEXT])


def test_a_function_preprocesses_text_and_numbers_are_not_computed() -> None:
    from autoquant.evaluation.data.preprocessing import open_preprocess

    upper = open_preprocess(lambda batch: np.array([text.decode().upper() for text in batch]))
    assert next(open_data((ONLY, None), [TEXT], preprocess=upper).batches(2)).inputs["x"].tolist() == [b"A CAT", b""]
    with pytest.raises(DataError, match="tf: computes with numbers, the data for 'x' is text; leave it out"):
        open_data((ONLY, None), [TEXT], preprocess=open_preprocess("tf"))


def test_what_comes_in_front_makes_the_inputs_of_the_model() -> None:
    def lengths(data: Any) -> Any:
        return {"n": np.array([len(text) for text in data["x"]])}

    found = open_data((ONLY, np.arange(4)), [TEXT], front=lengths)
    assert not found.at_hand
    assert [batch.inputs["n"].tolist() for batch in found.batches(3)] == [[5, 0, 7], [17]]
    plain = open_data((ONLY, np.arange(4)), [TEXT])
    assert found.digest == plain.digest  # the front belongs to the model, whose digest is another
    np.testing.assert_array_equal(found.hashes(), plain.hashes())


def test_a_folder_of_images_for_an_input_of_encoded_ones(tmp_path: Path) -> None:
    """Nothing is decoded, and no TensorFlow needed."""
    for number, content in enumerate((b"\x89PNG first", b"GIF second")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").write_bytes(content)
    found = open_data(tmp_path, [TEXT])
    (batch,) = found.batches(4)
    assert batch.inputs["x"].tolist() == [b"\x89PNG first", b"GIF second"]
    assert np.asarray(batch.labels).tolist() == [0, 1]
