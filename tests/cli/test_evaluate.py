"""`autoquant evaluate`: what is shown, and how it ends."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from made_certificates import DIGEST, made_certificate
from tiny_model import Tiny

from autoquant.cli.evaluate import exit_code, text
from autoquant.cli.main import main
from autoquant.evaluation.scoring.changes import LostSample, SampleChanges
from autoquant.evaluation.statistics.paired import EXACT, GroupBound
from autoquant.tuning.certification.certificate import Verdict, load_certificate
from autoquant.tuning.evaluation.result import Evaluation, ModelScore

FIRST = ModelScore(
    name="net.pb", path="net.pb", digest=DIGEST, engine="tensorflow 2.21.0", kernels="stock kernels", score=0.875
)
INT8 = ModelScore(
    name="net.tflite",
    path="net.tflite",
    digest=DIGEST,
    engine="litert 2.3.0",
    kernels="xnnpack 9",
    score=0.75,
    drop=0.125,
    lower_bound=0.03125,
    upper_bound=0.25,
    method=EXACT,
    losses=12,
    gains=2,
    guard=(GroupBound("1", 40, 0.25, 0.5, 0.125), GroupBound("0", 40, 0.0, 0.25, -0.25)),
    changes=SampleChanges(80, 12, 2, answers=15),
    lost=tuple(LostSample(number, f"cat/{number}.png" if number else "") for number in range(12)),
    verdict=Verdict.MET,
    notes=("FakeQuants of activations were removed",),
)
FOUND = Evaluation(
    metric="top1",
    samples=80,
    data=DIGEST,
    models=(FIRST, INT8),
    confidence=0.95,
    max_drop=0.125,
    guard_max_drop=0.25,
    warnings=("a warning",),
)


def lines(found: Evaluation) -> list[str]:
    return [line.rstrip() for line in text(found).splitlines()]


def test_the_screen() -> None:
    assert lines(FOUND) == [
        "met      net.tflite: top1 0.7500, within 0.1250 of net.pb",
        "warning  a warning",
        "",
        "model       runs on              top1    drop  at least  at most  lost  won",
        "net.pb      tensorflow 2.21.0  0.8750       -         -        -     -    -",
        "net.tflite  litert 2.3.0       0.7500  0.1250    0.0312   0.2500    12    2",
        "on 80 samples, SHA-256 abababababab",
        "at least, at most: one-sided bounds of the true drop, each with 95% confidence; exact paired (trinomial)",
        "",
        "changed  net.tflite: 12 samples lost, 2 won; 15 samples with another class",
        "lost     0, cat/1.png, cat/2.png, cat/3.png, cat/4.png, cat/5.png, cat/6.png, cat/7.png, cat/8.png, cat/9.png "
        "and 2 more",
        "guard    2 groups, max drop 0.2500 each:",
        "         group    drop  at most  samples     within",
        "         1      0.2500   0.5000       40  undecided",
        "         0      0.0000   0.2500       40        yes",
        "note     net.tflite: FakeQuants of activations were removed",
    ]
    assert exit_code(FOUND) == 0


def test_without_a_tolerance_there_is_no_verdict() -> None:
    plain = replace(INT8, verdict=None, guard=(), changes=None, lost=(), notes=(), lower_bound=None)
    found = replace(FOUND, max_drop=None, guard_max_drop=None, warnings=(), models=(FIRST, plain))
    assert lines(found) == [
        "model       runs on              top1    drop  at least  at most  lost  won",
        "net.pb      tensorflow 2.21.0  0.8750       -         -        -     -    -",
        "net.tflite  litert 2.3.0       0.7500  0.1250         -   0.2500     -    -",
        "on 80 samples, SHA-256 abababababab",
        "at least, at most: one-sided bounds of the true drop, each with 95% confidence; exact paired (trinomial)",
    ]
    assert exit_code(found) == 0
    assert lines(replace(found, models=(FIRST,)))[-1] == "on 80 samples, SHA-256 abababababab"


def certified(verdict: Verdict) -> Evaluation:
    assumes = "samples are independent of each other"
    certificate = made_certificate(verdict, max_drop=0.25, losses=12, gains=2, assumes=assumes)
    one = replace(INT8, verdict=verdict, certificate=certificate)
    return replace(FOUND, models=(FIRST, one), file=Path("release/certificate.json"))


def test_a_certificate_is_shown_as_that_of_a_search() -> None:
    shown = lines(certified(Verdict.CERTIFIED))
    assert shown[0] == "certified  net.tflite: the drop is at most 0.2500 with 95% confidence"
    assert "holdout      80 samples that had no part in making the model: 12 got worse, 2 better" in shown
    assert "             measured on litert 2.3.0, xnnpack 9; bound: exact paired (trinomial)" in shown
    assert "certificate  release/certificate.json" in shown


@pytest.mark.parametrize(
    ("verdict", "code"), [(Verdict.CERTIFIED, 0), (Verdict.MET, 3), (Verdict.MISSED, 1)], ids=lambda one: str(one)
)
def test_it_ends_as_a_search_does(verdict: Verdict, code: int) -> None:
    assert exit_code(certified(verdict)) == code


@pytest.mark.parametrize(
    ("score", "drop", "shown"),
    [
        (0.5, 0.375, "missed   net.tflite: top1 0.5000, which misses by 0.2500 (max drop 0.1250)"),
        (0.8125, 0.0625, "missed   net.tflite: within 0.1250 of net.pb, but a group is not"),
    ],
)
def test_what_missed(score: float, drop: float, shown: str) -> None:
    missed = replace(INT8, verdict=Verdict.MISSED, score=score, drop=drop)
    assert lines(replace(FOUND, models=(FIRST, missed)))[0] == shown


def test_the_worst_verdict_counts() -> None:
    models = (FIRST, INT8, replace(INT8, verdict=Verdict.MISSED))
    assert replace(FOUND, models=models).verdict is Verdict.MISSED
    assert exit_code(replace(FOUND, models=models)) == 1


def test_from_files_to_json(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    Path("copy.pb").write_bytes(tiny.model.read_bytes())
    words = ["evaluate", str(tiny.model), "copy.pb", "--data", str(tiny.evaluation), "--metric", "agreement"]
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["score"]) for one in facts["models"]] == [("tiny.pb", 1.0), ("copy.pb", 1.0)]
    assert facts["verdict"] is None and facts["models"][1]["changes"]["worse"] == 0
    assert main([*words, "--tolerance", "0.2", "--certify", "release"]) == 0
    assert load_certificate(Path("release/certificate.json")).samples == 200
    assert "certified" in capsys.readouterr().out
    assert main([*words, "--tolerance", "0", "--certify", "release"]) == 3
    assert main(["evaluate", str(tiny.model), "none.tflite", "--data", str(tiny.evaluation)]) == 2
    assert "none.tflite: there is no such file" in capsys.readouterr().err
