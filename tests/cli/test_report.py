from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import report_run

from autoquant.cli import report
from autoquant.cli.main import main


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_run(tmp_path_factory.mktemp("report") / "run", trials=3).path


def test_the_page_is_in_the_folder_and_is_named(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(searched)]) == 0
    assert capsys.readouterr().out == f"{searched / 'report.html'}\n"
    assert (searched / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_it_is_opened_where_that_is_asked_for(searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert main(["report", str(searched), "--to", "page.html", "--open", "--samples", "0"]) == 0
    assert opened == [Path("page.html").resolve().as_uri()]
    assert "data:image" not in Path("page.html").read_text(encoding="utf-8")


def test_several_are_compared_on_one_page(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(searched), str(searched), "--compare"]) == 0
    assert capsys.readouterr().out == "comparison.html\n"
    assert "2 runs compared" in Path("comparison.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "-1"], "--samples: must be at least 0, got -1; for example 24, or 0"),
        (["--compare"], "--compare: compares two runs or more"),
        (["RUN", "--to", "x.html"], "--to: is one page, and there are several runs"),
        (["--to", "no/such/folder/x.html"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused(
    searched: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(searched), *(str(searched) if word == "RUN" else word for word in words)]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert main(["report", "empty"]) == 2
    assert "empty: is not a run" in capsys.readouterr().err


def test_reading_many_trials_is_not_silent(
    searched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "MANY", 2)
    assert main(["report", str(searched), "--to", "page.html"]) == 0
    assert f"reading 3 trials of {searched} ..." in capsys.readouterr().err
