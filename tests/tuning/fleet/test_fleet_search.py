"""Searches with real workers: processes of this machine, which load no TensorFlow, as the model is a .tflite."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import bucket as bucket
from databases import Server
from fleet_searches import METRIC, until, untimed, worker, workers

import autoquant
from autoquant.calibration.plan import Plan
from autoquant.errors import RunError, StorageError, UsageError
from autoquant.files import sha256_of
from autoquant.tuning.builder import Builder, Built
from autoquant.tuning.events import Event, TrialEnded, Warned, WorkersSeen
from autoquant.tuning.fleet.crew import CrewCall
from autoquant.tuning.result import Ended
from autoquant.tuning.study.artifacts import Artifacts


@contextmanager
def counted_builds() -> Iterator[list[str]]:
    """The names of the folders in which this process builds trials within."""
    build, built = Builder.build, list[str]()

    def counted(builder: Builder, plan: Plan, folder: Path, *rest: Any) -> Built:
        built.append(folder.name)
        return build(builder, plan, folder, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Builder, "build", counted)
        yield built


@pytest.fixture
def improving(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a search in which trial 2 is the best, and then trial 5."""
    return {**options, "tolerance": 0.2, "seed": 4}


def test_workers_of_this_machine_find_what_one_process_does(options: dict[str, Any], tmp_path: Path) -> None:
    """One of them dies of a trial, which another carries out; all files are there, and nothing is left behind."""
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    heard: list[Event] = []
    asked: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        both = any(len(seen.workers) == 2 for seen in heard if isinstance(seen, WorkersSeen))  # none is still joining
        if isinstance(event, TrialEnded) and event.trials >= 2 and both and not asked:
            asked.append(event)
            (tmp_path / "die").touch()

    result = autoquant.search(**options, jobs=2, listener=hear)
    assert (result.ended, untimed(result)) == (Ended.TRIALS, untimed(alone))
    assert any("has died: trial" in event.text for event in heard if isinstance(event, Warned))
    assert max(len(event.workers) for event in heard if isinstance(event, WorkersSeen)) == 2
    assert {trial.host for trial in result.trials} == {socket.gethostname()}
    assert b'"host"' not in b"".join(path.read_bytes() for path in (tmp_path / "alone").glob("**/*.json"))
    assert result.best is not None and alone.best is not None and result.best.number == alone.best.number
    names = {path.name for path in (options["run"] / "trials" / "0000").iterdir()}
    assert names == {"config.json", "record.txt", "score.json"}
    assert not list(options["run"].glob(".*-*"))
    again = autoquant.resume(options["run"], max_trials=7, jobs=1)
    assert untimed(again)[:6] == untimed(alone) and len(again.trials) == 7
    assert [trial.host for trial in again.trials[:6]] == [trial.host for trial in result.trials]


def test_workers_elsewhere_have_nothing_but_the_storage(
    options: dict[str, Any], server: Server, tmp_path: Path
) -> None:
    """One is told to end while it works; the owner carries nothing out itself."""
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    study = uuid.uuid4().hex
    with workers(2, "--storage", server.url, "--study", study) as (first, second):

        def hear(event: Event) -> None:
            if isinstance(event, TrialEnded) and event.trials == 2:
                first.send_signal(signal.SIGTERM)

        result = autoquant.search(**options, jobs=0, storage=server.url, study=study, listener=hear)
        out, err = second.communicate(timeout=60)
        assert first.wait(timeout=60) == 130
    assert (second.returncode, out) == (0, "the search has ended: trial budget used\n"), err
    assert (result.ended, untimed(result)) == (Ended.TRIALS, untimed(alone))
    assert result.best is not None and (options["run"] / "best" / "tiny_int8.tflite").is_file()
    assert autoquant.status(storage=server.url, study=study).best == autoquant.status(options["run"]).best
    with pytest.raises(RunError, match="exists already"):
        autoquant.search(**{**options, "run": tmp_path / "another"}, storage=server.url, study=study)


