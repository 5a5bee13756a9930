"""What a report says of runs in every state, without a browser."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_runs import HOSTILE, report_run

from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.pulse import duration
from autoquant.reports.comparison import comparison_view
from autoquant.reports.page import render, visible
from autoquant.reports.run_files import RunFiles, RunReader
from autoquant.reports.verdict import headline
from autoquant.reports.view import report_view
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.trial import load_trial


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    """A run that came to its end, certified."""
    return RunReader(report_run(tmp_path_factory.mktemp("view") / "run")).read()


def test_a_certified_run_says_what_is_claimed(run: RunFiles) -> None:
    found = headline(run)
    assert (found.kind, found.title) == ("certified", "Certified")
    assert re.fullmatch(
        r"11 of 12 layers run in INT8, \d\d\.\d% of the multiply-adds\. On 450 holdout samples that the search has not "
        r"seen, top1 drops by 0\.0022 \(FP32 0\.9000, INT8 0\.8978\), and with 95% confidence the drop is at most "
        r"0\.0081: within the tolerance of 0\.0100\.",
        found.sentence,
    )
    assert found.more == (f"Why the search ended: {run.result['ended']}.",) if run.result else False


@pytest.mark.parametrize(
    ("asked", "device"),
    [
        ({}, None),
        (
            {"profile": "ethos-u55"},
            "Arm Ethos-U55 and Ethos-U65, compiled by Vela 5.2: profile ethos-u55, checked against Vela",
        ),
        ({"integer_only": True}, "any device that runs LiteRT's integer kernels: profile integer-only, checked "),
        ({"profile": "of another version", "integer_only": False}, None),
    ],
)
def test_the_device_that_a_file_is_for(run: RunFiles, asked: dict[str, Any], device: str | None) -> None:
    facts = dict(report_view(replace(run, request={**run.request, **asked}))["facts"])
    assert ("Device" in facts) == (device is not None)
    assert device is None or facts["Device"].startswith(device)


def test_what_is_shipped_is_told(run: RunFiles) -> None:
    assert run.result is not None
    shipped = {"what": "float", "model": "m", "digest": "0", "why": "INT8 has 0.90 times the speed"}
    found = headline(replace(run, result={**run.result, "shipped": shipped}))
    assert found.more[-1] == "To ship is the float model: INT8 has 0.90 times the speed."


def missed_on_holdout(certificate: Certificate) -> Certificate:
    return replace(certificate, verdict=Verdict.MISSED, drop=0.02, upper_bound=0.03)


def open_groups(certificate: Certificate) -> Certificate:
    group = GroupBound("class 3", 40, 0.025, upper=math.inf, lower=-0.01, losses=1, gains=0)
    return replace(certificate, verdict=Verdict.MET, guard=(group,), guard_max_drop=0.01)


def test_what_became_better_is_not_called_a_drop(run: RunFiles) -> None:
    assert run.trials is not None
    assert run.trials.certificate is not None
    better = replace(run.trials.certificate, drop=-0.0044)
    assert "top1 gets better by 0.0044 (FP32" in headline(changed(run, Verdict.CERTIFIED, better)).sentence


def changed(run: RunFiles, verdict: Verdict, certificate: Certificate | None) -> RunFiles:
    """The run with another verdict and certificate."""
    assert run.trials is not None
    assert run.result is not None
    result = {**run.result, "verdict": verdict.value, "uncertified": "the data is too little"}
    return replace(run, result=result, trials=replace(run.trials, certificate=certificate))


def test_other_verdicts_say_why(run: RunFiles) -> None:
    assert run.trials is not None
    certificate = run.trials.certificate
    assert certificate is not None
    missed = headline(changed(run, Verdict.MISSED, missed_on_holdout(certificate)))
    assert missed.kind == "missed"
    assert (
        "was met on the samples of the search, but missed on 450 holdout samples: top1 drops by 0.0200"
        in missed.sentence
    )
    uncertified = headline(changed(run, Verdict.MET, None))
    assert uncertified.title == "Met, not certified"
    assert uncertified.more[0] == "Not certified: the data is too little."
    wide = headline(changed(run, Verdict.MET, replace(certificate, verdict=Verdict.MET, upper_bound=0.0125)))
    assert wide.more[0] == (
        "Not certified: with 95% confidence the drop is at most 0.0125, which is more than the tolerance of 0.0100."
    )
    groups = changed(run, Verdict.MET, open_groups(certificate))
    assert "groups of the holdout are undecided" in headline(groups).more[0]
    rows = report_view(groups)["drop"]["chart"].rows
    assert [row.measured.shape for row in rows] == ["circle", "diamond", "square"]
    assert rows[2].measured.words == "0.0250, no bound"


def test_a_run_in_progress_and_one_that_was_cut_off(tmp_path: Path) -> None:
    folder = report_run(tmp_path / "run", verdict=None, trials=3)
    reader = RunReader(folder)
    going = headline(reader.read(going_on=True))
    assert (going.title, going.more) == ("Going on", ())
    assert going.sentence.startswith("After 3 trials the best so far is within tolerance: ")
    cut_off = headline(reader.read())
    assert cut_off.title == "Cut off"
    assert cut_off.more == (f"`autoquant resume {folder.path}` goes on with it.",)
    with folder.locked():
        assert headline(reader.read()).title == "Going on"


def test_a_trial_that_ended_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = report_run(tmp_path / "run", verdict=None, trials=3)
    reader, read = RunReader(folder), list[str]()

    def counted(path: Path) -> object:
        read.append(path.name)
        return load_trial(path)

    monkeypatch.setattr("autoquant.reports.run_files.load_trial", counted)
    first, again = reader.read(), reader.read()
    assert read == ["0000", "0001", "0002"]
    assert first.trials == again.trials
    score = folder.trial(1) / "score.json"
    score.write_text(score.read_text().replace('"why": "', '"why": "amended, '))
    import os

    os.utime(score, ns=(1, 1))
    amended = reader.read().trials
    assert read[3:] == ["0001"]
    assert amended is not None
    assert amended.trials[1].why.startswith("amended, ")


def test_names_are_escaped_wherever_they_are(tmp_path: Path) -> None:
    name = HOSTILE.replace("/", "|")
    run = RunReader(report_run(tmp_path / "run", name=name)).read()
    for page in (
        render("report.html.j2", **report_view(run)),
        render("comparison.html.j2", **comparison_view([run, run])),
    ):
        assert "<script>alert" not in page
        assert "\x1b" not in page
        assert "\u202e" not in page
        assert page.count("<script>") == page.count("</script>") == 1
        assert page.count("<style>") == page.count("</style>") == 1
        assert "&lt;script&gt;alert(1)" in page


def test_text_that_is_seen_as_it_is_stays() -> None:
    assert visible("conv_1/Größe 中文 → 5 µs") == "conv_1/Größe 中文 → 5 µs"
    assert visible("a\nb\tc") == "a⟨U+000A⟩b⟨U+0009⟩c"
    assert visible(7) == 7


def test_as_many_pictures_as_are_wanted(run: RunFiles) -> None:
    assert len(report_view(run)["samples"]["pictures"]) == 6
    assert len(report_view(run, pictures=2)["samples"]["pictures"]) == 2
    none = report_view(run, pictures=0)["samples"]
    assert (none["pictures"], none["no_pictures"]) == ([], "No pictures: --samples 0.")
    assert render("report.html.j2", **report_view(run, pictures=0)).count("data:image") == 0


def test_a_metric_of_all_samples_names_none_of_them(run: RunFiles) -> None:
    assert run.overview is not None
    whole = replace(run, changes=None, overview=replace(run.overview, per_sample=False))
    assert report_view(whole)["samples"]["missing"] == (
        "top1 has no value for each sample, so no sample can be said to have changed."
    )


def test_a_certificate_that_is_gone_claims_nothing(run: RunFiles, tmp_path: Path) -> None:
    folder = report_run(tmp_path / "run")
    best = RunReader(folder).read().best
    assert best is not None
    (folder.trial(best.number) / CERTIFICATE).unlink()
    view = report_view(RunReader(RunFolder(folder.path)).read())
    assert [row.measured.shape for row in view["drop"]["chart"].rows] == ["circle"]
    assert any("Nothing was measured on a holdout" in note for note in view["drop"]["notes"])


def test_runs_of_other_tolerances_share_no_scale(run: RunFiles) -> None:
    assert run.trials is not None
    terms = replace(run.trials.terms, max_drop=0.5)
    other = replace(run, trials=replace(run.trials, terms=terms))
    assert comparison_view([run, other])["drops"] is None
    together = comparison_view([run, run])["drops"]
    assert together is not None
    assert len(together["chart"].rows) == 4


@pytest.mark.parametrize("hosts", [(), ("a",), ("a", HOSTILE, "c")])
def test_trials_are_counted_by_machine_where_there_are_several(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    folder = report_run(tmp_path / "run", hosts=hosts)
    run = RunReader(folder).read()
    view, page = report_view(run), render("report.html.j2", **report_view(run))
    assert run.trials is not None
    assert [row["host"] for row in view["history"]["rows"]] == [
        hosts[place % len(hosts)] if hosts else "-" for place in range(len(run.trials.trials))
    ]
    assert ("Machine</th>" in page) == ("Trials by machine" in page) == (len(hosts) > 1)
    assert "<script>alert" not in page
    if len(hosts) < 2:
        assert view["effort"]["hosts"] == []
        return
    scores = [json.loads((path / "score.json").read_text()) for path in folder.trials().values()]
    for host, count, samples, time in view["effort"]["hosts"]:
        own = [score for score in scores if score["host"] == host]
        assert (count, samples) == (str(len(own)), f"{sum(score['samples'] for score in own):,}")
        assert time == duration(sum(sum(score["seconds"].values()) for score in own))
    assert [row[0] for row in view["effort"]["hosts"]] == sorted(hosts)


def test_trials_of_the_search_itself_are_beside_those_of_workers(tmp_path: Path) -> None:
    folder = report_run(tmp_path / "run", hosts=("a", "b"))
    first = folder.trial(0) / "score.json"
    first.write_text(json.dumps({**json.loads(first.read_text()), "host": None}))
    rows = report_view(RunReader(folder).read())["effort"]["hosts"]
    assert [row[0] for row in rows] == ["a", "b", "the search itself"] and rows[-1][1] == "1"
