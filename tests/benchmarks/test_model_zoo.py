"""Small rows of the model zoo."""

from __future__ import annotations

import io
import json
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import model_zoo
import pytest
from zoo_networks import images


def in_this_process(step: str, folder: Path, by: str) -> tuple[model_zoo.Row, float]:
    with redirect_stdout(io.StringIO()) as said, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of converters, which only a test makes errors of
        try:
            model_zoo.main(["--folder", str(folder), "--step", step, "--by", by])
        except Exception as error:  # the end of a process of its own
            return model_zoo.Row(note=f"failed: {error}"), 0.0
    return model_zoo.Row(**json.loads(said.getvalue().splitlines()[-1])["row"]), 0.0


def test_rows_of_a_small_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tensorflow: Any
) -> None:
    """Each step in this process, which has loaded TensorFlow."""
    monkeypatch.setattr(model_zoo, "in_a_process", in_this_process)
    model_zoo.main(["--networks", "tabular", "--targets", "litert", "--folder", str(tmp_path)])
    heading, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert heading == list(model_zoo.HEADINGS)
    rows = {line[1]: dict(zip(heading, line, strict=True)) for line in lines}
    assert list(rows) == ["litert", "TFLiteConverter", "LiteRT Quantizer"]
    # Nothing but float is left to the first layer, which reads raw features: a search is told so, others are not.
    assert "leave the layer in float" in rows["litert"]["note"]
    assert all("failed to prepare" in rows[by]["note"] for by in ("TFLiteConverter", "LiteRT Quantizer"))


def test_a_step_that_fails_in_its_process_is_a_note(tmp_path: Path) -> None:
    row, gigabytes = model_zoo.in_a_process("none", tmp_path, "litert")
    assert row.note.startswith("failed: ") and "none" in row.note and gigabytes == 0.0


def test_images_differ() -> None:
    assert images(32, 4).std(axis=0).min() > 1.0
