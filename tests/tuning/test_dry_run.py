"""A dry run: what it finds is what a search finds, it leaves nothing, and bad input is told as by a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_model import Tiny

import autoquant
from autoquant.cli.main import main
from autoquant.errors import DataError, RunError, TrialError
from autoquant.tuning.events import Event, TrialStarted, Warned
from autoquant.tuning.study.run_folder import RunFolder


def options(tiny: Tiny, **more: Any) -> dict[str, Any]:
    return {"model": tiny.model, "data": tiny.evaluation, "calibration": tiny.calibration, "tolerance": "50%", **more}


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_it_finds_what_a_search_finds(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    monkeypatch.chdir(tmp_path)
    heard: list[Event] = []
    given = options(tiny, target=target, max_trials=3, batch_size=20)
    found = autoquant.dry_run(**given, run="run", listener=heard.append)
    assert list(tmp_path.iterdir()) == []
    assert not any(isinstance(one, TrialStarted) for one in heard)
    result = autoquant.search(**given, run="run")
    assert (found.model, found.target, found.metric, found.layers) == ("tiny", target, result.metric, result.layers)
    assert (found.search_samples, found.tried, found.max_trials) == (result.search_samples, 40, 3)
    assert found.holdout_samples == (0 if result.certificate is None else result.certificate.samples)
    assert result.model is not None
    files = [file for file in Path("run").rglob("*") if file.is_file() and not file.is_symlink()]
    size = sum(file.stat().st_size for file in files if "best" not in file.parts)
    assert size <= found.disk < found.free_disk
    assert found.model_bytes >= result.model.stat().st_size
    assert 0.0 < found.trial < found.at_most and found.preparation < found.at_most
    assert found.memory is None or found.memory > 1e7
    engine = RunFolder(Path("run")).read_request()["engine"]
    assert found.engine == engine["version"]
    told = {one.text for one in heard if isinstance(one, Warned)}
    assert set(found.warnings) == told
    with pytest.raises(RunError, match="exists already"):
        autoquant.dry_run(**given, run="run")


def test_time_is_bounded_by_the_budget(tiny: Tiny) -> None:
    assert autoquant.dry_run(**options(tiny, timeout=0.5)).at_most == 0.5


def test_more_models_take_more_room(tiny: Tiny) -> None:
    one, three, every = (
        autoquant.dry_run(**options(tiny, max_trials=10, **more))
        for more in ({}, {"keep_models": 3}, {"keep_all_models": True})
    )
    assert one.disk < three.disk < every.disk


def test_bad_input_is_told(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError):
        autoquant.dry_run(**options(tiny, data=tmp_path / "none.npz"))

    def refuse(*_: Any) -> None:
        raise TrialError("layer", "overflows")

    monkeypatch.setattr("autoquant.tuning.builder.Builder.build", refuse)
    with pytest.raises(TrialError, match=r"tiny: no INT8 model can be built: layer: overflows"):
        autoquant.dry_run(**options(tiny))


def test_from_the_command_line(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["search", str(tiny.model), "--data", str(tiny.evaluation), "--tolerance", "1%", "--dry-run"]
    assert main([*words, "--quiet", "--junit", "out.xml"]) == 0
    shown = capsys.readouterr().out
    labels = [line.split()[0] for line in shown.splitlines() if not line.startswith(" ")]
    assert [label for label in labels if label != "warning"] == [
        "model",
        "FP32",
        "data",
        "engine",
        "time",
        "disk",
        "memory",
        "run",
    ]
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["version"], facts["model"], facts["layers"]) == (1, "tiny", 3)
    assert list(tmp_path.iterdir()) == []