@pytest.mark.parametrize("kind", ["directory", "s3"])
def test_the_owner_takes_the_files_that_workers_leave(
    improving: dict[str, Any], server: Server, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Of the closest while none is within tolerance; it builds and scores nothing again, and those of the best stay."""
    alone = autoquant.search(**{**improving, "run": tmp_path / "alone"})
    place = str(tmp_path / "place") if kind == "directory" else request.getfixturevalue("bucket")
    study = uuid.uuid4().hex
    there, heard = Artifacts(place, study)._store, list[set[str]]()

    def hear(event: Event) -> None:
        if isinstance(event, TrialEnded):
            heard.append({key.partition("-")[0] for key in there.listed()})

    with workers(1, "--storage", server.url, "--study", study) as (only,), counted_builds() as built:
        result = autoquant.search(**improving, jobs=0, storage=server.url, study=study, artifacts=place, listener=hear)
        _, err = only.communicate(timeout=60)
    assert (only.returncode, "failed" in err) == (0, False), err
    assert untimed(result) == untimed(alone) and built == []
    assert result.warnings == alone.warnings
    assert result.best is not None and alone.best is not None and alone.best.samples == result.best.samples
    names = {*result.best.digests, "changes.json"}
    assert {path.name for path in (improving["run"] / "best").iterdir()} == names | {"score.json"}
    for name in names:
        found, expected = ((folder / "best" / name).read_bytes() for folder in (improving["run"], tmp_path / "alone"))
        assert found == expected, name
    assert heard == [{"0000"}, {"0000"}, {"0000", "0002"}, {"0002"}, {"0002"}, {"0002", "0005"}], "as each trial ends"
    assert sorted(there.listed()) == sorted(f"0005-{sha256_of(improving['run'] / 'best' / name)}" for name in names)


def test_what_was_damaged_or_lost_is_built_again(
    improving: dict[str, Any], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = autoquant.search(**{**improving, "run": tmp_path / "alone"})
    study, harmed = uuid.uuid4().hex, list[int]()
    take = Artifacts.take

    def harm(artifacts: Artifacts, trial: int, files: Mapping[str, str], folder: Path) -> None:
        path = tmp_path / "place" / f"{study}-artifacts" / f"{trial:04d}-{files['tiny_int8.tflite']}"
        if harmed:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-1])
        harmed.append(trial)
        take(artifacts, trial, files, folder)

    monkeypatch.setattr(Artifacts, "take", harm)
    with workers(1, "--storage", server.url, "--study", study), counted_builds() as built:
        place = str(tmp_path / "place")
        result = autoquant.search(**improving, jobs=0, storage=server.url, study=study, artifacts=place)
    assert untimed(result) == untimed(alone) and harmed == [0, 2, 5] and built == ["0000", "0002", "0005"]
    told = [text for text in result.warnings if "is built again" in text]
    assert "tiny_int8.tflite of trial 0 was changed there (another SHA-256)" in told[0]
    for number, text in zip((2, 5), told[1:], strict=True):
        assert f"tiny_int8.tflite of trial {number} is not there" in text


def test_a_storage_that_is_away_for_a_while_loses_nothing(
    options: dict[str, Any], either: Server, tmp_path: Path
) -> None:
    server = either
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    study, heard = uuid.uuid4().hex, list[str]()
    with workers(1, "--storage", server.url, "--study", study) as (only,):

        def hear(event: Event) -> None:
            if isinstance(event, Warned):
                heard.append(event.text)
            if isinstance(event, TrialEnded) and event.trials in (1, 3):
                server.stop("immediate" if event.trials == 1 else "fast")
                time.sleep(1.0)
                server.start()

        result = autoquant.search(**options, jobs=0, storage=server.url, study=study, listener=hear)
        _, err = only.communicate(timeout=60)
    assert untimed(result) == untimed(alone) and only.returncode == 0
    assert any("is away" in text for text in [*heard, err])


def test_an_owner_that_was_killed_is_followed_by_another(options: dict[str, Any], tmp_path: Path) -> None:
    """The worker waits for it, and goes on."""
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    run = options["run"]
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if name != "model"]
    command = [sys.executable, "-m", "autoquant", "search", str(options["model"]), *words, "--jobs=0", "--plain"]
    owner = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    until(lambda: (run / "workers.journal").exists() or owner.poll() is not None)
    with workers(1, str(run)) as (only,):
        until(lambda: len(list(run.glob("trials/*/score.json"))) >= 2 or owner.poll() is not None)
        owner.kill()
        owner.communicate()
        assert only.poll() is None
        result = autoquant.resume(run)
        out, err = only.communicate(timeout=60)
    assert (only.returncode, out) == (0, "the search has ended: trial budget used\n"), err
    assert untimed(result) == untimed(alone)


def test_a_worker_with_something_else_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    """It is told what; the search goes on without it."""
    refused: dict[str, str] = {}
    work: Callable[..., str] = autoquant.work

    def hear(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.trials == 1:
            for what, given in others.items():
                with pytest.raises(RunError) as error:
                    work(run=options["run"], **{what: given})
                refused[what] = str(error.value)

    others = _others(options, tmp_path)
    result = autoquant.search(**options, jobs=2, listener=hear)
    assert result.ended is Ended.TRIALS and set(refused) == {"model", "data", "calibration", "metric"}
    for what, given in others.items():
        assert f"the {what} ({given}) is not what the run was started with" in refused[what]


def _others(options: dict[str, Any], folder: Path) -> dict[str, str]:
    """Other files of the same kind, by what they are."""
    found = {}
    for what in ("data", "calibration"):
        with np.load(options[what]) as arrays:
            changed = {**arrays, "x": arrays["x"] + 1.0}
        np.savez(folder / f"other-{what}.npz", **changed)
        found[what] = str(folder / f"other-{what}.npz")
    model, metric = folder / "other.tflite", folder / "other.py"
    model.write_bytes(options["model"].read_bytes() + bytes(4))
    metric.write_text(METRIC.replace("max(axis=1)", "mean(axis=1)"))
    return {**found, "model": str(model), "metric": f"{metric}:metric"}


def test_other_versions_are_refused(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.trials == 1:
            monkeypatch.setattr("autoquant.tuning.study.identity.__version__", "0.0.1")
            with pytest.raises(RunError) as error:
                autoquant.work(run=options["run"])
            refused.append(str(error.value))

    autoquant.search(**options, jobs=2, listener=hear)
    assert "other versions are installed here: autoquant 0.0.1 instead of" in refused[0]


def test_a_second_owner_is_refused_by_name_and_host(options: dict[str, Any], server: Server, tmp_path: Path) -> None:
    """Also where it has a copy of the folder, which has another lock."""
    refused: list[str] = []

    def hear(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.trials == 1:
            shutil.copytree(options["run"], tmp_path / "copy", symlinks=True)
            for path in (options["run"], tmp_path / "copy"):
                with pytest.raises(RunError) as error:
                    autoquant.resume(path)
                refused.append(str(error.value))

    autoquant.search(**options, storage=server.url, study=uuid.uuid4().hex, listener=hear)
    assert "another process is working on it" in refused[0]
    assert f"is owned by {socket.gethostname()} (process {os.getpid()}), which lives" in refused[1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jobs": -1}, "--jobs: must be at least 0"),
        ({"study": "night"}, "--study: is the name of a search in a --storage"),
        ({"artifacts": "s3://bucket"}, "--artifacts: is for workers that meet the search in a --storage"),
        ({"storage": "sqlite:///a.db"}, "is no storage that several processes can share"),
        ({"storage": "postgresql+psycopg://aq:secret@host/db"}, "has a password"),
        ({"storage": "nonsense"}, "is no URL of a database"),
        ({"jobs": 2, "metric": lambda outputs, labels: outputs}, "cannot be given metric from memory"),
        ({"storage": "postgresql://aq@host/db", "data": {"x": [1]}}, "cannot be given data from memory"),
    ],
)
def test_what_workers_cannot_do_is_said_at_once(options: dict[str, Any], given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        autoquant.search(**{**options, **given})
    assert "secret" not in str(error.value) and not options["run"].exists()


def test_a_storage_that_is_not_there_is_said_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(StorageError, match="cannot be opened") as error:
        autoquant.search(**options, storage="postgresql+psycopg://aq@127.0.0.1:1/none")
    assert error.value.exit_code == 75 and not options["run"].exists()


def test_a_worker_that_comes_to_a_search_that_works_alone_joins_it(options: dict[str, Any], tmp_path: Path) -> None:
    """The search goes on with workers, one of them its own; resumed, it works alone again."""
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    came: list[subprocess.Popen[str]] = []

    def hear(event: Event) -> None:
        if isinstance(event, TrialEnded) and event.trials == 1:
            came.append(worker(str(options["run"])))
            until(lambda: (options["run"] / "workers.journal").exists() and _visitors(options["run"]))

    result = autoquant.search(**options, listener=hear)
    out, err = came[0].communicate(timeout=60)
    assert (came[0].returncode, out) == (0, "the search has ended: trial budget used\n"), err
    assert untimed(result) == untimed(alone)
    heard: list[Event] = []
    again = autoquant.resume(options["run"], max_trials=7, listener=heard.append)
    assert len(again.trials) == 7 and not any(isinstance(event, WorkersSeen) for event in heard)


def _visitors(run: Path) -> bool:
    return "visitor" in (run / "workers.journal").read_text()


def test_a_worker_that_is_stopped_in_a_trial_is_given_up_and_joins_again(
    options: dict[str, Any], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial is carried out by another, and its late result dropped, which it says."""
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    defaults = CrewCall.__init__.__kwdefaults__ or {}
    monkeypatch.setitem(defaults, "grace", 8.0)
    study, stopped, lost = uuid.uuid4().hex, list[int](), list[str]()
    with workers(2, "--storage", server.url, "--study", study) as processes:

        def hear(event: Event) -> None:
            if isinstance(event, WorkersSeen) and not stopped:
                stopped.extend(one.pid for one in event.workers if one.trial == 1)
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
            if isinstance(event, Warned) and "gave no sign of life" in event.text:
                lost.append(event.text)
            if isinstance(event, TrialEnded) and event.trial.number == 1:
                os.kill(stopped[0], signal.SIGCONT)
            if isinstance(event, TrialEnded) and event.trials == 5:
                time.sleep(3.0)  # so that it comes back to a search that goes on

        result = autoquant.search(**options, jobs=0, storage=server.url, study=study, listener=hear)
        told = [process.communicate(timeout=60)[1] for process in processes]
    assert untimed(result) == untimed(alone)
    assert len(lost) == 1 and lost[0].endswith("gave no sign of life for 8 s: trial 1 is carried out by another")
    assert sum("gave it up: its result of trial 1 is dropped; joining again" in text for text in told) == 1
    assert [process.returncode for process in processes] == [0, 0]
