"""JUnit files: valid, whatever names there are in them, and one case for each thing that decides."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_certificates import DIGEST, made_certificate

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.cli.main import main
from autoquant.errors import AutoquantError, BaselineError, BudgetError, DataError, RunError
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.reports.junit import (
    Case,
    evaluation_cases,
    is_junit_of_ours,
    junit_report,
    junit_xml,
    search_cases,
    stored_junit,
)
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.evaluation.result import Evaluation, ModelScore
from autoquant.tuning.result import Ended, SearchResult, Shipped
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State, Trial

BEST = Trial(0, State.DONE, Plan({"conv": LayerPlan()}), "", score=0.75, drop=0.125, int8_share=1.0)
RESULT = SearchResult(
    verdict=Verdict.MET,
    metric="top1",
    baseline=0.875,
    max_drop=0.125,
    worst_score=0.75,
    best=BEST,
    trials=(BEST,),
    layers=1,
    seconds=1.0,
    model=Path("run/best/net.pb"),
    run=Path("run"),
    ended=Ended.NOTHING_BETTER,
    uncertified="too few samples",
)


def group(label: str, drop: float, low: float, high: float) -> GroupBound:
    return GroupBound(label, 40, drop, high, low)


def certificate(verdict: Verdict, *groups: GroupBound, unseen: tuple[str, ...] = ()) -> Certificate:
    guarded = {"guard": groups, "guard_max_drop": 0.25 if groups else None, "unseen": unseen}
    return made_certificate(verdict, max_drop=0.5, **guarded)


def told(cases: Iterable[Case]) -> dict[str, str]:
    """What each case says: '' passed, else in which way it did not."""

    def word(one: Case) -> str:
        return f"failure ({one.kind})" if one.failure else "error" if one.error else "skipped" if one.skipped else ""

    return {one.name: word(one) for one in cases}


GROUPS = (group("good", 0.0, -0.25, 0.125), group("open", 0.125, 0.0, 0.5), group("bad", 0.5, 0.375, 0.75))
CERTIFIED = certificate(Verdict.CERTIFIED)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (RESULT, {"baseline": "", "tolerance": "", "certificate": "failure (not certified)"}),
        (
            replace(RESULT, declined=True, uncertified="none was requested", min_baseline=0.5),
            {"baseline": "", "tolerance": "", "certificate": "skipped"},
        ),
        (
            replace(RESULT, verdict=Verdict.CERTIFIED, certificate=CERTIFIED, uncertified=""),
            {"baseline": "", "tolerance": "", "certificate": ""},
        ),
        (
            replace(RESULT, verdict=Verdict.MISSED, best=replace(BEST, drop=0.5)),
            {"baseline": "", "tolerance": "failure (missed)", "certificate": "skipped"},
        ),
        (
            replace(RESULT, verdict=Verdict.MISSED, best=None, model=None, trials=()),
            {"baseline": "", "tolerance": "failure (missed)", "certificate": "skipped"},
        ),
        (
            replace(RESULT, verdict=Verdict.MISSED, certificate=certificate(Verdict.MISSED, *GROUPS)),
            {
                "baseline": "",
                "tolerance": "",
                "certificate": "failure (missed)",
                "guard good": "",
                "guard open": "failure (not certified)",
                "guard bad": "failure (missed)",
            },
        ),
        (
            replace(RESULT, certificate=certificate(Verdict.MET, GROUPS[0], unseen=("rare",))),
            {
                "baseline": "",
                "tolerance": "",
                "certificate": "failure (not certified)",
                "guard good": "",
                "guard rare": "failure (not certified)",
            },
        ),
        (
            replace(RESULT, ended=Ended.INTERRUPTED, uncertified=""),
            {"baseline": "", "search": "error", "tolerance": "", "certificate": "failure (not certified)"},
        ),
        (
            replace(RESULT, declined=True, shipped=Shipped("float", Path("a"), DIGEST, "slow")),
            {"baseline": "", "tolerance": "", "certificate": "skipped", "speedup": "skipped"},
        ),
        (
            replace(RESULT, declined=True, shipped=Shipped("int8", Path("a"), DIGEST, "fast")),
            {"baseline": "", "tolerance": "", "certificate": "skipped", "speedup": ""},
        ),
    ],
    ids=[
        "met",
        "declined",
        "certified",
        "missed",
        "no trial",
        "groups",
        "unseen groups",
        "interrupted",
        "float is shipped",
        "INT8 is shipped",
    ],
)
def test_cases_of_a_search(result: SearchResult, expected: dict[str, str]) -> None:
    assert told(search_cases(result)) == expected


def test_why_it_is_not_certified_is_said() -> None:
    """Groups, where the whole is within its tolerance."""
    for made, said in ((certificate(Verdict.MET, *GROUPS), True), (replace(CERTIFIED, max_drop=0.2), False)):
        result = replace(RESULT, certificate=replace(made, verdict=Verdict.MET))
        (failure,) = (one.failure for one in search_cases(result) if one.name == "certificate")
        assert "at most 0.2500 with 95% confidence" in failure
        assert failure.endswith("; but not every group is within its own") == said


def test_cases_of_an_evaluation() -> None:
    first = ModelScore(name="a.pb", path="a.pb", digest=DIGEST, engine="tensorflow", kernels="", score=0.875)
    one = replace(first, name="b.tflite", score=0.75, drop=0.125, guard=GROUPS, verdict=Verdict.MISSED)
    found = Evaluation(
        metric="top1", samples=80, data=DIGEST, models=(first, one), confidence=0.95, max_drop=0.1, guard_max_drop=0.25
    )
    assert told(evaluation_cases(found)) == {
        "a.pb: score": "",
        "b.tflite: tolerance": "failure (missed)",
        "b.tflite: guard good": "",
        "b.tflite: guard open": "",
        "b.tflite: guard bad": "failure (missed)",
    }
    certified = replace(one, drop=0.0, certificate=certificate(Verdict.MET), guard=GROUPS[:2], verdict=Verdict.MET)
    assert told(evaluation_cases(replace(found, models=(first, certified)))) == {
        "a.pb: score": "",
        "b.tflite: tolerance": "",
        "b.tflite: certificate": "failure (not certified)",
        "b.tflite: guard good": "",
        "b.tflite: guard open": "failure (not certified)",
    }
    free = replace(found, models=(first, replace(one, verdict=None)), max_drop=None, guard_max_drop=None)
    assert told(evaluation_cases(free)) == {"a.pb: score": "", "b.tflite: score": ""}


@given(st.text(), st.text(min_size=1), st.text())
def test_any_names_make_valid_xml(name: str, case: str, text: str) -> None:
    """Read back by a parser; what XML cannot hold is written as JSON has it, and markup is escaped."""
    content = junit_xml(name, [Case(case, text), Case(case, failure=case), Case(case, error=case)], 0.5)
    root = ElementTree.fromstring(content)
    assert (root.tag, root.get("tests"), root.get("failures"), root.get("errors")) == ("testsuites", "3", "1", "1")
    names = {one.get("name") for one in root.iter("testcase")}
    assert len(names) == 1
    if case.isprintable():
        assert names == {case}


def test_hostile_names() -> None:
    bad = 'a"><script>\x00\x1b[2J\ud800\uffff&]]>'
    root = ElementTree.fromstring(junit_xml(bad, [Case(bad, failure=bad)], 0.0))
    (case,) = root.iter("testcase")
    assert case.get("name") == 'a"><script>\\u0000\\u001b[2J\\ud800\\uffff&]]>'


@pytest.mark.parametrize(
    ("error", "tag", "name"),
    [
        (BaselineError("net", "is bad"), "failure", "baseline"),
        (BudgetError("run", "is over"), "failure", "search"),
        (DataError("data", "is gone"), "error", "input"),
    ],
)
def test_an_error_is_a_case(tmp_path: Path, error: AutoquantError, tag: str, name: str) -> None:
    file = tmp_path / "deep" / "out.xml"
    with pytest.raises(type(error)), junit_report(file, "search net"):
        raise error
    (case,) = ElementTree.parse(file).getroot().iter("testcase")
    assert (case.get("name"), case.get("classname")) == (name, "autoquant.search net")
    assert (found := case.find(tag)) is not None and found.get("message") == str(error)


def test_a_file_of_an_earlier_run_does_not_stay(tmp_path: Path) -> None:
    """Nor after a bug of ours, which writes none; a file of something else stays until there is a new one."""
    file = tmp_path / "out.xml"
    with junit_report(file, "one") as write:
        write([Case("tolerance")])
    assert is_junit_of_ours(file)
    with pytest.raises(ZeroDivisionError), junit_report(file, "two"):
        raise ZeroDivisionError
    assert not file.exists()
    file.write_text("<testsuites/>")
    with junit_report(file, "three") as write:
        assert file.exists() and not is_junit_of_ours(file)
        write([Case("tolerance")])
    assert is_junit_of_ours(file)
    with junit_report("", "none") as write:
        write([Case("tolerance")])
    with pytest.raises(RunError), junit_report(file / "under a file.xml", "four"):
        pass


@pytest.mark.parametrize(
    "words",
    [
        ["search", "m.pb", "--data", "d.npz", "--tolerance", "1%", "--io", "int8"],
        ["search", "m.pb", "--data", "d.npz", "--tolerance", "1%"],
        ["evaluate", "m.pb", "n.tflite", "--data", "d.npz", "--confidence", "2"],
    ],
)
def test_last_nights_file_does_not_outlive_a_mistake(words: list[str], tmp_path: Path) -> None:
    file = tmp_path / "out.xml"
    with junit_report(file, "last night") as write:
        write([Case("tolerance")])
    assert main([*words, "--junit", str(file)]) == 2
    (case,) = ElementTree.parse(file).getroot().iter("testcase")
    assert case.get("name") == "input" and case.find("error") is not None


def test_a_run_of_a_stranger_writes_no_file_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, run = tmp_path / "here", tmp_path / "runs" / "a"
    here.mkdir()
    run.mkdir(parents=True)
    monkeypatch.chdir(here)

    def stored(junit: str, given: str | None = None) -> tuple[str, list[str]]:
        text = f'[request]\nmodel = "m"\ndata = "d"\ntolerance = "1%"\njunit = "{junit}"\n[digests]\n'
        (run / "run.toml").write_text(text + "\n".join(f'{key} = "{DIGEST}"' for key in DIGESTS))
        warned: list[str] = []
        return str(stored_junit(run, given, warned.append)), warned

    near = [str(here / "out.xml"), str(run / "out.xml")]
    assert [stored(path) for path in near] == [(path, []) for path in near]
    assert stored("") == ("", [])
    for far in (str(tmp_path / "out.xml"), str(here / ".." / "out.xml")):
        found, warned = stored(far)
        assert found == "" and "give --junit again" in warned[0]
    (here / "mine.xml").write_text("<mine/>")
    assert stored(str(here / "mine.xml"))[0] == ""
    assert stored(near[0], given="/elsewhere.xml") == ("/elsewhere.xml", [])
    (run / "run.toml").write_text("damaged")
    assert stored_junit(RunFolder(run).path, None, print) == ""


DIGESTS = ("model", "data", "calibration", "metric")
