from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import PlanError, RunError
from autoquant.formats.codec import save
from autoquant.formats.quant_json import (
    QuantJson,
    load_quant_json,
    quant_json_path,
)

DIGEST = "0123456789abcdef" * 4
names = st.text(min_size=1, max_size=8)
values = st.builds(
    QuantJson,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.dictionaries(names, st.lists(names, min_size=1, max_size=3).map(tuple), max_size=4),
)


@given(values)
def test_reading_inverts_writing(value: QuantJson) -> None:
    with TemporaryDirectory() as folder:
        save(value, Path(folder) / "file")
        assert load_quant_json(Path(folder) / "file") == value


def test_the_file_is_plain_json(tmp_path: Path) -> None:
    save(QuantJson(DIGEST, {"y": ("conv", "bias"), "a/b": ("a",)}), tmp_path / "net_quant.json")
    assert json.loads((tmp_path / "net_quant.json").read_text()) == {
        "version": 1,
        "sha256": DIGEST,
        "nodes": {"a/b": ["a"], "y": ["conv", "bias"]},
    }
    assert load_quant_json(tmp_path / "net_quant.json").nodes["y"] == ("conv", "bias")


@pytest.mark.parametrize(
    ("model", "mapping"),
    [
        ("net_quantized.pb", "net_quant.json"),
        ("a.b_quantized.pb", "a.b_quant.json"),
        ("net_quantized_quantized.pb", "net_quantized_quant.json"),
        ("other.pb", "other_quant.json"),
        ("bare", "bare_quant.json"),
    ],
)
def test_it_is_beside_its_model(model: str, mapping: str) -> None:
    assert quant_json_path(Path("folder") / model) == Path("folder") / mapping


GOOD = {"version": 1, "sha256": DIGEST, "nodes": {"y": ["conv"]}}
WRONG = {
    "no JSON": ("{", "file: is not valid JSON: "),
    "too deep": ("[" * 100_000, "file: is not valid JSON: "),
    "a list": ("[]", "file:$: expected an object"),
    "twice": ('{"version": 1, "version": 1}', "the key 'version' appears twice"),
    "twice inside": ('{"nodes": {"a": ["b"], "a": ["b"]}}', "the key 'a' appears twice"),
    "unknown key": ({**GOOD, "more": 1}, "file:$.more: unknown key"),
    "no version": ({key: GOOD[key] for key in ("sha256", "nodes")}, "file:$.version: unknown 0"),
    "version 2": ({**GOOD, "version": 2}, "file:$.version: unknown 2"),
    "no digest": ({key: GOOD[key] for key in ("version", "nodes")}, "file:$.sha256: is missing"),
    "short digest": ({**GOOD, "sha256": "ab"}, "file:$: sha256 has 64 hexadecimal digits, got 'ab'"),
    "capital digest": ({**GOOD, "sha256": "A" * 64}, "file:$: sha256 has 64 hexadecimal digits"),
    "no nodes": ({key: GOOD[key] for key in ("version", "sha256")}, "file:$.nodes: is missing, expected an object"),
    "a name": ({**GOOD, "nodes": {"y": "conv"}}, "file:$.nodes.y: expected list, got 'conv'"),
    "a number": ({**GOOD, "nodes": {"y": ["conv", 1]}}, "file:$.nodes.y[1]: expected str, got 1"),
    "stands for nothing": ({**GOOD, "nodes": {"y": []}}, "file:$: a node stands for one other at least"),
    "no name": ({**GOOD, "nodes": {"": ["y"]}}, "file:$: a node stands for one other at least"),
    "NaN": ('{"version": NaN}', "file: is not valid JSON: NaN is not a number"),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_anything_else_is_refused(content: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(PlanError) as error:
        load_quant_json(Path("file"))
    assert message in str(error.value)
    assert error.value.hint


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="cannot be read"):
        load_quant_json(tmp_path / "nothing")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(PlanError, match="cannot be read"):
        load_quant_json(tmp_path / "bytes")
    with pytest.raises(RunError, match="cannot be written"):
        save(QuantJson(DIGEST, {}), tmp_path / "bytes" / "file")
