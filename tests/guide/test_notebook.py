"""The notebook of the guide runs from the top, in a kernel of its own, and shows what it says."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from pages import GUIDE

import autoquant
from autoquant.guide import NOTEBOOK

FILE = GUIDE / NOTEBOOK


@pytest.fixture(scope="module")
def outputs(tensorflow: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The output of each cell that has one, by the cell's id, as a mapping of MIME type -> text."""
    import nbclient
    import nbformat

    folder = tmp_path_factory.mktemp("notebook")
    paths = os.pathsep.join(filter(None, [str(Path(autoquant.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Jupyter, about itself
        notebook: Any = nbformat.read(FILE, as_version=4)  # type: ignore[no-untyped-call]  # it has no types
        nbformat.validate(notebook)
        client = nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
        client.execute(env={**os.environ, "PYTHONPATH": paths, "JUPYTER_PLATFORM_DIRS": "1"})
    found: dict[str, Any] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if output.output_type == "execute_result":
                found[cell.id] = dict(output.data)
    found["folder"] = folder
    return found


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(FILE.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if "outputs" in cell)


def test_the_result_is_shown(outputs: dict[str, Any]) -> None:
    assert outputs["search"]["text/plain"].startswith("<SearchResult ")
    assert '<div class="autoquant">' in outputs["search"]["text/html"]
    assert "layers run in INT8" in outputs["search"]["text/html"]
    assert "<table" in outputs["trials"]["text/html"]
    assert outputs["inspect"]["text/plain"] == "<Inspection of digits: 3 layers can be INT8, with their sensitivity>"


def test_the_model_is_as_good_as_the_result_says(outputs: dict[str, Any]) -> None:
    assert float(outputs["load"]["text/plain"]) > 0.8


def test_the_models_are_compared(outputs: dict[str, Any]) -> None:
    first, float_model, int8, *_ = outputs["evaluate"]["text/plain"].splitlines()
    assert first.startswith("<Evaluation: top1 of 897 samples, max drop 0.0")
    assert float_model.startswith(" digits.keras: 0.") and int8.startswith(" digits: 0.")
    assert f"{float(outputs['load']['text/plain']):.4f}" in int8


def test_the_files_are_written(outputs: dict[str, Any]) -> None:
    for name in ("release", "release-2"):
        assert (outputs["folder"] / name / "digits_quantized.pb").is_file()
        assert (outputs["folder"] / name / "record.txt").is_file()
