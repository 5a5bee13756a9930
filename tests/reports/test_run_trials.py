"""Reading a run's folder as a search leaves it, or a crash, or a hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.errors import RunError
from autoquant.formats.codec import save
from autoquant.formats.config_json import save_config
from autoquant.reports.explanation import read_trials
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State, Terms, write_score

PLAN = Plan({"conv": LayerPlan(dmq=0.5), "fc": None}, batch_num=4, equalize=True)
TERMS = Terms("top1", 0.75, 0.125, "litert", "litert", "macs")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run without trials."""
    made = RunFolder(tmp_path / "run")
    made.create()
    made.write_request({"request": {"model": "net.pb"}})
    return made


@pytest.fixture
def add(run: RunFolder, ended: Any) -> Callable[..., Any]:
    """Adds a trial to the run."""

    def make(number: int, **facts: Any) -> Any:
        trial = ended(number, PLAN, **facts)
        folder = run.make_trial(number)
        save_config(PLAN, folder / "config.json")
        write_score(folder, trial, TERMS)
        return trial

    return make


def edited(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


def test_trials_that_a_search_wrote_are_read_unchanged(run: RunFolder, add: Callable[..., Any]) -> None:
    seconds = {"score": 2.0, "quantize": 0.5, "calibrate": 1.0}
    trials = (
        add(
            0,
            score=0.5,
            samples=80,
            seconds=seconds,
            divergences=(0.25,),
            divergence_samples=64,
            qdq_ops=2,
            phase="settings",
        ),
        add(1, drop=0.5, samples=32, seconds={"score": 1.0}, max_samples=32, phase="race"),
        add(2),
        add(3, state=State.FAILED, failure="conv: overflow", at_fault="conv", seconds={"failed": 0.25}),
        add(12, score=0.75, samples=80),
    )
    found = read_trials(run.path)
    assert found.trials == trials
    assert found.terms == TERMS
    assert found.unended == 0
    assert found.certificate is None
    assert (found.best, found.samples) == (trials[4], 192)
    assert list(found.seconds.items()) == [("quantize", 0.5), ("calibrate", 1.0), ("score", 3.0), ("failed", 0.25)]


def best_number(run: RunFolder) -> int | None:
    best = read_trials(run.path).best
    return None if best is None else best.number


def test_best_is_where_the_link_points_and_otherwise_what_would_be_kept(
    run: RunFolder, add: Callable[..., Any]
) -> None:
    add(0, score=0.7)
    add(1, score=0.75)
    run.point_best(0)
    assert best_number(run) == 0
    run.best.unlink()
    assert best_number(run) == 1
    run.best.mkdir()  # what a copy makes that follows links
    assert best_number(run) == 1


def test_a_trial_that_runs_or_was_cut_off_is_counted_and_no_more(run: RunFolder, add: Callable[..., Any]) -> None:
    add(0, state=State.FAILED, failure="out of memory")
    run.make_trial(1)
    found = read_trials(run.path)
    assert (len(found.trials), found.unended, found.best) == (1, 1, None)


CERTIFICATE = Certificate(
    verdict=Verdict.CERTIFIED,
    metric="top1",
    baseline=0.875,
    score=0.875,
    drop=0.0,
    upper_bound=0.0625,
    max_drop=0.125,
    confidence=0.95,
    samples=80,
    method="exact paired (trinomial)",
    origin=Origin("litert", "XNNPACK", "a" * 64, "b" * 64, "c" * 64),
    suspicious=False,
)


def test_a_certificate_is_read_where_there_is_one(run: RunFolder, add: Callable[..., Any]) -> None:
    add(0, score=0.75)
    path = run.trial(0) / "certificate.json"
    save(CERTIFICATE, path)
    assert read_trials(run.path).certificate == CERTIFICATE
    path.write_text("{}")
    with pytest.raises(RunError, match=r"certificate.json"):
        read_trials(run.path)


def test_where_there_is_nothing_to_read(tmp_path: Path, run: RunFolder) -> None:
    with pytest.raises(RunError, match="is not a run"):
        read_trials(tmp_path)
    with pytest.raises(RunError, match="no trial of it has ended yet; wait, or go on"):
        read_trials(run.path)
    run.make_trial(0)
    with pytest.raises(RunError, match="no trial of it has ended yet"):
        read_trials(run.path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("score.json", content) for content in (b"", b"{", b"[]", b"{}", b"\xff", b'{"drop": NaN}')),
        *(("config.json", content) for content in (b"", b"{", b"[]", b"\xff", b'{"batch_num": 0}')),
    ],
)
def test_a_trial_with_a_damaged_file_is_left_out_and_named(
    run: RunFolder, add: Callable[..., Any], name: Any, content: Any
) -> None:
    add(0, score=0.75)
    add(1, score=0.75)
    path = run.trial(1) / name
    path.write_bytes(content)
    found = read_trials(run.path)
    assert [trial.number for trial in found.trials] == [0]
    (told,) = found.damaged
    assert str(path) in told
    assert "`autoquant resume` goes on with the run, and writes it again" in told


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"drop": "much"}, r"\.drop: expected float, got 'much'"),
        ({"state": "dome"}, r"\.state: unknown 'dome'"),
        ({"drop": None}, "a trial that is done has a drop"),
        ({"seconds": [1]}, r"\.seconds: expected an object"),
        ({"seconds": {"score": "1s"}}, r"\.seconds\.score: expected float"),
        ({"version": 2}, r"\.version: unknown 2"),
        ({"number": None}, r"\.number: is missing"),
        ({"max_drop": None}, r"\.max_drop: is missing"),
    ],
)
def test_a_fact_that_is_wrong_is_named(run: RunFolder, add: Callable[..., Any], facts: Any, message: Any) -> None:
    add(0, score=0.75)
    edited(run.trial(0) / "score.json", **facts)
    with pytest.raises(RunError, match=message):
        read_trials(run.path)


def test_a_config_that_is_gone_is_named(run: RunFolder, add: Callable[..., Any]) -> None:
    add(0, score=0.75)
    (run.trial(0) / "config.json").unlink()
    with pytest.raises(RunError, match=r"config\.json: cannot be read"):
        read_trials(run.path)


def test_facts_that_other_versions_add_or_lack_do_no_harm(run: RunFolder, add: Callable[..., Any]) -> None:
    trial = add(0, score=0.75)
    path = run.trial(0) / "score.json"
    edited(path, verification={"samples": 200})
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in facts.items() if key not in ("at_fault", "phase")}))
    assert read_trials(run.path).trials == (trial,)
