"""Dataclasses as JSON objects and back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import RunError
from autoquant.formats.codec import ELSEWHERE, decode, encode, json_object_text, json_text, without_nulls
from autoquant.formats.strict import Fields, json_object


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Part:
    label: str
    bound: float = math.inf

    def __post_init__(self) -> None:
        if self.label == "bad":
            raise ValueError("no label is 'bad'")


@dataclass(frozen=True)
class Whole:
    number: int
    colour: Colour
    share: float = 0.5
    known: bool | None = None
    parts: tuple[Part, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    secret: str = field(default="", metadata=ELSEWHERE)


numbers = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(max_size=4).filter(lambda text: text != "bad")
wholes = st.builds(
    Whole,
    st.integers(),
    st.sampled_from(Colour),
    numbers,
    st.none() | st.booleans(),
    st.lists(st.builds(Part, words, numbers | st.just(math.inf)), max_size=3).map(tuple),
    st.dictionaries(words, numbers, max_size=3),
    words,
)
WHOLE = Whole(3, Colour.BLUE, parts=(Part("a"), Part("b", 1.5)), secret="s")


def read(text: str) -> Whole:
    return decode(Whole, json_object(text, "file", RunError, hint="write it again"), secret="s")


@given(wholes)
def test_decoding_inverts_encoding(whole: Whole) -> None:
    for facts in (encode(whole), without_nulls(encode(whole))):
        found = json_object(json_text(facts), "file", RunError, hint="")
        assert decode(Whole, found, secret=whole.secret) == whole
        found.done()


def test_missing_values_are_null_and_fields_stored_elsewhere_are_left_out() -> None:
    assert encode(WHOLE) == {
        "number": 3,
        "colour": "blue",
        "share": 0.5,
        "known": None,
        "parts": [{"label": "a", "bound": None}, {"label": "b", "bound": 1.5}],
        "seconds": {},
    }
    assert without_nulls(encode(WHOLE))["parts"] == [{"label": "a"}, {"label": "b", "bound": 1.5}]


def test_an_infinite_number_that_is_no_default_is_no_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(encode(Whole(1, Colour.RED, share=math.inf)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"number": None}, r"file:\$\.number: is missing, expected int; add \"number\""),
        ({"colour": None}, r"file:\$\.colour: is missing, expected str"),
        ({"number": 1.5}, r"file:\$\.number: expected int, got 1\.5"),
        ({"number": True}, r"file:\$\.number: expected int, got True"),
        ({"colour": "rad"}, r"file:\$\.colour: unknown 'rad'; try 'red'"),
        ({"colour": ["red"]}, r"file:\$\.colour: unknown \['red'\]"),
        ({"share": "half"}, r"file:\$\.share: expected float, got 'half'"),
        ({"parts": "ab"}, r"file:\$\.parts: expected list, got 'ab'"),
        ({"parts": ["a"]}, r"file:\$\.parts\[0\]: expected an object, got 'a'"),
        ({"parts": [{"label": "a"}, {}]}, r"file:\$\.parts\[1\]\.label: is missing"),
        ({"parts": [{"label": "a", "more": 1}]}, r"file:\$\.parts\[0\]\.more: unknown key"),
        ({"parts": [{"label": "bad"}]}, r"file:\$\.parts\[0\]: no label is 'bad'"),
        ({"seconds": [1]}, r"file:\$\.seconds: expected an object, got \[1\]"),
        ({"seconds": {"score": "1s"}}, r"file:\$\.seconds\.score: expected float, got '1s'"),
    ],
)
def test_errors_name_their_place(changed: dict[str, object], message: str) -> None:
    with pytest.raises(RunError, match=message):
        read(json.dumps({**encode(WHOLE), **changed}))


def test_a_number_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(RunError, match=r"\.share: must be finite"):
        read(json_text(encode(WHOLE)).replace("0.5", "1e999"))


def test_other_keys_are_left_for_whoever_reads_the_object() -> None:
    found = Fields({**encode(WHOLE), "version": 1}, "file:$", RunError)
    assert decode(Whole, found, secret="s") == WHOLE
    with pytest.raises(RunError, match=r"\.version: unknown key"):
        found.done()
    assert found.take("version", 0) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_an_object_of_texts_is_the_text_of_the_object(facts: dict[str, object]) -> None:
    assert json_object_text({name: json_text(value) for name, value in facts.items()}) == json_text(facts)
