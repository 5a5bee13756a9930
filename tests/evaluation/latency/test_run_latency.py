"""The latency of a run's best beside the float model's: measured at the end, and never in the way of the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Never

import pytest
from tiny_model import Tiny

import autoquant
from autoquant.errors import ModelError
from autoquant.tuning import finalize, trials
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import Ended


@pytest.fixture
def options(tiny: Tiny, tmp_path: Path) -> dict[str, Any]:
    data = {"data": tiny.evaluation, "calibration": tiny.calibration}
    return {"model": tiny.model, **data, "tolerance": 1.0, "run": tmp_path / "run", "batch_size": 50, "certify": "none"}


def test_both_are_measured_and_written_down(options: dict[str, Any]) -> None:
    result = autoquant.search(**options, target="litert")
    latency = result.latency
    assert latency is not None
    assert [model.name for model in latency.models] == ["FP32", "INT8"]
    assert (latency.threads, latency.batch_size) == (1, 1)
    assert {"conv", "depthwise", "dense"} < {one.name for one in latency.operators}
    stored = json.loads((result.run / "result.json").read_text())["latency"]
    assert [model["name"] for model in stored["models"]] == ["FP32", "INT8"]
    assert stored["models"][1]["seconds"]["median"] == latency.models[1].seconds.median
    assert stored["models"][1]["speed"]["lower_quartile"] == latency.models[1].speed.lower_quartile
    assert stored["statements"] == list(latency.statements)
    assert (stored["threads"], stored["batch_size"], stored["rounds"]) == (1, 1, latency.rounds)
    assert stored["operators"][0]["seconds"] == list(latency.operators[0].seconds)


def test_the_target_tensorflow_has_none(options: dict[str, Any]) -> None:
    result = autoquant.search(**options, target="tensorflow", max_trials=1)
    assert result.latency is None
    assert json.loads((result.run / "result.json").read_text())["latency"] is None


@pytest.mark.parametrize(
    ("trouble", "ended", "warned"),
    [
        (KeyboardInterrupt(), Ended.INTERRUPTED, ()),
        (
            ModelError("FP32", "does not run", hint="why"),
            Ended.NOTHING_BETTER,
            ("latency could not be measured: FP32: does not run; why",),
        ),
        (OSError("gone"), Ended.NOTHING_BETTER, ("latency could not be measured: gone",)),
    ],
    ids=["Ctrl-C", "a model that does not run", "no file"],
)
def test_the_result_is_never_lost(
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    trouble: BaseException,
    ended: Ended,
    warned: tuple[str, ...],
) -> None:
    def measured(*_: object) -> Never:
        raise trouble

    monkeypatch.setattr(finalize, "run_latency", measured)
    result = autoquant.search(**options, target="litert")
    assert (result.verdict, result.ended, result.latency) == (Verdict.MET, ended, None)
    assert tuple(text for text in result.warnings if "latency" in text) == warned


def test_a_search_that_is_interrupted_measures_nothing(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> Never:
        raise AssertionError("it has no time for that")

    def interrupted(*_: object) -> Never:
        raise KeyboardInterrupt

    monkeypatch.setattr(finalize, "run_latency", measured)
    monkeypatch.setattr(trials, "reason_to_end", interrupted)
    result = autoquant.search(**options, target="litert")
    assert (result.ended, result.latency) == (Ended.INTERRUPTED, None)
