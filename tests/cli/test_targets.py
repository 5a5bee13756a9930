"""Commands and targets: impossible ones are told early, and a .tflite needs no TensorFlow."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from autoquant.cli import process
from autoquant.cli.export import written
from autoquant.cli.main import main
from autoquant.cli.process import prepared
from autoquant.model.model import is_lite

NOT_FOR_TENSORFLOW = "is a .tflite, of which --target tensorflow can make nothing; give --target litert"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Takes down when TensorFlow is loaded, instead of doing so."""
    seen: list[str] = []
    monkeypatch.setattr(process, "import_tensorflow", lambda *, verbose: seen.append("loaded"))
    return seen


@pytest.mark.parametrize(
    ("model", "needed"),
    [
        ("m.pb", True),
        ("m.keras", True),
        ("folder", True),
        ("m.tflite.pb", True),
        ("a/m.tflite", False),
        ("M.TFLITE", False),
    ],
)
def test_only_a_tflite_needs_no_tensorflow(
    model: str, needed: bool, loaded: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert is_lite(model) is is_lite(Path(model)) is not needed
    with prepared(argparse.Namespace(quiet=False, verbose=False), model):
        pass
    assert loaded == ["loaded"] * needed
    assert ("loading TensorFlow" in capfd.readouterr().err) is needed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("search m.tflite --data d --tolerance 1%", f"m.tflite: {NOT_FOR_TENSORFLOW}"),
        ("search m.pb --data d --tolerance 1% --target litrt", "--target: unknown 'litrt'; did you mean 'litert'?"),
        ("search m.pb --data d --tolerance 1% --io int8", "--io int8: is not offered for --target tensorflow"),
        ("search m.pb --data d --tolerance 1% --io int", "--io: unknown 'int'; did you mean 'int8'?"),
        (
            "search m.pb --data d --tolerance 1% --engine gpu",
            "--engine: unknown 'gpu'; it can be auto, litert, tensorf",
        ),
        (
            "search m.pb --data d --tolerance 1% --target litert --engine tensorflow",
            "--engine tensorflow: cannot run what --target litert saves; leave it out",
        ),
        ("search m.pb --data d --tolerance 1% --objective latency", "--objective latency: is measured on this machine"),
        ("search m.pb --data d --tolerance 1% --max-trials 0", "--max-trials: must be at least 1, got 0"),
        ("quantize m.tflite --config c --calibration d --to out", f"m.tflite: {NOT_FOR_TENSORFLOW}"),
        (
            "quantize m.pb --config c --calibration d --to out --io int8",
            "--io int8: is not offered for --target tensorflow",
        ),
        (
            "quantize m.pb --config c --calibration d --to out --target x",
            "--target: unknown 'x'; it can be litert, ten",
        ),
        ("demo --target lite", "--target: unknown 'lite'; did you mean 'litert'?"),
    ],
)
def test_impossible_targets_are_told_before_tensorflow_is_imported(
    words: str, message: str, loaded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"autoquant: error: {message}")
    assert not loaded
    assert not list(Path().iterdir())


@pytest.mark.usefixtures("tensorflow")
@pytest.mark.parametrize(("model", "needed"), [("m.pb", True), ("m.tflite", False)])
def test_resume_asks_the_run_for_its_model(
    model: str, needed: bool, loaded: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """The model is another one: that is told after TensorFlow was loaded, or was not."""
    Path(model).write_bytes(b"no model")
    digests = "\n".join(f'{name} = "{"0" * 64}"' for name in ("model", "data", "calibration", "metric"))
    request = f'model = "{model}"\ndata = "d.npz"\ntolerance = "1%"\ntarget = "litert"\nio = "float32"'
    Path("run").mkdir()
    Path("run/run.toml").write_text(f"[request]\n{request}\n[digests]\n{digests}\n")
    assert main(["resume", "run"]) == 2
    assert f"the model ({model}) is not what the run was started with" in capfd.readouterr().err
    assert loaded == ["loaded"] * needed


@pytest.mark.parametrize(("model", "lines"), [("m_quantized.pb", 4), ("m_int8.tflite", 3)])
def test_only_a_graph_comes_with_a_mapping(model: str, lines: int) -> None:
    from autoquant.tuning.export import Export

    folder = Path("out")
    text = written(Export(folder, folder / "config.json", folder / "record.txt", folder / model))
    assert len(text.splitlines()) == lines
    assert ("mapping out/m_quant.json" in text) is (lines == 4)
