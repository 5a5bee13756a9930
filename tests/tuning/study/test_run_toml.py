"""run.toml that was edited or damaged: one sentence that names the file and the value."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import RunError
from autoquant.tuning.study.request import TRUST_MODEL, SearchRequest
from autoquant.tuning.study.run_toml import KINDS, read_run_toml, toml_text

REQUEST = SearchRequest(
    model="m.pb",
    data="d.npz",
    calibration="c.npz",
    scale=(1.0, 2.0),
    image_size=(8, 8),
    inputs=("a",),
    timeout=5,
    trial_timeout=3.5,
    isolate=True,
)
TABLES: dict[str, dict[str, Any]] = {
    "request": REQUEST.as_table(),
    "digests": dict.fromkeys(("model", "data", "calibration", "metric"), "0" * 64),
    "engine": {"name": "litert", "version": "LiteRT 2.3"},
}


def written(folder: Path, tables: dict[str, dict[str, Any]]) -> Path:
    path = folder / "run.toml"
    path.write_text(toml_text(tables), encoding="utf-8")
    return path


def test_written_and_read(tmp_path: Path) -> None:
    tables = read_run_toml(written(tmp_path, TABLES))
    assert tables == TABLES
    assert SearchRequest.from_table(tables["request"], "run.toml") == REQUEST


def test_every_field_has_a_kind() -> None:
    assert {entry.name for entry in fields(SearchRequest)} - {TRUST_MODEL} == KINDS.keys()  # which no run.toml says


@pytest.mark.parametrize(
    ("table", "key", "value", "what"),
    [
        ("request", "seed", 1.5, "must be a whole number, got 1.5"),
        ("request", "model", 5, "must be a text, got 5"),
        ("request", "timeout", "2h", "must be a number, got '2h'"),
        ("request", "stop_on_target", 1, "must be true or false, got 1"),
        ("request", "inputs", "a", "must be a list of texts, got 'a'"),
        ("request", "image_size", [8], "must be two whole numbers, got [8]"),
        ("request", "scale", [True], "must be a number, a text or a list of numbers, got [True]"),
        ("digests", "data", "abc", "must be a SHA-256 in hex, got 'abc'"),
        ("engine", "name", 1, "must be a text, got 1"),
    ],
)
def test_a_value_of_another_kind(tmp_path: Path, table: str, key: str, value: object, what: str) -> None:
    path = written(tmp_path, {**TABLES, table: {**TABLES[table], key: value}})
    with pytest.raises(RunError) as caught:
        read_run_toml(path)
    assert str(caught.value).startswith(f"{path}:{table}.{key}: {what}; was it edited?")


@pytest.mark.parametrize(
    ("table", "key"),
    [("request", "model"), ("request", "tolerance"), ("digests", "metric"), ("engine", "name")],
)
def test_what_is_missing(tmp_path: Path, table: str, key: str) -> None:
    left = {name: value for name, value in TABLES[table].items() if name != key}
    path = written(tmp_path, {**TABLES, table: left})
    with pytest.raises(RunError, match=rf"run\.toml:{table}\.{key}: is missing"):
        read_run_toml(path)


def test_a_value_out_of_range_names_the_file() -> None:
    with pytest.raises(RunError, match=r"^run\.toml: --seed: must be at least 0, got -1; was it edited"):
        SearchRequest.from_table({**TABLES["request"], "seed": -1}, "run.toml")


VALUES = st.one_of(st.integers(-5, 5), st.floats(), st.text(max_size=5), st.booleans(), st.just([]), st.just([1, "x"]))


@given(key=st.sampled_from(sorted(KINDS)), value=VALUES)
def test_any_value_is_read_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    path = tmp_path_factory.mktemp("run") / "run.toml"
    text = toml_text({**TABLES, "request": {**TABLES["request"], key: value}})
    path.write_text(text.replace("Infinity", "inf").replace("NaN", "nan"), encoding="utf-8")
    try:
        request = SearchRequest.from_table(read_run_toml(path)["request"], str(path))
    except RunError as error:
        assert str(path) in error.where
    else:
        assert isinstance(request, SearchRequest)
