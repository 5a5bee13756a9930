from __future__ import annotations

from pathlib import Path

import pytest
from cli_files import Files

from autoquant.calibration.record import LayerRecord
from autoquant.cli.main import main
from autoquant.formats.record_text import save_record
from autoquant.model.open import open_model
from autoquant.model.survey import survey_graph
from autoquant.quantization.affine import Affine
from autoquant.targets.tensorflow import TensorFlowTarget

RECORD = {"conv1": LayerRecord(Affine(0.125, -3), (0.5,) * 4), "fc": LayerRecord(Affine(0.125, 0), (0.5,))}


@pytest.fixture
def saved(files: Files, tmp_path: Path) -> Path:
    model = open_model(files.model)
    path = tmp_path / "tiny_quantized.pb"
    TensorFlowTarget().save(model.graph, survey_graph(model.graph).by_name, RECORD, path)
    save_record(RECORD, tmp_path / "record.txt")
    return path


def test_a_good_file_is_told_line_by_line(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(saved)]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "layers     2 layers in INT8: 1 Conv2D, 1 MatMul\n"
        "weights    84\n"
        "functions  included: runs in stock TensorFlow\n"
        "mapping    matches this file\n"
        "ok\n"
    )
    assert captured.err == ""


def test_a_record_elsewhere_and_a_file_for_converters(
    files: Files, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model(files.model)
    TensorFlowTarget(simulation=False).save(model.graph, survey_graph(model.graph).by_name, RECORD, saved)
    (tmp_path / "tiny_quant.json").unlink()
    (tmp_path / "record.txt").rename(tmp_path / "other.txt")
    assert main(["check", str(saved)]) == 2
    assert "record.txt: cannot be read" in capsys.readouterr().err
    assert main(["check", str(saved), "--record", str(tmp_path / "other.txt")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == ["functions  none: for converters", "mapping    none", "ok"]


def test_a_folder_is_no_model(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(saved.parent)]) == 2
    assert "there is no such file; give a quantized .pb" in capsys.readouterr().err


def test_missing_parts_of_the_file_are_told(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_record({**RECORD, "aside": RECORD["fc"]}, saved.with_name("record.txt"))
    assert main(["check", str(saved)]) == 0
    assert capsys.readouterr().out.splitlines()[2] == "left out   in the record, not in the graph: aside"


def test_a_file_that_was_changed_ends_with_2(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = saved.read_bytes()
    save_record({**RECORD, "fc": LayerRecord(Affine(0.25, 0), (0.5,))}, saved.with_name("record.txt"))
    assert main(["check", str(saved)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    place = "autoquant: error: tiny_quantized.pb: fc/act_quant/AscendQuant.scale"
    assert captured.err.startswith(f"{place}: is 8, expected is 4; ")
    saved.write_bytes(content[:-10])
    assert main(["check", str(saved)]) == 2
    assert "is not a GraphDef, or is incomplete" in capsys.readouterr().err
