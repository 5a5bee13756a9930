"""result.json: valid JSON whatever came out, with the keys that scripts read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.reports.result_json import result_facts, result_text
from autoquant.tuning.result import Ended, SearchResult, State, Trial, Verdict

PLAN = Plan({"a": LayerPlan(), "b": None})
DONE = Trial(0, State.DONE, PLAN, "test", 1, 0.75, 0.25, score=0.5, drop=0.25, samples=100)
FAILED = Trial(1, State.FAILED, PLAN, "test", 1, 0.75, 0.25, reason="no luck")


def result(*trials: Trial, best: Trial | None, costly=()) -> SearchResult:
    return SearchResult(
        verdict=Verdict.MISSED,
        metric="top1",
        baseline=0.75,
        tolerance=0.125,
        limit=0.625,
        best=best,
        trials=trials,
        layers=2,
        seconds=3.0,
        model=Path("run/best/m.pb") if best else None,
        run=Path("run"),
        ended=Ended.TRIALS,
        costly=costly,
    )


def test_keys_for_scripts():
    facts = result_facts(result(DONE, FAILED, best=DONE))
    expected = {
        "verdict": "missed",
        "baseline": 0.75,
        "score": 0.5,
        "drop": 0.25,
        "tolerance": 0.125,
        "metric": "top1",
        "int8_layers": 1,
        "layers": 2,
        "int8_share": 0.75,
        "objective": {"name": "macs", "value": 0.25},
        "boundaries": None,
        "latency": None,
        "trials": 2,
        "evaluated_samples": 100,
        "seconds": 3.0,
        "model": "run/best/m.pb",
        "run": "run",
    }
    assert {key: facts[key] for key in expected} == expected


def test_without_any_result():
    facts = result_facts(result(FAILED, best=None))
    assert [facts[key] for key in ("score", "drop", "model", "best_trial")] == [None] * 4
    assert (facts["int8_layers"], facts["int8_share"], facts["evaluated_samples"]) == (0, 0.0, 0)


@pytest.mark.parametrize(("error", "written"), [(0.5, 0.5), (math.inf, None)])
def test_every_trial_and_costly_layers(error: float, written: float | None):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    stored = json.loads(result_text(result(DONE, FAILED, best=DONE, costly=(("a", error),))), parse_constant=refuse)
    assert stored["costly_layers"] == [{"layer": "a", "relative_error": written}]
    assert [(t["number"], t["state"], t["reason"]) for t in stored["all_trials"]] == [
        (0, "done", ""),
        (1, "failed", "no luck"),
    ]
    assert [(t["objective"], t["boundaries"]) for t in stored["all_trials"]] == [(0.25, None)] * 2
