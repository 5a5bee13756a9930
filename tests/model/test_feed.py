"""Values for placeholders as they are given: texts, and values of Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autoquant.errors import UsageError
from autoquant.model.feed import feed_hint, feed_texts, feed_value


@pytest.mark.parametrize(
    ("feed", "texts"),
    [
        ({"a": False, "b:0": np.float32(0.5), "c": np.array(3)}, ("a=false", "b=0.5", "c=3")),
        (["a=False", " b:0 = 0.5"], ("a=false", "b=0.5")),
        (("a=false",), ("a=false",)),
        ((), ()),
    ],
)
def test_one_form_for_all(feed: Any, texts: tuple[str, ...]) -> None:
    assert feed_texts(feed) == texts
    assert feed_texts(texts) == texts


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (["a"], "--feed: cannot read 'a'; give NAME=VALUE, for example is_training=false"),
        (["=1"], "--feed: cannot read '=1'"),
        (["a="], "--feed: cannot read 'a='"),
        (["a=1", "a:0=0"], "--feed: 'a' is given twice"),
        ("a=1", "--feed: got the text 'a=1'; in Python give a dict"),
        ({"a": [1, 2]}, r"--feed a: has shape \(2,\); give a single number"),
    ],
)
def test_what_cannot_be_read(feed: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        feed_texts(feed)


@pytest.mark.parametrize(
    ("text", "dtype", "value"),
    [("false", bool, False), ("1", bool, True), ("0.5", np.float32, 0.5), ("1", np.float16, 1.0), ("-3", np.int64, -3)],
)
def test_values(text: str, dtype: type, value: Any) -> None:
    found = feed_value("a", text, np.dtype(dtype))
    assert (found.dtype, found.shape, found.item()) == (np.dtype(dtype), (), value)


@pytest.mark.parametrize(
    ("text", "dtype", "hint"),
    [
        ("maybe", bool, "true or false"),
        ("0.5", bool, "true or false"),
        ("half", np.float32, "a number"),
        ("nan", np.float32, "a number"),
        ("1e300", np.float32, "a number"),
        ("0.5", np.int32, "a whole number"),
        ("-1", np.uint8, "a whole number"),
        ("300", np.uint8, "a whole number"),
    ],
)
def test_values_that_are_none(text: str, dtype: type, hint: str) -> None:
    with pytest.raises(UsageError, match=f"--feed a: cannot read '{text}' as {np.dtype(dtype).name}; give {hint}"):
        feed_value("a", text, np.dtype(dtype))


def test_the_hint_has_a_value_of_the_type() -> None:
    kinds = (bool, np.float32, np.int32)
    assert [feed_hint("a", np.dtype(kind)).partition("=")[2] for kind in kinds] == ["false", "1.0", "1"]
