from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.tuning.study.run_toml import toml_text

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALAR = TEXT | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
KEY = st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True)
TABLE = st.dictionaries(KEY, SCALAR | st.lists(SCALAR, max_size=4), max_size=5)


@given(st.dictionaries(KEY, TABLE, max_size=3))
def test_any_table(table: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(table)) == table


@pytest.mark.parametrize(
    "text",
    [
        "C:\\Users\\new\\test.pb",
        "größe/モデル.pb",
        "a \"quoted\" 'name'",
        "".join(map(chr, range(32))) + "\x7f\x80\x85\u2028",
        "line\r\nend\n",
        "😀 # no comment",
        "\\u0041",
        "",
    ],
)
def test_strings(text: str) -> None:
    assert tomllib.loads(toml_text({"request": {"model": text, "several": [text, text]}})) == {
        "request": {"model": text, "several": [text, text]}
    }
