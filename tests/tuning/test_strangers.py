"""A run's folder that comes from somewhere else: nothing of it is imported, run, or written through."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_model import Tiny

import autoquant
from autoquant.errors import DataError, ModelError, RunError
from autoquant.tuning.study.code import code_digests
from autoquant.tuning.study.request import SearchRequest

MINE = """
import pathlib
with (pathlib.Path(__file__).parent / "imported").open("a") as file:
    file.write("x")

def right(outputs, labels):
    return outputs.argmax(-1) == labels

right.bounds = (0, 1)

def same(batch):
    return batch
"""


@pytest.fixture(scope="module")
def started(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose metric and preprocessing are functions of a file beside it, with its model and data."""
    folder = tmp_path_factory.mktemp("started")
    (folder / "mine.py").write_text(MINE)
    shutil.copy(tiny.model, folder / "model.pb")
    code = f"{folder / 'mine.py'}"
    autoquant.search(
        folder / "model.pb",
        tiny.evaluation,
        calibration=tiny.calibration,
        metric=f"{code}:right",
        preprocess=f"{code}:same",
        tolerance=0.5,
        max_trials=1,
        certify="none",
        run=folder / "run",
    )
    return folder


@pytest.fixture
def copied(started: Path, tmp_path: Path) -> Path:
    """The same elsewhere; what it names is there too."""
    folder = Path(shutil.copytree(started, tmp_path / "copied", symlinks=True))
    request = folder / "run" / "run.toml"
    request.write_text(request.read_text().replace(str(started), str(folder)))
    (folder / "imported").unlink(missing_ok=True)
    return folder


def goes_on(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is done with a run, by name."""
    run = folder / "run"
    return {
        "resume": lambda: autoquant.resume(run, max_trials=2),
        "export": lambda: autoquant.export(run, folder / "out", target="litert"),
    }


@pytest.mark.parametrize("command", ["resume", "export"])
def test_code_is_compared_before_it_is_imported(copied: Path, command: str) -> None:
    with (copied / "mine.py").open("a") as file:
        file.write("\n")
    with pytest.raises(
        RunError, match=r"the (metric|preprocess) \(.*mine.py:.*\) is not what the run was started with"
    ):
        goes_on(copied)[command]()
    assert not (copied / "imported").exists()


@pytest.mark.parametrize("command", ["resume", "export"])
def test_code_that_is_what_it_was_is_imported(copied: Path, command: str) -> None:
    goes_on(copied)[command]()
    assert (copied / "imported").exists()


@pytest.mark.parametrize("command", ["resume", "export"])
@pytest.mark.parametrize("how", ["file", "link", "dots"])
def test_code_in_the_run_itself_is_never_imported(copied: Path, command: str, how: str) -> None:
    run = copied / "run"
    (run / "trials" / "mine.py").write_text(MINE)
    place = run / "trials" / "mine.py"
    if how == "link":
        (copied / "mine.py").unlink()
        (copied / "mine.py").symlink_to(place)
    else:
        named = place if how == "file" else copied / ".." / "copied" / "run" / "trials" / "mine.py"
        request = run / "run.toml"
        request.write_text(request.read_text().replace(str(copied / "mine.py"), str(named)))
    with pytest.raises(RunError, match="is code in the run's own folder, which is never imported"):
        goes_on(copied)[command]()
    assert not (run / "trials" / "imported").exists()


def test_a_run_that_has_no_digests_of_its_code_is_refused(copied: Path) -> None:
    request = copied / "run" / "run.toml"
    request.write_text(request.read_text().partition("[code]")[0])
    with pytest.raises(RunError, match="is not what the run was started with"):
        autoquant.resume(copied / "run")
    assert not (copied / "imported").exists()


def test_another_model_is_refused_before_it_is_opened(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("it was opened")

    for module in ("study.model_request", "export"):
        monkeypatch.setattr(f"autoquant.tuning.{module}.open_model", opened)
    model = copied / "model.pb"
    for change, kind, told in (
        (lambda: model.write_bytes(model.read_bytes() + b"\0"), RunError, "is not what the run was started with"),
        (model.unlink, ModelError, "there is no such file"),
    ):
        change()
        for call in goes_on(copied).values():
            with pytest.raises(kind, match=told):
                call()


def test_data_to_certify_that_is_given_now_is_named_by_whoever_gives_it(copied: Path) -> None:
    (copied / "fresh.py").write_text("import numpy as np\ndef give():\n    yield np.zeros((0, 8, 8, 2)), np.zeros(0)\n")
    with pytest.raises(DataError, match="is empty"):  # it was called
        autoquant.resume(copied / "run", certify=f"{copied / 'fresh.py'}:give")


def test_the_files_of_a_module_are_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "strange_package"
    (package / "inner").mkdir(parents=True)
    for file in ("__init__.py", "inner/__init__.py", "inner/mine.py"):
        (package / file).write_text("raise RuntimeError\n")
    monkeypatch.chdir(tmp_path)
    request = SearchRequest(model="m.pb", data="strange_package.inner.mine:give", metric="strange_package:f@output=a")
    found = code_digests(request)
    assert set(found) == {"data", "metric"}
    for file, changed in (("inner/mine.py", {"data"}), ("inner/__init__.py", {"data"}), ("__init__.py", set(found))):
        before = code_digests(request)
        (package / file).write_text(f"raise RuntimeError('{file}')\n")
        assert {name for name, digest in code_digests(request).items() if digest != before[name]} == changed
    assert "strange_package" not in sys.modules


@pytest.mark.parametrize("name", ["trials", "best", "trials/0000", ".lock", "study.journal", "corrections"])
def test_links_that_lead_out_of_the_run_are_refused(copied: Path, name: str) -> None:
    outside, entry = copied / "outside", copied / "run" / name
    if entry.is_dir() and not entry.is_symlink():
        shutil.move(entry, outside)
    else:
        outside.write_text("mine")
        entry.unlink(missing_ok=True)
    entry.symlink_to(outside)
    before = sorted(outside.rglob("*")) if outside.is_dir() else outside.read_text()
    run = copied / "run"
    others: list[Callable[[], Any]] = [lambda: autoquant.explain(run), lambda: autoquant.benchmark(run, repeat=3)]
    for call in (*goes_on(copied).values(), *others):
        with pytest.raises(RunError, match=f"{name}: is a link that leads out of the run, to "):
            call()
    assert before == (sorted(outside.rglob("*")) if outside.is_dir() else outside.read_text())


def test_a_run_that_is_a_link_itself_is_one(copied: Path) -> None:
    (copied / "link").symlink_to(copied / "run")
    assert autoquant.explain(copied / "link").run.trials == autoquant.explain(copied / "run").run.trials
