"""What Python and notebooks show of results: a few lines, a frame of trials, the head of the report."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tiny_model import Tiny

import autoquant
from autoquant.tuning.result import COLUMNS, SearchResult


@pytest.fixture(scope="module")
def result(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A run of several trials."""
    folder = tmp_path_factory.mktemp("shown")
    (folder / "space.toml").write_text('[layer]\nact_algo = ["minmax", "ifmr"]\nquant_enable = [true, false]')
    options: dict[str, Any] = {"tolerance": 0.0, "max_trials": 4, "sampler": "tpe", "space": folder / "space.toml"}
    return autoquant.search(tiny.model, tiny.evaluation, target="litert", **options, run=folder / "run<b>")


def test_every_result_is_shown_in_a_few_lines(tiny: Tiny, result: SearchResult, tmp_path: Path) -> None:
    run = tmp_path / "run"
    certified = autoquant.search(tiny.model, tiny.evaluation, tolerance="20%", max_trials=1, run=run)
    made = autoquant.export(result.run, tmp_path / "out", target="tensorflow")
    assert certified.model is not None
    evaluation = autoquant.evaluate(tiny.model, certified.model, data=tiny.evaluation, tolerance="20%")
    shown: dict[str, Any] = {
        "SearchResult": result,
        "Trial": result.best,
        "Certificate": certified.certificate,
        "Latency": result.latency,
        "Export": made,
        "Explanation": autoquant.explain(result.run),
        "Inspection": autoquant.inspect(tiny.model, calibration=tiny.calibration),
        "CheckResult": autoquant.check(made.model),
        "Evaluation": evaluation,
        "ModelScore": evaluation.models[1],
        "Estimate": autoquant.dry_run(tiny.model, tiny.evaluation, run=tmp_path / "none"),
    }
    for name, one in shown.items():
        text = repr(one)
        assert re.match(rf"<{name}[ ,:]", text), text
        assert text.endswith(">") and len(text) < 700 and text.count("\n") <= 3, text
        assert "PosixPath" not in text
    assert str(result.model) in repr(result)
    assert f"{result.best.int8_layers} of 3 layers in INT8" in repr(result.best)  # type: ignore[union-attr]
    assert "3 layers can be INT8" in repr(shown["Inspection"])
    assert len(repr(shown["Inspection"].model)) < 1000
    assert "Conv2D" in repr(shown["CheckResult"])
    assert all(str(one) in repr(evaluation) for one in evaluation.models)


def test_the_trials_as_a_frame(result: SearchResult) -> None:
    frame = result.trials_dataframe()
    assert frame.index.tolist() == [trial.number for trial in result.trials]
    assert frame.index.name == "number" and frame.columns.tolist() == list(COLUMNS[1:])
    for trial, (_, row) in zip(result.trials, frame.iterrows(), strict=True):
        assert (row["state"], row["int8_layers"], row["why"]) == (trial.state.value, trial.int8_layers, trial.why)
        assert row["seconds"] == pytest.approx(sum(trial.seconds.values()))
    scores = [trial.score for trial in result.trials if trial.score is not None]
    assert frame["score"].dropna().tolist() == scores


def test_a_frame_needs_pandas(result: SearchResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(autoquant.errors.UsageError, match="needs pandas, which is not installed; pip install pandas"):
        result.trials_dataframe()


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img") and not any(name in ("src", "href") for name, _ in attrs)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data.strip())


def test_a_notebook_shows_the_head_of_the_report(result: SearchResult) -> None:
    html = result._repr_html_()  # type: ignore[attr-defined]  # for notebooks alone
    assert len(html) < 5000
    tags = Tags()
    tags.feed(html)
    assert tags.open == []
    text = " ".join(filter(None, tags.text))
    report = (result.run / "report.html").read_text()
    for sentence in re.findall(r"<p>(.*?)</p>", html):
        assert sentence in report
    assert str(result.run) in text and "layers run in INT8" in text  # its name has a mark of HTML
    style = html.partition("<style>\n")[2].partition("\n</style>")[0]
    assert style and all(line.startswith(".autoquant") for line in style.splitlines())


def test_a_run_that_is_gone_is_shown_as_text(result: SearchResult, tmp_path: Path) -> None:
    from dataclasses import replace

    shutil.copytree(result.run, tmp_path / "copy", symlinks=True)
    moved = replace(result, run=tmp_path / "copy")
    assert moved._repr_html_() is not None  # type: ignore[attr-defined]
    shutil.rmtree(tmp_path / "copy")
    assert moved._repr_html_() is None  # type: ignore[attr-defined]


def test_a_result_is_resumed_as_one_that_is_shown(tiny: Tiny, tmp_path: Path) -> None:
    autoquant.search(tiny.model, tiny.evaluation, tolerance="5%", max_trials=1, run=tmp_path / "run")
    assert autoquant.resume(tmp_path / "run")._repr_html_()  # type: ignore[attr-defined]


def test_nothing_of_notebooks_is_loaded(tiny: Tiny) -> None:
    code = "import sys, autoquant.api; print(*sorted({'IPython', 'pandas', 'tensorflow', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
