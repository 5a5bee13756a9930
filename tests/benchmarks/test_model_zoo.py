"""Small rows of the model zoo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import model_zoo
import pytest
from zoo_networks import images


def test_rows_of_a_small_network(tmp_path: Path, capsys: pytest.CaptureFixture[str], tensorflow: Any) -> None:
    model_zoo.main(["--networks", "tabular", "--targets", "litert", "--folder", str(tmp_path)])
    heading, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert heading == list(model_zoo.HEADINGS)
    rows = {line[1]: dict(zip(heading, line, strict=True)) for line in lines}
    assert list(rows) == ["litert", "TFLiteConverter", "LiteRT Quantizer"]
    # Nothing but float is left to the first layer, which reads raw features: a search is told so, others are not.
    assert "leave the layer in float" in rows["litert"]["note"]
    assert all("failed to prepare" in rows[by]["note"] for by in ("TFLiteConverter", "LiteRT Quantizer"))


def test_images_differ() -> None:
    assert images(32, 4).std(axis=0).min() > 1.0
