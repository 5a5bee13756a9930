"""result.json: valid JSON whatever came out, with the keys that scripts read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Never

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.formats.codec import file_facts
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.result import CostlyLayers, Ended, SearchResult, result_facts, result_text
from autoquant.tuning.study.trial import State, Trial

PLAN = Plan({"a": LayerPlan(), "b": None})
DONE = Trial(0, State.DONE, PLAN, "test", int8_share=0.75, objective=0.25, score=0.5, drop=0.25, samples=100)
FAILED = Trial(1, State.FAILED, PLAN, "test", int8_share=0.75, objective=0.25, failure="no luck")


FACTS: dict[str, Any] = {
    "int8_share": 0.75,
    "objective": 0.25,
    "samples": 64,
    "divergences": (0.5, 0.125),
    "divergence_samples": 64,
}
RACED = Trial(3, State.STOPPED, PLAN, "race", phase="race", max_samples=64, **FACTS)
STOPPED = replace(RACED, number=2, drop=0.5, low=0.25, high=0.75, within=False, phase="", max_samples=None)
CLAIM = Certificate(
    verdict=Verdict.CERTIFIED,
    metric="top1",
    baseline=0.75,
    score=0.625,
    drop=0.125,
    upper_bound=0.25,
    max_drop=0.25,
    confidence=0.9,
    samples=200,
    method="exact",
    origin=Origin("litert 2.3.0", "xnnpack 3", "0" * 64, "1" * 64, "2" * 64),
    suspicious=False,
    losses=30,
    gains=5,
    guard=(GroupBound("left", 100, 0.125, 0.5, -0.25, 15, 2),),
    guard_max_drop=0.5,
)


def result(*trials: Trial, best: Trial | None, costly: CostlyLayers | None = None, **more: Any) -> SearchResult:
    return SearchResult(
        verdict=more.pop("verdict", Verdict.MISSED),
        metric="top1",
        baseline=0.75,
        max_drop=0.125,
        worst_score=0.625,
        best=best,
        trials=trials,
        layers=2,
        seconds=3.0,
        model=Path("run/best/m.pb") if best else None,
        run=Path("run"),
        ended=Ended.TRIALS,
        costly=costly or CostlyLayers(),
        **more,
    )


def test_keys_for_scripts() -> None:
    facts = result_facts(result(DONE, FAILED, best=DONE))
    expected = {
        "verdict": "missed",
        "baseline": 0.75,
        "score": 0.5,
        "drop": 0.25,
        "max_drop": 0.125,
        "metric": "top1",
        "int8_layers": 1,
        "layers": 2,
        "int8_share": 0.75,
        "objective": {"name": "macs", "value": 0.25},
        "qdq_ops": None,
        "latency": None,
        "trials": 2,
        "evaluated_samples": 100,
        "seconds": 3.0,
        "model": "run/best/m.pb",
        "run": "run",
        "certificate": None,
        "uncertified": "",
        "search_samples": 0,
    }
    assert {key: facts[key] for key in expected} == expected


def test_without_any_result() -> None:
    facts = result_facts(result(FAILED, best=None))
    assert [facts[key] for key in ("score", "drop", "model", "best_trial")] == [None] * 4
    assert (facts["int8_layers"], facts["int8_share"], facts["evaluated_samples"]) == (0, 0.0, 0)


@pytest.mark.parametrize(("error", "written"), [(0.5, 0.5), (math.inf, None)])
def test_every_trial_and_costly_layers(error: float, written: float | None) -> None:
    def refuse(constant: Any) -> Never:
        raise AssertionError(f"{constant} is not valid JSON")

    costly = CostlyLayers((("a", error),), "predicted")
    stored = json.loads(result_text(result(DONE, FAILED, best=DONE, costly=costly)), parse_constant=refuse)
    assert stored["costly_layers"] == [{"layer": "a", "divergence": written}]
    assert stored["costly_layers_are"] == "predicted"
    assert [(t["number"], t["state"], t["failure"]) for t in stored["all_trials"]] == [
        (0, "done", ""),
        (1, "failed", "no luck"),
    ]
    assert [(t["objective"], t["qdq_ops"]) for t in stored["all_trials"]] == [(0.25, None)] * 2


def test_a_certificate_is_as_in_its_own_file() -> None:
    facts = json.loads(result_text(result(DONE, best=DONE, verdict=Verdict.CERTIFIED, certificate=CLAIM)))
    assert facts["verdict"] == facts["certificate"]["verdict"] == "certified"
    assert facts["certificate"] == json.loads(json.dumps(file_facts(CLAIM)))


def test_why_there_is_no_certificate() -> None:
    facts = result_facts(result(DONE, best=DONE, verdict=Verdict.MET, uncertified="too few", search_samples=40))
    assert [facts[key] for key in ("verdict", "certificate", "uncertified", "search_samples")] == [
        "met, not certified",
        None,
        "too few",
        40,
    ]


def test_facts_of_trials_that_were_stopped_early() -> None:
    stored = json.loads(result_text(result(STOPPED, RACED, best=STOPPED)))
    assert stored["evaluated_samples"] == 128
    keys = ("state", "score", "drop", "low", "high", "within", "samples", "divergence", "divergence_samples", "phase")
    assert [[trial[key] for key in keys] for trial in stored["all_trials"]] == [
        ["stopped", None, 0.5, 0.25, 0.75, False, 64, 0.125, 64, ""],
        ["stopped", None, None, None, None, None, 64, 0.125, 64, "race"],
    ]
